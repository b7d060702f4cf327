//! What an operator sets on the node. Fixed for one life of the daemon, and perhaps different in the next.

use ipam_core::{AllocationMode, LeakSweep, Provisioning, StartMode, SubnetChoice, WarmTarget};

use crate::dice::Dice;
use crate::fault::Fault;
use crate::world::World;

/// The variables of the daemon, as far as the core sees them.
#[derive(Debug, Clone)]
pub(crate) struct NodeSettings {
    pub(crate) target: WarmTarget,
    pub(crate) mode: AllocationMode,
    pub(crate) provisioning: Provisioning,
    pub(crate) subnets: SubnetChoice,
    pub(crate) leak_sweep: LeakSweep,
    pub(crate) start: StartMode,
    pub(crate) max_pods: Option<u32>,
}

impl NodeSettings {
    /// Only what `may` allows is unusual.
    pub(crate) fn draw(dice: &mut Dice, may: &dyn Fn(Fault) -> bool) -> Self {
        let mode = if dice.chance(700) && may(Fault::PrefixMode) {
            AllocationMode::Prefixes
        } else {
            AllocationMode::Addresses
        };
        Self {
            target: target(dice, mode),
            mode,
            provisioning: match dice.below(3) {
                0 if may(Fault::OtherProvisioning) => Provisioning::Disabled,
                1 if may(Fault::OtherProvisioning) => Provisioning::ImdsOnly,
                _ => Provisioning::Full,
            },
            subnets: dice.pick(&[SubnetChoice::ByTag, SubnetChoice::ByTag, SubnetChoice::PrimaryOnly]),
            leak_sweep: if may(Fault::LeakSweep) {
                LeakSweep::On
            } else {
                LeakSweep::Off
            },
            start: StartMode::Normal,
            max_pods: dice
                .pick(&[Some(110), Some(40), Some(8)])
                .filter(|_| may(Fault::MaxPods)),
        }
    }
}

fn target(dice: &mut Dice, mode: AllocationMode) -> WarmTarget {
    let small = |dice: &mut Dice, most| u16::try_from(dice.number(0, most)).expect("a small number");
    match dice.below(10) {
        0..=2 => WarmTarget::Enis(small(dice, 2)),
        3 | 4 if mode == AllocationMode::Prefixes => WarmTarget::Prefixes(small(dice, 3)),
        5 | 6 => WarmTarget::Adaptive,
        _ => WarmTarget::Addresses {
            warm: dice.number(0, 16),
            minimum: dice.number(0, 30),
        },
    }
}

impl World {
    /// A daemon in safe mode is started again, which ends it.
    pub(crate) fn leave_safe_mode(&mut self) {
        if self.settings.start == StartMode::Safe {
            self.crash();
        }
    }

    /// What may have changed by the time that the daemon starts again.
    pub(crate) fn change_settings(&mut self) {
        self.settings.start = StartMode::Normal;
        if self.strikes(Fault::Reconfigured) {
            let scenario = &self.scenario;
            self.settings = NodeSettings::draw(&mut self.luck, &|fault| scenario.may(fault));
            let settings = self.settings.clone();
            self.note(|| format!("{settings:?}"));
        }
        if self.strikes(Fault::SafeStart) {
            self.settings.start = StartMode::Safe;
        }
    }
}
