//! `rpc.CNIBackend` and `rpc.ConfigServerBackend`: the deployed wire.

use ipam_core::{Cause, Grant, ReqId};
use proto::convert::{AddRequest, Attachment, CLEARED, DelRequest, NO_ADDRESS, PodAddress, UNKNOWN_POD};
use proto::rpc;
use proto::rpc::cni_backend_server::CniBackend;
use proto::rpc::config_server_backend_server::ConfigServerBackend;
use tokio::sync::oneshot;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::{Context, ExternalSnat};
use crate::owner::{DelAnswer, Inbox, Input};

/// Tells the owner when the client hangs up: tonic drops the handler then.
struct AbandonOnDrop {
    inbox: Option<Inbox>,
    req: ReqId,
}

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        if let Some(inbox) = &self.inbox {
            inbox.try_send(Input::Abandon(self.req));
        }
    }
}

#[tonic::async_trait]
impl CniBackend for Context {
    async fn add_network(
        &self,
        request: Request<rpc::AddNetworkRequest>,
    ) -> Result<Response<rpc::AddNetworkReply>, Status> {
        let add = AddRequest::try_from(request.into_inner()).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if add.attachment == Attachment::MultiNic {
            return Err(Status::failed_precondition(format!(
                "{NO_ADDRESS}: multi-NIC attachment is not enabled"
            )));
        }
        let req = self.next_request();
        let (reply, answer) = oneshot::channel();
        let mut guard = AbandonOnDrop {
            inbox: Some(self.inbox.clone()),
            req,
        };
        let accepted = self
            .inbox
            .send(Input::Add {
                req,
                key: add.key,
                pod: add.pod,
                reply,
            })
            .await;
        let answer = if accepted { answer.await.ok() } else { None };
        guard.inbox = None;
        match answer {
            Some(Ok(grant)) => Ok(Response::new(self.add_reply(grant))),
            Some(Err(cause)) => Err(refused(&cause)),
            None => Err(Status::unavailable(format!("{NO_ADDRESS}: the daemon is stopping"))),
        }
    }

    async fn del_network(
        &self,
        request: Request<rpc::DelNetworkRequest>,
    ) -> Result<Response<rpc::DelNetworkReply>, Status> {
        let del = DelRequest::try_from(request.into_inner()).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let (reply, answer) = oneshot::channel();
        let accepted = self
            .inbox
            .send(Input::Del {
                req: self.next_request(),
                key: del.key,
                reply,
            })
            .await;
        let answer = if accepted { answer.await.ok() } else { None };
        match answer {
            Some(DelAnswer::Released(grant)) => {
                let mut response = Response::new(rpc::DelNetworkReply {
                    success: true,
                    ip_allocation_metadata: vec![metadata(grant)],
                    pod_vlan_id: 0,
                    network_policy_mode: self.node.network_policy_mode.clone(),
                });
                let headers = response.metadata_mut();
                headers.insert(CLEARED, MetadataValue::from_static("yes"));
                Ok(response)
            }
            Some(DelAnswer::Unknown) => Err(Status::unknown(UNKNOWN_POD)),
            Some(DelAnswer::NotCleared(address)) => Err(Status::unavailable(format!(
                "rules and route of {address} could not be removed; ask again"
            ))),
            None => Err(Status::unavailable("the daemon is stopping")),
        }
    }
}

impl Context {
    fn add_reply(&self, grant: Grant) -> rpc::AddNetworkReply {
        let external = self.node.external_snat == ExternalSnat::Yes;
        let excluded = if external { &[][..] } else { &self.node.exclude_cidrs };
        let cidrs = self.vpc_cidrs.borrow();
        rpc::AddNetworkReply {
            success: true,
            ip_allocation_metadata: vec![metadata(grant)],
            use_external_snat: external,
            vp_cv4_cid_rs: cidrs.iter().chain(excluded).map(ToString::to_string).collect(),
            network_policy_mode: self.node.network_policy_mode.clone(),
            ..Default::default()
        }
    }
}

fn metadata(grant: Grant) -> rpc::IpAllocationMetadata {
    let pod = PodAddress {
        address: grant.address.into(),
        device: grant.device,
        table: grant.table,
    };
    rpc::IpAllocationMetadata::from(&pod)
}

/// A status, so that also a plugin that shows nothing else shows the reason.
fn refused(cause: &Cause) -> Status {
    Status::resource_exhausted(format!("{NO_ADDRESS}: {cause}"))
}

#[tonic::async_trait]
impl ConfigServerBackend for Context {
    async fn get_network_policy_configs(
        &self,
        _request: Request<()>,
    ) -> Result<Response<rpc::NetworkPolicyAgentConfigReply>, Status> {
        Ok(Response::new(rpc::NetworkPolicyAgentConfigReply {
            network_policy_mode: self.node.network_policy_mode.clone(),
            multi_nic_enabled: false,
            node_i_pv4: self.node.address.to_string(),
            node_i_pv6: String::new(),
            instance_id: self.node.instance_id.clone(),
            region: self.node.region.clone(),
        }))
    }
}
