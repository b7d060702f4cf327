//! What one seed decides before the first event: the node, its targets and timers, the workload, and which faults come.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam_core::{Timers, WarmTarget};
use vpc_sim::model::{AllocationPolicy, Delay, FreshIds, Throttle};
use vpc_types::InstanceLimits;

use crate::dice::Dice;
use crate::fault::Fault;

/// Everything that is fixed for one run.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) instance_type: &'static str,
    pub(crate) max_enis: u16,
    pub(crate) slots_per_eni: u16,
    pub(crate) target: WarmTarget,
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
        let mut dice = Dice::of(seed, "scenario");
        let instance_type = dice.pick(TYPES);
        let limits = InstanceLimits::of(instance_type).expect("the types above are in the table");
        let hard = limits.enis_on_default_card();
        let max_enis = if dice.chance(300) {
            u16::try_from(dice.number(1, u32::from(hard))).expect("bounded by a u16")
        } else {
            hard
        };
        let slots_per_eni = limits.ipv4_per_eni - 1;
        let target = if dice.chance(400) {
            WarmTarget::Enis(u16::try_from(dice.number(0, 2)).expect("at most 2"))
        } else {
            let (warm, minimum) = (dice.number(0, 16), dice.number(0, 30));
            WarmTarget::Addresses { warm, minimum }
        };
        let timers = timers(&mut dice);
        let capacity = usize::from(max_enis) * usize::from(slots_per_eni);
        let lag = timers.settle.mul_f64(0.9);
        let describe_lag = match dice.below(3) {
            0 => Delay::None,
            1 => Delay::Uniform {
                min: Duration::ZERO,
                max: lag / 8,
            },
            _ => Delay::Uniform {
                min: Duration::ZERO,
                max: lag,
            },
        };
        let throttle = if dice.chance(300) {
            Throttle::Buckets { factor: 0.05 }
        } else {
            Throttle::Off
        };
        let calm = dice.chance(60);
        let faults = Fault::ALL
            .iter()
            .map(|fault| {
                (
                    *fault,
                    dice.chance(if *fault == Fault::ForeignEdit { 250 } else { 550 }),
                    dice.number(5, 120),
                )
            })
            .filter(|(fault, on, _)| *on && !calm && !off.contains(fault))
            .map(|(fault, _, per_mille)| (fault, per_mille))
            .collect();
        Self {
            instance_type,
            max_enis,
            slots_per_eni,
            target,
            timers,
            subnet_prefix: dice.pick(&[20, 22, 24, 24, 26, 27]),
            policy: dice.pick(&[AllocationPolicy::Random, AllocationPolicy::Lowest]),
            describe_lag,
            attach: Delay::Uniform {
                min: Duration::from_millis(300),
                max: Duration::from_secs(4),
            },
            throttle,
            fresh_ids: dice.pick(&[FreshIds::Known, FreshIds::UnknownUntilVisible]),
            max_live: dice.below(60.min(capacity + 8)) + 2,
            max_waiting: dice.pick(&[4, 100, 100]),
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

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.odds(fault) > 0
    }
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
