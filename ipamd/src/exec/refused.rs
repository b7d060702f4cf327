//! Node rules that the kernel refused, and when to try them again: soon, then ever more rarely. Time comes in as a value.

use std::time::{Duration, Instant};

use datapath::NodeConfig;

/// Most refusals are over within moments: somebody loads a ruleset, or a device is renamed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The rules are compared that often anyway.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is still to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// What was wanted last.
    pub(super) config: NodeConfig,
    /// When to try again.
    pub(super) again_at: Instant,
    /// How long that is.
    pub(super) pause: Duration,
}

impl Refused {
    /// One more refusal, after `before`.
    pub(super) fn after(before: Option<&Self>, config: NodeConfig, now: Instant) -> Self {
        let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        Self {
            config,
            again_at: now + pause,
            pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use datapath::{NodePorts, SnatPolicy};
    use vpc_types::{FwMark, MacAddress, VethPrefix};

    use super::*;

    #[test]
    fn refused_rules_are_tried_again_a_second_later_and_then_ever_more_rarely() {
        let config = |cidrs: &[&str]| NodeConfig {
            primary_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            primary_address: [10, 0, 1, 10].into(),
            mtu: 9001,
            snat: SnatPolicy::External,
            node_ports: NodePorts::Supported,
            vpc_cidrs: cidrs.iter().map(|text| text.parse().unwrap()).collect(),
            exclude_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            mark: FwMark::DEFAULT,
            veth_prefix: VethPrefix::default(),
        };
        let mut now = Instant::now();
        let mut refused = Refused::after(None, config(&["10.0.0.0/16"]), now);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            pauses.push((refused.again_at - now).as_secs());
            now = refused.again_at;
            refused = Refused::after(Some(&refused), config(&["10.0.0.0/16", "10.1.0.0/16"]), now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(refused.config.vpc_cidrs.len(), 2, "the newest wish counts");
    }
}
