//! What the operator asked for and what the node is. Fixed for the life of a core.

use std::collections::BTreeSet;
use std::time::Duration;

use vpc_types::{InstanceId, MacAddress, SecurityGroupId, SubnetId, VethPrefix};

/// What new addresses come as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocationMode {
    /// Secondary addresses, one slot each.
    Addresses,
    /// `ENABLE_PREFIX_DELEGATION`: /28 prefixes, sixteen addresses for one slot.
    Prefixes,
}

/// How many addresses to keep ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarmTarget {
    /// `WARM_ENI_TARGET`: whole ENIs' worth of free addresses; ENIs are always filled. Not with prefixes.
    Enis(u16),
    /// `WARM_PREFIX_TARGET`: free prefixes. Only with prefixes.
    Prefixes(u16),
    /// `WARM_IP_TARGET` and `MINIMUM_IP_TARGET`: free addresses, and a floor for all addresses.
    Addresses {
        /// Free addresses to keep.
        warm: u32,
        /// Addresses to hold in all.
        minimum: u32,
    },
    /// No variable is set: what recent arrivals suggest.
    Adaptive,
}

/// What the daemon may change at EC2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provisioning {
    /// Everything.
    Full,
    /// `DISABLE_NETWORK_RESOURCE_PROVISIONING`: nothing; EC2 is only asked.
    Disabled,
    /// `ENABLE_IMDS_ONLY_MODE`: EC2 is not even asked; IMDS is the only view.
    ImdsOnly,
}

/// Where new ENIs go while no [`crate::Placement`] says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubnetChoice {
    /// `ENABLE_SUBNET_DISCOVERY`: the subnets of the zone whose tags allow it.
    ByTag,
    /// The primary ENI's subnet.
    PrimaryOnly,
}

/// Whether ENIs that other nodes of the cluster left behind are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeakSweep {
    /// `DISABLE_LEAKED_ENI_CLEANUP`, or nothing may be changed.
    Off,
    /// Now and then, by a share of the nodes.
    On,
}

/// Whether the daemon trusts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartMode {
    /// Yes.
    Normal,
    /// It broke its own rules several times in a row: it serves, and gives nothing back.
    Safe,
}

/// Whether one ENI slot of the instance is kept for a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrunkSlot {
    /// No.
    NotWanted,
    /// `ENABLE_POD_ENI` on a type that can carry branches: until a trunk is attached one slot stays free for it.
    Reserved,
}

/// Which boot of the instance this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootKind {
    /// The first one since its launch, and nothing has been done on it: no ENI can be half-made.
    Launch,
    /// A later one, or one on which a daemon may have been at work.
    Later,
}

