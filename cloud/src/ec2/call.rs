//! One SDK call: sends, counts attempts, turns the SDK's error into ours, reports.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

use super::client::Ec2Client;
use super::error::{Action, Delivery, Ec2Error, ErrorCode};
use super::observe::CallReport;

/// Counts the requests of one call that were handed to the transport. Zero proves that EC2 saw nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts(Arc<AtomicU32>);

impl Attempts {
    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "Attempts"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Ec2Client {
    /// Sends one call and reads its answer; the observer hears of it either way.
    pub(super) async fn call<O, E, T, F>(
        &self,
        action: Action,
        send: impl FnOnce(Attempts) -> F,
        read: impl FnOnce(O) -> Result<T, Ec2Error>,
    ) -> Result<T, Ec2Error>
    where
        F: Future<Output = Result<O, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let answer = send(attempts.clone()).await;
        let attempts = attempts.count();
        let result = answer.map_err(|error| from_sdk(action, error, attempts)).and_then(read);
        let outcome = result.as_ref().map(|_| ());
        self.observer.called(&CallReport {
            action,
            outcome,
            took: start.elapsed(),
            attempts,
        });
        result
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK's enum is non-exhaustive")]
fn from_sdk<E>(action: Action, error: SdkError<E, HttpResponse>, attempts: u32) -> Ec2Error
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let request_id = error.request_id().map(str::to_owned);
    match error {
        // The SDK files a success that it cannot parse under service errors.
        SdkError::ServiceError(ref context) if context.raw().status().is_success() => Ec2Error::Unreadable {
            action,
            status: context.raw().status().as_u16(),
            source: error.into(),
        },
        SdkError::ServiceError(context) => Ec2Error::Refused {
            action,
            code: ErrorCode::parse(context.err().code().unwrap_or_default()),
            message: context.err().message().unwrap_or_default().to_owned(),
            status: context.raw().status().as_u16(),
            request_id,
        },
        SdkError::ResponseError(ref context) => Ec2Error::Unreadable {
            action,
            status: context.raw().status().as_u16(),
            source: error.into(),
        },
        SdkError::ConstructionFailure(_) => Ec2Error::Request {
            action,
            source: error.into(),
        },
        other => Ec2Error::Unanswered {
            action,
            delivery: delivery(&other, attempts),
            source: other.into(),
        },
    }
}

/// Only what failed before or while connecting was surely not sent. After more than one attempt an earlier one may have
/// been, so a failed connection proves something about the only attempt alone.
fn delivery(error: &(dyn Error + 'static), attempts: u32) -> Delivery {
    match attempts {
        0 => Delivery::NotSent,
        1 if failed_to_connect(error) => Delivery::NotSent,
        _ => Delivery::MaybeSent,
    }
}

fn failed_to_connect(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| <dyn Error>::source(*error))
        .filter_map(|error| error.downcast_ref::<hyper_util::client::legacy::Error>())
        .any(hyper_util::client::legacy::Error::is_connect)
}
