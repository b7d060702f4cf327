//! `grpc.health.v1`, answered through the owner task: a core that is stuck is not healthy.

use std::time::Duration;

use tokio::sync::oneshot;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::owner::{Inbox, Input};

/// Names under which deployed probes ask.
const SERVICES: [&str; 2] = ["", "grpc.health.v1.aws-node"];
/// The probe's own limit is 1 s; the owner answers in microseconds.
const DEADLINE: Duration = Duration::from_millis(800);

#[derive(Debug)]
pub(crate) struct OwnerHealth(Inbox);

impl OwnerHealth {
    pub(crate) fn new(inbox: Inbox) -> Self {
        Self(inbox)
    }

    async fn is_alive(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        let asked = async { self.0.send(Input::Status(reply)).await && answer.await.is_ok() };
        tokio::time::timeout(DEADLINE, asked).await.unwrap_or(false)
    }
}

#[tonic::async_trait]
impl Health for OwnerHealth {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found(format!("unknown service {service:?}")));
        }
        let status = if self.is_alive().await {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("use Check: every answer is fresh"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner;

    /// What a probe with its usual limit hears; `None` when it heard nothing in time.
    async fn probe(inbox: Inbox) -> Option<ServingStatus> {
        let health = OwnerHealth::new(inbox);
        let check = health.check(Request::new(HealthCheckRequest::default()));
        let answer = tokio::time::timeout(Duration::from_secs(1), check).await.ok()?;
        Some(answer.unwrap().into_inner().status())
    }

    #[tokio::test]
    async fn an_owner_that_never_answers_is_not_serving_within_the_probes_limit() {
        let (inbox, mut stuck) = owner::queue();
        assert_eq!(probe(inbox).await, Some(ServingStatus::NotServing));
        assert!(matches!(stuck.try_recv(), Ok(Input::Status(_))), "it was asked");
    }

    #[tokio::test]
    async fn an_owner_whose_queue_stays_full_is_not_serving_within_the_probes_limit() {
        let (inbox, _stuck) = owner::queue();
        let send = || tokio::time::timeout(Duration::from_millis(1), inbox.send(Input::Shutdown));
        while send().await.is_ok() {}
        assert_eq!(probe(inbox).await, Some(ServingStatus::NotServing));
    }

    #[tokio::test]
    async fn an_owner_that_has_ended_is_not_serving() {
        let (inbox, ended) = owner::queue();
        drop(ended);
        assert_eq!(probe(inbox).await, Some(ServingStatus::NotServing));
    }
}
