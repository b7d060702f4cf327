//! What a kubelet and its runtime do after an ADD or DEL whose process died: never the same, always ending in a DEL.

use anyhow::{Context, Result, ensure};
use vpc_fabric::Node;
use vpc_fabric::node::PodNetns;

use crate::runtime::{Identity, LateDel, NetnsPath, Pod, Runtime, netns_name, pod_of};

/// What follows a killed ADD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterAdd {
    /// DEL, then the namespace goes.
    Del,
    /// The namespace goes, then DEL with its path.
    LateDel,
    /// The namespace goes, then DEL without a path.
    LateDelWithoutPath,
    /// The same ADD again, then DEL with its result if it gave one.
    SameAgain,
    /// ADD of a new sandbox of the same pod, then the old one's DEL, then the new one's.
    NewSandbox,
}

impl AfterAdd {
    /// All variants.
    pub(super) const ALL: [Self; 5] = [
        Self::Del,
        Self::LateDel,
        Self::LateDelWithoutPath,
        Self::SameAgain,
        Self::NewSandbox,
    ];
}

/// What follows a killed DEL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterDel {
    /// DEL again, then the namespace goes.
    Again,
    /// The namespace goes, then DEL with the result.
    Late,
    /// The namespace goes, then DEL without result and path.
    LateWithNothing,
    /// ADD of a new sandbox of the same pod, then the old one's DEL, then the new one's.
    NewSandbox,
}

impl AfterDel {
    /// All variants.
    pub(super) const ALL: [Self; 4] = [Self::Again, Self::Late, Self::LateWithNothing, Self::NewSandbox];
}

/// A sandbox whose ADD or DEL died.
struct Sandbox<'a> {
    runtime: &'a Runtime,
    node: &'a Node,
    identity: Identity,
    netns: PodNetns,
}

impl Sandbox<'_> {
    /// The namespace ends when its name has gone, and our handle.
    fn lose(self, late: &LateDel<'_>) -> Result<()> {
        self.node.delete_pod_netns(&netns_name(&self.identity))?;
        drop(self.netns);
        self.runtime.del_late(self.node, &self.identity, late)?;
        Ok(())
    }

    fn del(self, late: &LateDel<'_>) -> Result<()> {
        self.runtime.del_late(self.node, &self.identity, late)?;
        self.node.delete_pod_netns(&netns_name(&self.identity))?;
        Ok(())
    }

    /// The pod's next sandbox is there before this one's DEL.
    fn replace(self, late: &LateDel<'_>) -> Result<()> {
        let (runtime, node) = (self.runtime, self.node);
        let new = new_sandbox(runtime, node, &self.identity)?;
        self.del(late)?;
        remove_live(runtime, node, &new)
    }
}

/// After an ADD that died. Afterwards nothing of the pod may be left.
pub(super) fn after_add(
    runtime: &Runtime,
    node: &Node,
    identity: Identity,
    netns: PodNetns,
    what: AfterAdd,
) -> Result<()> {
    let nothing = LateDel::default();
    let without_path = LateDel {
        netns: NetnsPath::Empty,
        ..nothing
    };
    let sandbox = Sandbox {
        runtime,
        node,
        identity,
        netns,
    };
    match what {
        AfterAdd::Del => sandbox.del(&nothing),
        AfterAdd::LateDel => sandbox.lose(&nothing),
        AfterAdd::LateDelWithoutPath => sandbox.lose(&without_path),
        AfterAdd::SameAgain => {
            let again = runtime.add_in(node, &sandbox.identity, &sandbox.netns)?;
            // An ADD that had wired the pod before it died makes this one an error, which must be a proper one.
            let result = if again.code == Some(0) {
                Some(again.json()?)
            } else {
                again.error().context("the repeated ADD failed without an error")?;
                None
            };
            sandbox.del(&LateDel {
                result: result.as_ref(),
                ..nothing
            })
        }
        AfterAdd::NewSandbox => sandbox.replace(&nothing),
    }
}

/// After a DEL that died. Afterwards nothing of the pod may be left.
pub(super) fn after_del(runtime: &Runtime, node: &Node, pod: Pod, what: AfterDel) -> Result<()> {
    let with_result = LateDel {
        result: Some(&pod.result),
        netns: NetnsPath::Named,
    };
    let with_nothing = LateDel {
        result: None,
        netns: NetnsPath::Empty,
    };
    let sandbox = Sandbox {
        runtime,
        node,
        identity: pod.identity,
        netns: pod.netns,
    };
    match what {
        AfterDel::Again => sandbox.del(&with_result),
        AfterDel::Late => sandbox.lose(&with_result),
        AfterDel::LateWithNothing => sandbox.lose(&with_nothing),
        AfterDel::NewSandbox => sandbox.replace(&with_result),
    }
}

/// Another sandbox of the same pod.
fn new_sandbox(runtime: &Runtime, node: &Node, old: &Identity) -> Result<Pod> {
    let identity = Identity {
        pod: old.pod.clone(),
        ..Identity::container()
    };
    let netns = node.add_pod_netns(&netns_name(&identity))?;
    let added = runtime.add_in(node, &identity, &netns)?;
    pod_of(&identity, node, netns, &added).context("the new sandbox")
}

/// Removes a pod that must have lived until now.
fn remove_live(runtime: &Runtime, node: &Node, pod: &Pod) -> Result<()> {
    let state = crate::kernel::KernelState::of(node)?;
    let rule = format!("rule 512: from all to {}/32 lookup 254", pod.address);
    let route = format!("Inet({})/32 dev", pod.address);
    ensure!(
        state.rules.contains(&rule) && state.routes.iter().any(|line| line.contains(&route)),
        "the old sandbox's DEL took rules or routes of the new one's {}",
        pod.address
    );
    runtime.remove(node, pod)?;
    Ok(())
}
