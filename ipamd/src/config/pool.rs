//! What the operator wants of the pool: targets, and switches over what may be changed at EC2.
//!
//! Which targets count depends on whether the instance type can have prefixes, which is known only later: [`PoolConfig`]
//! keeps them as given, and [`PoolConfig::target`] chooses.

use ipam_core::{AllocationMode, Provisioning, Settings, SubnetChoice, WarmTarget};
use vpc_types::limits::PrefixDelegation;

use super::parse::Reader;

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
    /// Targets as given.
    pub targets: Settings,
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
            targets: Settings {
                warm_eni: reader.target("WARM_ENI_TARGET"),
                warm_ip: reader.target("WARM_IP_TARGET"),
                minimum_ip: reader.target("MINIMUM_IP_TARGET"),
                warm_prefix: reader.target("WARM_PREFIX_TARGET"),
            },
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
        let (_, contradictions) = WarmTarget::from_settings(pool.targets, pool.mode);
        for warning in contradictions {
            reader.warn(warning.to_string());
        }
        pool
    }

    /// Prefixes, where they were asked for and the instance type can have them.
    pub fn mode_on(&self, can: PrefixDelegation) -> AllocationMode {
        match can {
            PrefixDelegation::Supported => self.mode,
            PrefixDelegation::Unsupported => AllocationMode::Addresses,
        }
    }

    /// The target that counts.
    pub fn target(&self, mode: AllocationMode) -> WarmTarget {
        WarmTarget::from_settings(self.targets, mode).0
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
