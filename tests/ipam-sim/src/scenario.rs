//! What one seed decides before the first event: the node, its targets and timers, the workload, and which faults come.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam_core::{Timers, TrunkSlot};
use vpc_sim::model::{AllocationPolicy, Delay, FreshIds, Throttle};
use vpc_types::InstanceLimits;
use vpc_types::limits::PrefixDelegation;

use crate::dice::Dice;
use crate::fault::Fault;
use crate::region::CLUSTER;
use crate::settings::NodeSettings;

/// Everything that is fixed for one run.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) instance_type: &'static str,
    pub(crate) max_enis: u16,
    pub(crate) slots_per_eni: u16,
    /// Whether the type can have prefixes.
    pub(crate) prefixes: bool,
    pub(crate) settings: NodeSettings,
    pub(crate) trunk: TrunkSlot,
    pub(crate) cluster: Option<&'static str>,
    pub(crate) cluster_nodes: Option<u32>,
    /// Whether pods' ENIs go where an operator says (custom networking).
    pub(crate) custom: bool,
    pub(crate) timers: Timers,
    pub(crate) subnet_prefix: u8,
    pub(crate) policy: AllocationPolicy,
    pub(crate) describe_lag: Delay,
    pub(crate) attach: Delay,
    pub(crate) throttle: Throttle,
    pub(crate) fresh_ids: FreshIds,
    pub(crate) max_live: usize,
    pub(crate) max_waiting: usize,
    /// Faults that this run may have, and how likely each is where it could strike, per mille.
    faults: Vec<(Fault, u32)>,
}

const TYPES: &[&str] = &[
    "t2.micro",
    "t3.nano",
    "t3.small",
    "t3.medium",
    "m5.large",
    "m5.large",
    "m5.large",
    "m5.xlarge",
    "c5.4xlarge",
    "m5.24xlarge",
];

impl Scenario {
    pub(crate) fn new(seed: u64, off: &BTreeSet<Fault>) -> Self {
        let of = |field: &str| Dice::of(seed, field);
        let instance_type = of("type").pick(TYPES);
        let limits = InstanceLimits::of(instance_type).expect("the types above are in the table");
        let prefixes = limits.prefix_delegation == PrefixDelegation::Supported;
        let hard = limits.enis_on_default_card();
        let mut dice = of("enis");
        let max_enis = if dice.chance(300) {
            u16::try_from(dice.number(1, u32::from(hard))).expect("bounded by a u16")
        } else {
            hard
        };
        let slots_per_eni = limits.ipv4_per_eni - 1;
        let timers = timers(&mut of("timers"));
        let faults = faults(seed, off);
        let has = |fault: Fault| faults.iter().any(|(known, _)| *known == fault);
        let may = |fault| has(fault) && (prefixes || fault != Fault::PrefixMode);
        let capacity = usize::from(max_enis) * usize::from(slots_per_eni);
        Self {
            instance_type,
            max_enis,
            slots_per_eni,
            prefixes,
            settings: NodeSettings::draw(&mut of("settings"), &may),
            trunk: if has(Fault::TrunkReserved) {
                TrunkSlot::Reserved
            } else {
                TrunkSlot::NotWanted
            },
            cluster: of("cluster").chance(700).then_some(CLUSTER),
            cluster_nodes: of("nodes").pick(&[None, Some(3), Some(300)]),
            custom: has(Fault::CustomNetworking),
            timers,
            subnet_prefix: of("range").pick(&[20, 22, 24, 24, 26, 27]),
            policy: of("policy").pick(&[
                AllocationPolicy::Random,
                AllocationPolicy::Lowest,
                AllocationPolicy::Lowest,
            ]),
            describe_lag: describe_lag(&mut of("lag"), &timers),
            attach: Delay::Uniform {
                min: Duration::from_millis(300),
                max: Duration::from_secs(4),
            },
            throttle: if of("throttle").chance(300) {
                Throttle::Buckets { factor: 0.05 }
            } else {
                Throttle::Off
            },
            fresh_ids: of("fresh").pick(&[FreshIds::Known, FreshIds::UnknownUntilVisible]),
            max_live: of("live").below(60.min(capacity + 8)) + 2,
            max_waiting: of("line").pick(&[4, 100, 100]),
            faults,
        }
    }

    /// How likely the fault is where it could strike, per mille; 0 when this run has none of it.
    pub(crate) fn odds(&self, fault: Fault) -> u32 {
        self.faults
            .iter()
            .find(|(known, _)| *known == fault)
            .map_or(0, |(_, odds)| *odds)
    }

    /// Whether the node may be unusual in this way.
    pub(crate) fn may(&self, fault: Fault) -> bool {
        self.has(fault) && (self.prefixes || fault != Fault::PrefixMode)
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.odds(fault) > 0
    }
}

fn describe_lag(dice: &mut Dice, timers: &Timers) -> Delay {
    let lag = timers.settle.mul_f64(0.9);
    let up_to = |max| Delay::Uniform {
        min: Duration::ZERO,
        max,
    };
    match dice.below(3) {
        0 => Delay::None,
        1 => up_to(lag / 8),
        _ => up_to(lag),
    }
}

/// Which faults come, each with its odds. One run in sixteen is calm.
fn faults(seed: u64, off: &BTreeSet<Fault>) -> Vec<(Fault, u32)> {
    if Dice::of(seed, "calm").chance(60) {
        return Vec::new();
    }
    let drawn = |fault: &Fault| {
        let mut dice = Dice::of(seed, &format!("odds of {}", fault.as_str()));
        let comes = dice.chance(fault.share()) && !off.contains(fault);
        comes.then(|| (*fault, dice.number(5, 120)))
    };
    Fault::ALL.iter().filter_map(drawn).collect()
}

/// The defaults, or shorter ones that keep the relations the design relies on: holds above the plugin's DEL deadline,
/// sweeps above its ADD deadline, settling above the lag of describes.
fn timers(dice: &mut Dice) -> Timers {
    let secs = Duration::from_secs;
    let mut timers = Timers {
        cooldown: secs(dice.pick(&[0, 12, 30, 30, 60])),
        ..Timers::default()
    };
    if dice.chance(400) {
        return timers;
    }
    timers.release_window = secs(dice.pick(&[10, 60, 300]));
    timers.start_grace = secs(dice.pick(&[5, 60, 300]));
    timers.eni_idle = secs(dice.pick(&[10, 60, 600]));
    timers.eni_minimum_life = secs(dice.pick(&[5, 60]));
    timers.refill_delay = dice.pick(&[Duration::ZERO, secs(1), secs(5)]);
    timers.coalesce = dice.pick(&[Duration::ZERO, Duration::from_millis(250)]);
    timers.settle = secs(dice.pick(&[1, 5]));
    timers.confirm_gap = secs(dice.pick(&[5, 30]));
    timers.backoff_max = secs(dice.pick(&[8, 120]));
    // A creation under way at a crash may take effect until the client would have given up.
    timers.half_made_after = secs(dice.pick(&[20, 60]));
    timers
}
