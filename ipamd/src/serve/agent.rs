//! `vpc_cni.agent.v1.Agent`: CHECK, STATUS, GC and the operator's commands.

use std::collections::BTreeSet;

use ipam_core::{Eni, EniRole, Lease, LeaseState, StartMode, Status as CoreStatus, SubnetAccess, SubnetStatus};
use proto::agent;
use proto::agent::agent_server::Agent;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};
use vpc_types::{Allocation, IpamKey};

use super::{Context, account};
use crate::clock;
use crate::owner::{DelAnswer, Input};

/// How many times as long as an ADD may wait in the daemon a lease counts as one whose ADD may be under way: the plugin has a few
/// seconds more, and the runtime needs some for what it does first.
const YOUNG: u32 = 2;

#[tonic::async_trait]
impl Agent for Context {
    async fn get_status(
        &self,
        _request: Request<agent::GetStatusRequest>,
    ) -> Result<Response<agent::GetStatusReply>, Status> {
        let status = self.status().await?;
        let count = |state| status.pool.leases().filter(|lease| lease.state == state).count();
        let ec2_calls = self
            .calls
            .counts()
            .into_iter()
            .map(|(action, n)| (action.to_owned(), n))
            .collect();
        Ok(Response::new(agent::GetStatusReply {
            ready: status.cause.is_none(),
            cause: status
                .cause
                .as_ref()
                .map(|cause| cause.code.as_str().to_owned())
                .unwrap_or_default(),
            detail: status.cause.as_ref().map(ToString::to_string).unwrap_or_default(),
            pool: Some(agent::Pool {
                total: status.supply.total,
                assigned: status.supply.assigned,
                cooling: status.supply.cooling,
                free: status.supply.free,
                waiting: small(status.waiting),
                enis_max: u32::from(status.max_enis),
                orphans: small(count(LeaseState::Orphan)),
                prefixes: small(status.pool.enis().map(prefixes).sum()),
            }),
            enis: eni_rows(&status),
            ec2_calls,
            mode: self.node.pool.mode.to_owned(),
            target: self.node.pool.target.clone(),
            provisioning: self.node.pool.provisioning.to_owned(),
            safe_mode: status.start == StartMode::Safe,
            warnings: self.node.pool.warnings.clone(),
            subnets: status.subnets.iter().map(subnet_row).collect(),
            data_plane: self.data_plane.problem(),
            repairs: self
                .repairs
                .counts()
                .into_iter()
                .map(|(kind, n)| (kind.to_owned(), n))
                .collect(),
        }))
    }

    async fn list_leases(
        &self,
        _request: Request<agent::ListLeasesRequest>,
    ) -> Result<Response<agent::ListLeasesReply>, Status> {
        let status = self.status().await?;
        let mut leases: Vec<&Lease> = status.pool.leases().collect();
        leases.sort_by_key(|lease| lease.address);
        let leases = leases.into_iter().map(|lease| lease_row(lease, &status)).collect();
        Ok(Response::new(agent::ListLeasesReply { leases }))
    }

    async fn check_attachment(
        &self,
        request: Request<agent::CheckAttachmentRequest>,
    ) -> Result<Response<agent::CheckAttachmentReply>, Status> {
        let key = key(request.into_inner().attachment.as_ref())?;
        let status = self.status().await?;
        let lease = status.pool.lease(&key).map(|lease| lease_row(lease, &status));
        let lease = lease.ok_or_else(|| Status::not_found(format!("{key} holds no lease")))?;
        Ok(Response::new(agent::CheckAttachmentReply { lease: Some(lease) }))
    }

    async fn collect_garbage(
        &self,
        request: Request<agent::CollectGarbageRequest>,
    ) -> Result<Response<agent::CollectGarbageReply>, Status> {
        let request = request.into_inner();
        if request.network_name.is_empty() {
            return Err(Status::invalid_argument("field network_name is empty"));
        }
        let valid = request
            .valid
            .iter()
            .map(|a| key(Some(a)))
            .collect::<Result<BTreeSet<_>, _>>()?;
        let status = self.status().await?;
        let (young, garbage): (Vec<&Lease>, Vec<&Lease>) = status
            .pool
            .leases()
            .filter(|lease| lease.key.network_name() == request.network_name && !valid.contains(&lease.key))
            .partition(|lease| self.may_be_under_way(lease));
        tracing::info!(valid = valid.len(), garbage = garbage.len(), young = young.len(), "GC");
        let (ended, left) = self.end_all(&garbage).await?;
        let addresses = |leases: &[&Lease]| leases.iter().map(|lease| lease.address.to_string()).collect();
        Ok(Response::new(agent::CollectGarbageReply {
            released: addresses(&ended),
            young: addresses(&young),
            ended: ended.into_iter().map(|lease| lease_row(lease, &status)).collect(),
            left: addresses(&left),
            network_policy_mode: self.node.network_policy_mode.clone(),
        }))
    }