/// Durations that shape the pool. The defaults come from a simulation of warm-pool policies; demonstrations and tests
/// shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// `IP_COOLDOWN_PERIOD`: rest of an address between two pods. 30 s in the reference.
    pub cooldown: Duration,
    /// Lower bound of the rest, above the plugin's DEL deadline of 10 s, so that a late plugin never clears a new pod.
    pub minimum_hold: Duration,
    /// Wait after the first starving ADD, so that a burst becomes one call. 250 ms gave the fewest calls per pod.
    pub coalesce: Duration,
    /// The same for prefixes: one brings sixteen, so a longer wait saves no calls.
    pub coalesce_prefixes: Duration,
    /// Wait before a refill when nobody starves. 5 s cost no waits and saved calls.
    pub refill_delay: Duration,
    /// Window whose peak use is kept before addresses go back. 300 s covers five-minute jobs.
    pub release_window: Duration,
    /// No release this long after start: the first pods are still on their way.
    pub start_grace: Duration,
    /// How long an ENI stays without a lease before it is detached.
    pub eni_idle: Duration,
    /// Age below which an ENI is never detached.
    pub eni_minimum_life: Duration,
    /// EC2's views may lag this far behind its answers (tail 5 s).
    pub settle: Duration,
    /// A call that a former run sent may take effect this long after that run's end: the time-out of a call.
    pub call_life: Duration,
    /// What IMDS shows may lag this far behind EC2 (half a minute was seen).
    pub imds_lag: Duration,
    /// Two views that both miss something must lie this far apart before it is forgotten.
    pub confirm_gap: Duration,
    /// Age of a lease below which a missing sandbox proves nothing; longer than the plugin's ADD deadline of 35 s.
    pub sweep_grace: Duration,
    /// Two kernel views that both miss a sandbox must lie this far apart.
    pub sweep_gap: Duration,
    /// Shortest time between two kernel dumps.
    pub kernel_view_gap: Duration,
    /// First wait after a refused call; grows fourfold.
    pub backoff_start: Duration,
    /// Longest wait after refused calls. With two kinds of calls that give addresses 60 s served 1,000 nodes that joined at once in 150 s
    /// instead of 200, for a tenth more throttled calls; 30 s gained no more.
    pub backoff_max: Duration,
    /// Pause of a full subnet while a pod waits.
    pub subnet_retry_starving: Duration,
    /// Pause of a full subnet while only the warm target wants it.
    pub subnet_retry_refill: Duration,
    /// When to look for half-made ENIs of ours after a start without files.
    pub half_made_after: Duration,
    /// Age below which a detached ENI of ours may still be somebody's work in progress.
    pub half_made_age: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            cooldown: secs(30),
            minimum_hold: secs(12),
            coalesce: Duration::from_millis(250),
            coalesce_prefixes: Duration::from_millis(50),
            refill_delay: secs(5),
            release_window: secs(300),
            start_grace: secs(300),
            eni_idle: secs(600),
            eni_minimum_life: secs(60),
            settle: secs(5),
            call_life: secs(10),
            imds_lag: secs(60),
            confirm_gap: secs(30),
            sweep_grace: secs(60),
            sweep_gap: secs(10),
            kernel_view_gap: secs(1),
            backoff_start: secs(1),
            backoff_max: secs(60),
            subnet_retry_starving: secs(10),
            subnet_retry_refill: secs(120),
            half_made_after: secs(60),
            half_made_age: secs(300),
        }
    }
}

impl Timers {
    /// How long an address rests after its pod is gone.
    pub fn hold(&self) -> Duration {
        self.cooldown.max(self.minimum_hold)
    }

    /// How long an address rests that may be on its way to a pod unknown to us: its plugin may still be about to wire it.
    pub(crate) fn hold_unknown(&self) -> Duration {
        self.hold().max(self.sweep_grace)
    }
}

/// The node as IMDS and the limits table describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// This instance.
    pub instance: InstanceId,
    /// MAC of the primary ENI; a view without it is no view.
    pub primary_mac: MacAddress,
    /// Subnet of the primary ENI.
    pub subnet: SubnetId,
    /// Security groups of the primary ENI at start; new ENIs get those that it has at that moment.
    pub groups: BTreeSet<SecurityGroupId>,
    /// ENIs on the default card, `MAX_ENI` applied.
    pub max_enis: u16,
    /// Slots for pods on one ENI: EC2's limit less the ENI's own address.
    pub slots_per_eni: u16,
    /// Whether a trunk is to come.
    pub trunk: TrunkSlot,
    /// Pods that the kubelet admits; the pool never holds more than these could use. `None`: not known.
    pub max_pods: Option<u32>,
    /// Nodes of the cluster, to spread what need not be at once. `None`: not known.
    pub cluster_nodes: Option<u32>,
    /// Which boot this is; counts only where there are no files.
    pub boot: BootKind,
}

/// Everything a core needs to know before its first event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreConfig {
    /// Warm target.
    pub target: WarmTarget,
    /// Addresses or prefixes.
    pub mode: AllocationMode,
    /// What may be changed at EC2.
    pub provisioning: Provisioning,
    /// Where new ENIs go.
    pub subnets: SubnetChoice,
    /// Whether others' left-over ENIs are looked for.
    pub leak_sweep: LeakSweep,
    /// Whether this run trusts itself.
    pub start: StartMode,
    /// `CLUSTER_NAME`, if known: decides which subnet tags and which left-over ENIs are ours.
    pub cluster: Option<String>,
    /// Durations.
    pub timers: Timers,
    /// The node.
    pub node: NodeFacts,
    /// Beginning of host veth names.
    pub veth_prefix: VethPrefix,
    /// Longest line of waiting ADDs; more are refused at once.
    pub max_waiting: usize,
    /// The kernel's boot id: times in the files mean something only within one boot.
    pub boot_id: String,
    /// Random number of this start: makes ClientTokens unique and spreads retries of many nodes.
    pub nonce: u64,
}
