//! When the reference wants more addresses or fewer, and how many: its arithmetic on a node's sums.

use super::super::plan::{Mode, Targets};

/// Addresses of a prefix.
const BLOCK: u32 = 16;

/// The reference's targets after its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Formulas {
    pub(crate) mode: Mode,
    warm_eni: u32,
    warm_ip: u32,
    minimum_ip: u32,
    warm_prefix: u32,
    /// Slots of an ENI for pods: addresses or prefixes.
    pub(crate) slots: u32,
    max_pods: u32,
}

/// Sums over a node's ENIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sums {
    pub(crate) total: u32,
    pub(crate) assigned: u32,
    pub(crate) prefixes: u32,
    pub(crate) free_prefixes: u32,
    /// Whether a secondary ENI has no pod.
    pub(crate) idle_eni: bool,
}

impl Sums {
    /// Resting addresses count as available.
    fn available(self) -> u32 {
        self.total - self.assigned
    }
}

/// What an ENI would leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Others {
    pub(crate) total: u32,
    pub(crate) free: u32,
    pub(crate) free_prefixes: u32,
}

impl Formulas {
    pub(crate) fn new(targets: Targets, mode: Mode, slots: u32, max_pods: u32) -> Self {
        Self {
            mode,
            warm_eni: targets.warm_eni.unwrap_or(1),
            warm_ip: targets.warm_ip.unwrap_or(0),
            minimum_ip: targets.minimum_ip.unwrap_or(0),
            warm_prefix: targets.warm_prefix.unwrap_or(0),
            slots,
            max_pods,
        }
    }

    /// Whether `WARM_IP_TARGET` or `MINIMUM_IP_TARGET` rules.
    pub(crate) fn has_targets(&self) -> bool {
        self.warm_ip != 0 || self.minimum_ip != 0
    }

    /// Addresses on one full ENI.
    pub(crate) fn per_eni(&self) -> u32 {
        match self.mode {
            Mode::Addresses => self.slots,
            Mode::Prefixes => self.slots * BLOCK,
        }
    }

    pub(crate) fn is_low(&self, sums: Sums) -> bool {
        if sums.total >= self.max_pods {
            return false;
        }
        if self.has_targets() {
            return self.short(sums) > 0;
        }
        let (warm, unit) = match self.mode {
            Mode::Addresses => (self.warm_eni, self.slots),
            Mode::Prefixes => (self.warm_prefix, BLOCK),
        };
        sums.available() < warm * unit || (warm == 0 && sums.available() == 0)
    }

    /// Addresses or prefixes below the targets.
    pub(crate) fn short(&self, sums: Sums) -> u32 {
        let warm = self.warm_ip.saturating_sub(sums.available());
        let short = warm.max(self.minimum_ip.saturating_sub(sums.total));
        match self.mode {
            Mode::Addresses => short,
            Mode::Prefixes => short.div_ceil(BLOCK),
        }
    }

    /// Addresses or prefixes above the targets.
    pub(crate) fn over(&self, sums: Sums) -> u32 {
        match self.mode {
            Mode::Addresses => {
                let warm = sums.available().saturating_sub(self.warm_ip);
                warm.min(sums.total.saturating_sub(self.minimum_ip))
            }
            Mode::Prefixes => {
                let used = (sums.assigned + self.warm_ip).div_ceil(BLOCK);
                let warm = sums.free_prefixes.min(sums.prefixes.saturating_sub(used));
                warm.min(sums.prefixes.saturating_sub(self.minimum_ip.div_ceil(BLOCK)))
            }
        }
    }

    /// Slots to ask for on an ENI that has some.
    pub(crate) fn fill(&self, sums: Sums) -> u32 {
        match self.mode {
            Mode::Addresses if self.has_targets() => self.short(sums),
            Mode::Addresses => self.slots,
            Mode::Prefixes if self.has_targets() => self.short(sums).max(1),
            Mode::Prefixes => self.warm_prefix.saturating_sub(sums.free_prefixes).max(1),
        }
    }

    /// Slots to give back; 0 when the pool is not too high.
    pub(crate) fn give_back(&self, sums: Sums) -> u32 {
        match self.mode {
            _ if self.has_targets() => self.over(sums),
            Mode::Prefixes => sums.free_prefixes.saturating_sub(self.warm_prefix),
            Mode::Addresses => 0,
        }
    }

    /// Whether an ENI may be one too many.
    pub(crate) fn wants_fewer_enis(&self, sums: Sums) -> bool {
        match self.mode {
            _ if self.has_targets() => true,
            Mode::Addresses => sums.available() >= (self.warm_eni + 1) * self.slots,
            Mode::Prefixes => sums.available() >= (self.warm_prefix + 1) * self.per_eni() || sums.idle_eni,
        }
    }

    /// Whether the targets hold without an ENI that no pod uses.
    pub(crate) fn can_spare(&self, others: Others) -> bool {
        let round = |target: u32| match self.mode {
            Mode::Addresses => target,
            Mode::Prefixes => target.div_ceil(BLOCK) * BLOCK,
        };
        let prefixes = match self.mode {
            Mode::Prefixes => self.warm_prefix,
            Mode::Addresses => 0,
        };
        (self.warm_ip == 0 || others.free >= round(self.warm_ip))
            && (self.minimum_ip == 0 || others.total >= round(self.minimum_ip))
            && (prefixes == 0 || others.free_prefixes >= prefixes)
    }
}
