//! What the operator wants of the pool: targets, and switches over what may be changed at EC2.
//!
//! Which targets count depends on whether the instance type can have prefixes, which is known only later: [`PoolConfig`]
//! keeps them as given, and [`PoolConfig::target`] chooses.

use ipam_core::{AllocationMode, Provisioning, SubnetChoice, WarmTarget};
use vpc_types::limits::PrefixDelegation;

use super::parse::Reader;

/// The chart sets these two whether they count or not, so their presence alone contradicts nothing.
const CHART_DEFAULT: Option<u32> = Some(1);

/// Who decides about ENIs that carry neither our tag nor `no_manage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UntaggedEnis {
    /// They are ours to fill and to remove.
    Managed,
    /// They are somebody else's.
    LeftAlone,
}

/// Whether left-over ENIs of other nodes are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeakedEnis {
    /// Yes, where the cluster is known and EC2 may be changed.
    Swept,
    /// No.
    Left,
}

/// Whether a cordon stops growth and give-back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CordonUse {
    /// Yes.
    Heeded,
    /// `AWS_MANAGE_ENIS_NON_SCHEDULABLE`.
    Ignored,
}

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// `ENABLE_PREFIX_DELEGATION`.
    pub mode: AllocationMode,
    /// `WARM_ENI_TARGET`.
    pub enis: Option<u32>,
    /// `WARM_PREFIX_TARGET`.
    pub prefixes: Option<u32>,
    /// `WARM_IP_TARGET`.
    pub warm: Option<u32>,
    /// `MINIMUM_IP_TARGET`.
    pub minimum: Option<u32>,
    /// What may be changed at EC2.
    pub provisioning: Provisioning,
    /// Where new ENIs go.
    pub subnets: SubnetChoice,
    /// `MANAGE_UNTAGGED_ENI`.
    pub untagged: UntaggedEnis,
    /// `DISABLE_LEAKED_ENI_CLEANUP`.
    pub leaked: LeakedEnis,
    /// `AWS_MANAGE_ENIS_NON_SCHEDULABLE`.
    pub cordon: CordonUse,
}

impl PoolConfig {
    pub(super) fn parse(reader: &mut Reader<'_>) -> Self {
        let pool = Self {
            mode: either(
                reader.boolean("ENABLE_PREFIX_DELEGATION"),
                AllocationMode::Prefixes,
                AllocationMode::Addresses,
            ),
            enis: reader.target("WARM_ENI_TARGET"),
            prefixes: reader.target("WARM_PREFIX_TARGET"),
            warm: reader.target("WARM_IP_TARGET"),
            minimum: reader.target("MINIMUM_IP_TARGET"),
            provisioning: provisioning(reader),
            subnets: either(
                reader.boolean("ENABLE_SUBNET_DISCOVERY"),
                SubnetChoice::ByTag,
                SubnetChoice::PrimaryOnly,
            ),
            untagged: either(
                reader.boolean("MANAGE_UNTAGGED_ENI"),
                UntaggedEnis::Managed,
                UntaggedEnis::LeftAlone,
            ),
            leaked: either(
                reader.boolean("DISABLE_LEAKED_ENI_CLEANUP"),
                LeakedEnis::Left,
                LeakedEnis::Swept,
            ),
            cordon: either(
                reader.boolean("AWS_MANAGE_ENIS_NON_SCHEDULABLE"),
                CordonUse::Ignored,
                CordonUse::Heeded,
            ),
        };
        pool.contradictions().into_iter().for_each(|text| reader.warn(text));
        pool
    }

    /// Targets that have no effect beside others, in the mode that was asked for.
    fn contradictions(&self) -> Vec<String> {
        let by_addresses = self.warm.unwrap_or(0) > 0 || self.minimum.unwrap_or(0) > 0;
        let own = |given: Option<u32>| given.is_some() && given != CHART_DEFAULT;
        let mut found = Vec::new();
        for (name, given, mode, other) in [
            ("WARM_ENI_TARGET", self.enis, AllocationMode::Addresses, "true"),
            ("WARM_PREFIX_TARGET", self.prefixes, AllocationMode::Prefixes, "false"),
        ] {
            if !own(given) {
                continue;
            }
            let n = given.unwrap_or(0);
            if by_addresses {
                found.push(format!(
                    "{name}={n} has no effect: WARM_IP_TARGET or MINIMUM_IP_TARGET is set"
                ));
            } else if self.mode != mode {
                found.push(format!("{name}={n} has no effect: ENABLE_PREFIX_DELEGATION is {other}"));
            }
        }
        if self.warm.unwrap_or(0) == 0 && self.minimum.unwrap_or(0) > 0 {
            found.push(
                "MINIMUM_IP_TARGET without WARM_IP_TARGET: above the minimum no address is kept ready for a pod"
                    .to_owned(),
            );
        }
        found
    }

    /// Prefixes, where they were asked for and the instance type can have them.
    pub fn mode_on(&self, can: PrefixDelegation) -> AllocationMode {
        match can {
            PrefixDelegation::Supported => self.mode,
            PrefixDelegation::Unsupported => AllocationMode::Addresses,
        }
    }

    /// The target that counts. Either of the two address targets replaces the others.
    pub fn target(&self, mode: AllocationMode) -> WarmTarget {
        let small = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let (warm, minimum) = (self.warm.unwrap_or(0), self.minimum.unwrap_or(0));
        let whole = match mode {
            AllocationMode::Addresses => self.enis.map(|n| WarmTarget::Enis(small(n))),
            AllocationMode::Prefixes => self.prefixes.map(|n| WarmTarget::Prefixes(small(n))),
        };
        match whole {
            _ if warm > 0 || minimum > 0 => WarmTarget::Addresses { warm, minimum },
            Some(whole) => whole,
            None => WarmTarget::Adaptive,
        }
    }
}

fn provisioning(reader: &mut Reader<'_>) -> Provisioning {
    let imds_only = reader.boolean("ENABLE_IMDS_ONLY_MODE");
    let disabled = reader.boolean("DISABLE_NETWORK_RESOURCE_PROVISIONING");
    match (imds_only, disabled) {
        (true, _) => Provisioning::ImdsOnly,
        (false, true) => Provisioning::Disabled,
        (false, false) => Provisioning::Full,
    }
}

fn either<T>(condition: bool, yes: T, no: T) -> T {
    if condition { yes } else { no }
}
