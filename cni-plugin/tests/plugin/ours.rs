//! A stand-in for what our ipamd serves besides the deployed wire: CHECK, STATUS, GC.

use std::path::Path;

use proto::agent::agent_server::{Agent, AgentServer};
use proto::agent::*;
use tonic::{Request, Response, Status};

use crate::daemons::{Calls, Daemon, socket};

/// What it answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ours {
    /// To GetStatus.
    pub(crate) status: GetStatusReply,
    /// To CheckAttachment; without one the attachment is unknown.
    pub(crate) lease: Option<Lease>,
    /// To CollectGarbage; without one it fails.
    pub(crate) garbage: Option<CollectGarbageReply>,
    pub(crate) calls: Calls,
}

impl Ours {
    /// Serves under `root`.
    pub(crate) fn serve(self, root: &Path) -> Daemon {
        let calls = self.calls.clone();
        let service = AgentServer::new(self);
        Daemon::serve(&socket(root, "ipamd.sock"), calls, move |router| {
            router.add_service(service)
        })
    }
}

fn text(attachment: &Attachment) -> String {
    let Attachment {
        network_name,
        container_id,
        if_name,
    } = attachment;
    format!("{network_name}/{container_id}/{if_name}")
}

#[tonic::async_trait]
impl Agent for Ours {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusReply>, Status> {
        self.calls.note("status".to_owned());
        Ok(Response::new(self.status.clone()))
    }

    async fn check_attachment(
        &self,
        request: Request<CheckAttachmentRequest>,
    ) -> Result<Response<CheckAttachmentReply>, Status> {
        let asked = request.into_inner().attachment.unwrap_or_default();
        self.calls.note(format!("check {}", text(&asked)));
        let lease = self.lease.clone().ok_or_else(|| Status::not_found("no lease"))?;
        Ok(Response::new(CheckAttachmentReply { lease: Some(lease) }))
    }

    async fn collect_garbage(
        &self,
        request: Request<CollectGarbageRequest>,
    ) -> Result<Response<CollectGarbageReply>, Status> {
        let asked = request.into_inner();
        let valid: Vec<String> = asked.valid.iter().map(text).collect();
        self.calls
            .note(format!("gc {} [{}]", asked.network_name, valid.join(",")));
        let reply = self.garbage.clone();
        Ok(Response::new(reply.ok_or_else(|| Status::unavailable("rules stayed"))?))
    }

    async fn list_leases(&self, _: Request<ListLeasesRequest>) -> Result<Response<ListLeasesReply>, Status> {
        Err(Status::unimplemented("the plugin does not ask"))
    }

    async fn get_account(&self, _: Request<GetAccountRequest>) -> Result<Response<GetAccountReply>, Status> {
        Err(Status::unimplemented("the plugin does not ask"))
    }
}
