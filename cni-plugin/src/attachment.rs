//! What one ADD or DEL is about: the sandbox, the pod, the names that follow from them, the deadline, the log.

use cni_spec::{CniError, NetConf, NicRequest, PodArgs, Sandbox};
use proto::convert::{AddRequest, Attachment as Nics, DelReason, DelRequest};
use proto::rpc::{AddNetworkRequest, DelNetworkRequest};
use vpc_types::{IpamKey, PodName, dummy_name, host_veth_name};

use crate::clock::Deadline;
use crate::log::Log;
use crate::paths::Paths;

/// One interface of one sandbox in one network, checked.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// Which lease.
    pub(crate) key: IpamKey,
    /// `None` for runtimes without Kubernetes.
    pub(crate) pod: Option<PodName>,
    /// All that the runtime said about the pod.
    pub(crate) args: PodArgs,
    /// The configuration.
    pub(crate) conf: NetConf,
    /// The host's end of the pod's link.
    pub(crate) host_veth: String,
    /// The sandbox's namespace as the runtime spells it; empty if it named none.
    pub(crate) netns: String,
    /// Where things are on this node.
    pub(crate) paths: Paths,
    /// For the whole call.
    pub(crate) deadline: Deadline,
    /// This call's log.
    pub(crate) log: Log,
}

impl Attachment {
    /// Parses `CNI_ARGS` and opens the log.
    pub(crate) fn new(
        verb: &'static str,
        sandbox: &Sandbox,
        conf: NetConf,
        paths: &Paths,
        deadline: Deadline,
    ) -> Result<Self, CniError> {
        let args = PodArgs::parse(&sandbox.args).map_err(|error| CniError::internal(error.to_string()))?;
        let key = IpamKey::new(&conf.name, &sandbox.container_id, &sandbox.if_name)
            .map_err(|error| CniError::internal(error.to_string()))?;
        let pod = args.pod();
        let name = pod.as_ref().map_or_else(|| args.name.clone(), PodName::to_string);
        let context: [(&str, &dyn std::fmt::Display); 4] = [
            ("verb", &verb),
            ("container", &sandbox.container_id),
            ("interface", &sandbox.if_name),
            ("pod", &name),
        ];
        let log = Log::open(&conf.log_target, conf.log_level, paths, &context);
        let netns = sandbox
            .netns
            .as_deref()
            .map(|path| path.display().to_string())
            .unwrap_or_default();
        Ok(Self {
            host_veth: host_veth_name(&conf.veth_prefix, pod.as_ref(), &key),
            key,
            pod,
            args,
            conf,
            netns,
            paths: paths.clone(),
            deadline,
            log,
        })
    }

    /// The entry of the result that carries data to DEL.
    pub(crate) fn dummy(&self) -> String {
        dummy_name(self.pod.as_ref(), &self.key)
    }

    /// What is asked of ipamd on ADD.
    pub(crate) fn add_request(&self) -> AddNetworkRequest {
        let nics = match self.conf.nics {
            NicRequest::Single => Nics::Single,
            NicRequest::PerCard => Nics::MultiNic,
        };
        let request = AddRequest {
            key: self.key.clone(),
            pod: self.pod.clone(),
            netns: self.netns.clone(),
            // Deployed daemons refuse every version but their own, and theirs is empty.
            client_version: String::new(),
            attachment: nics,
        };
        AddNetworkRequest {
            k8s_pod_infra_container_id: self.args.infra_container_id.clone(),
            ..(&request).into()
        }
    }

    /// What is asked of ipamd on DEL, and when an ADD is undone.
    pub(crate) fn del_request(&self, reason: DelReason) -> DelNetworkRequest {
        let uid = (reason == DelReason::PodDeleted && !self.args.uid.is_empty()).then(|| self.args.uid.clone());
        let request = DelRequest {
            key: self.key.clone(),
            pod: self.pod.clone(),
            reason,
            pod_uid: uid,
            client_version: String::new(),
        };
        DelNetworkRequest {
            k8s_pod_infra_container_id: self.args.infra_container_id.clone(),
            ..(&request).into()
        }
    }
}