    async fn get_account(
        &self,
        _request: Request<agent::GetAccountRequest>,
    ) -> Result<Response<agent::GetAccountReply>, Status> {
        let status = self.status().await?;
        Ok(Response::new(account::account(self, &status)))
    }
}

impl Context {
    async fn status(&self) -> Result<CoreStatus, Status> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Input::Status(reply)).await;
        answer.await.map_err(|_| Status::unavailable("the daemon is stopping"))
    }

    /// The runtime made its list before it asked, and its ADDs in flight are not in it: for such a lease to be garbage, all of
    /// its ADD and the making of the list must lie behind us.
    fn may_be_under_way(&self, lease: &Lease) -> bool {
        clock::now().boot.since(lease.since) < self.add_deadline * YOUNG
    }

    /// Ends leases as DELs would, all at once: they share writes and looks at the kernel. Those whose address now rests, and
    /// those whose rules and route stayed.
    async fn end_all<'a>(&self, leases: &[&'a Lease]) -> Result<(Vec<&'a Lease>, Vec<&'a Lease>), Status> {
        let mut answers = Vec::new();
        for lease in leases {
            let (reply, answer) = oneshot::channel();
            self.inbox
                .send(Input::End {
                    req: self.next_request(),
                    key: lease.key.clone(),
                    granted_at: lease.granted_at,
                    reply,
                })
                .await;
            answers.push((*lease, answer));
        }
        let (mut ended, mut left) = (Vec::new(), Vec::new());
        for (lease, answer) in answers {
            match answer
                .await
                .map_err(|_| Status::unavailable("the daemon is stopping"))?
            {
                DelAnswer::Released(_) => ended.push(lease),
                DelAnswer::NotCleared(_) => left.push(lease),
                // Somebody else's DEL was faster.
                DelAnswer::Unknown => {}
            }
        }
        Ok((ended, left))
    }
}

fn key(attachment: Option<&agent::Attachment>) -> Result<IpamKey, Status> {
    let attachment = attachment.ok_or_else(|| Status::invalid_argument("field attachment is missing"))?;
    IpamKey::new(&attachment.network_name, &attachment.container_id, &attachment.if_name)
        .map_err(|error| Status::invalid_argument(format!("field {error}")))
}

/// In order of their slots, as people look for them.
fn eni_rows(status: &CoreStatus) -> Vec<agent::Eni> {
    let mut enis: Vec<&Eni> = status
        .pool
        .enis()
        .filter(|eni| eni.role != EniRole::Unmanaged)
        .collect();
    enis.sort_by_key(|eni| (eni.card, eni.device));
    enis.into_iter().map(eni_row).collect()
}

fn eni_row(eni: &Eni) -> agent::Eni {
    agent::Eni {
        id: eni.id.to_string(),
        mac: eni.mac.to_string(),
        device_number: u32::from(eni.device.0),
        route_table: eni.table().0,
        primary_address: eni.primary_address.to_string(),
        total: small(eni.addresses().count()),
        assigned: small(eni.leased()),
        state: eni.phase.as_str().to_owned(),
        role: eni.role.as_str().to_owned(),
        subnet: eni.subnet.to_string(),
        prefixes: small(prefixes(eni)),
        security_groups: eni.groups.iter().map(ToString::to_string).collect(),
    }
}

fn subnet_row(subnet: &SubnetStatus) -> agent::Subnet {
    agent::Subnet {
        id: subnet.id.to_string(),
        free: subnet.free,
        access: match subnet.access {
            SubnetAccess::ForPods => "for-pods",
            SubnetAccess::Closed => "closed",
        }
        .to_owned(),
    }
}

fn prefixes(eni: &Eni) -> usize {
    let is_prefix = |allocation: &Allocation| matches!(allocation, Allocation::Prefix(_));
    eni.allocations().filter(is_prefix).count()
}

pub(super) fn lease_row(lease: &Lease, status: &CoreStatus) -> agent::Lease {
    let home = status.pool.enis().find(|eni| eni.address(lease.address).is_some());
    agent::Lease {
        attachment: Some(agent::Attachment {
            network_name: lease.key.network_name().to_owned(),
            container_id: lease.key.container_id().to_owned(),
            if_name: lease.key.if_name().to_owned(),
        }),
        pod_namespace: lease
            .pod
            .as_ref()
            .map(|pod| pod.namespace.to_string())
            .unwrap_or_default(),
        pod_name: lease.pod.as_ref().map(|pod| pod.name.to_string()).unwrap_or_default(),
        address: lease.address.to_string(),
        eni_id: home.map(|eni| eni.id.to_string()).unwrap_or_default(),
        device_number: u32::from(lease.device.0),
        route_table: lease.table.0,
        state: lease.state.as_str().to_owned(),
        granted_at: lease.granted_at.as_nanos(),
    }
}

pub(super) fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
