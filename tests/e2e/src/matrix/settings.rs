//! The variables that decide where packets leave and from which address, in all combinations.

use std::fmt;

/// `AWS_VPC_K8S_CNI_EXTERNALSNAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Snat {
    /// False: the node translates.
    Node,
    /// True: something outside does.
    External,
}

/// `AWS_VPC_CNI_NODE_PORT_SUPPORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodePorts {
    /// True.
    Supported,
    /// False.
    Unsupported,
}

/// `AWS_VPC_K8S_CNI_RANDOMIZESNAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Random {
    /// `prng`.
    Prng,
    /// `hashrandom`.
    Hash,
    /// `none`: a port that is free is kept.
    None,
}

/// `AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exclude {
    /// Not set.
    Nothing,
    /// The partner's network.
    Partner,
}

/// `AWS_VPC_K8S_CNI_CONNMARK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// Not set: 0x80.
    Usual,
    /// 0x100.
    Other,
}

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) snat: Snat,
    pub(super) node_ports: NodePorts,
    pub(super) random: Random,
    pub(super) exclude: Exclude,
    pub(super) mark: Mark,
}

/// The partner's network, outside the VPC.
pub(super) const PARTNER_NETWORK: &str = "198.51.100.0/24";

impl Settings {
    /// As the chart sets them.
    pub(super) const DEFAULT: Self = Self {
        snat: Snat::Node,
        node_ports: NodePorts::Supported,
        random: Random::Prng,
        exclude: Exclude::Nothing,
        mark: Mark::Usual,
    };

    /// All combinations with this policy; those without node ports last, because packets are lost there for good reason.
    pub(super) fn all(snat: Snat) -> Vec<Self> {
        let mut all = Vec::new();
        for node_ports in [NodePorts::Supported, NodePorts::Unsupported] {
            for random in [Random::Prng, Random::Hash, Random::None] {
                for exclude in [Exclude::Nothing, Exclude::Partner] {
                    all.push(Self {
                        snat,
                        node_ports,
                        random,
                        exclude,
                        mark: Mark::Usual,
                    });
                }
            }
        }
        all
    }

    /// After all of them: another mark, the other policy, and back.
    pub(super) fn more(snat: Snat) -> Vec<Self> {
        let other = match snat {
            Snat::Node => Snat::External,
            Snat::External => Snat::Node,
        };
        let with = |snat, mark| Self {
            snat,
            mark,
            ..Self::DEFAULT
        };
        vec![
            with(snat, Mark::Other),
            with(other, Mark::Usual),
            with(snat, Mark::Usual),
        ]
    }

    /// The daemon's environment.
    pub(super) fn variables(self) -> [(&'static str, &'static str); 5] {
        let truth = |is_true| if is_true { "true" } else { "false" };
        [
            ("AWS_VPC_K8S_CNI_EXTERNALSNAT", truth(self.snat == Snat::External)),
            (
                "AWS_VPC_CNI_NODE_PORT_SUPPORT",
                truth(self.node_ports == NodePorts::Supported),
            ),
            (
                "AWS_VPC_K8S_CNI_RANDOMIZESNAT",
                match self.random {
                    Random::Prng => "prng",
                    Random::Hash => "hashrandom",
                    Random::None => "none",
                },
            ),
            (
                "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS",
                match self.exclude {
                    Exclude::Nothing => "",
                    Exclude::Partner => PARTNER_NETWORK,
                },
            ),
            (
                "AWS_VPC_K8S_CNI_CONNMARK",
                match self.mark {
                    Mark::Usual => "",
                    Mark::Other => "256",
                },
            ),
        ]
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables = self.variables();
        let set = variables.iter().filter(|(_, value)| !value.is_empty());
        let set: Vec<String> = set.map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&set.join(" "))
    }
}
