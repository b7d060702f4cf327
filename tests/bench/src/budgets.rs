//! The budgets, and what may never be exceeded: one table.
//!
//! A *budget* is a goal; a missed one is shown. A *hard* limit fails the run. Hard limits are on ratios of one run, counts,
//! sizes and memory, because those do not depend on how fast or busy the machine is; never on times.

use crate::figures::Who;

/// What a figure is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// Nothing: the figure itself is judged.
    Alone,
    /// The same figure of another contestant.
    Other(Who),
    /// Another figure of ours.
    Figure(&'static str),
}

/// Which number of a series counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// The median.
    P50,
    /// The mean.
    Mean,
    /// The largest.
    Max,
}

/// One line of the report.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Heading above it.
    pub group: &'static str,
    /// What it says, for people.
    pub title: &'static str,
    /// The figure's name.
    pub figure: &'static str,
    /// Which number of it.
    pub statistic: Statistic,
    /// What it is divided by.
    pub against: Against,
    /// Unit of the figure.
    pub unit: &'static str,
    /// The goal for the ratio, or for the figure itself if it stands alone.
    pub budget: Option<f64>,
    /// What fails the run.
    pub hard: Option<f64>,
}

const FLOOR: Against = Against::Other(Who::Floor);
const GO: Against = Against::Other(Who::Go);

const fn rule(group: &'static str, title: &'static str, figure: &'static str, unit: &'static str) -> Rule {
    Rule {
        group,
        title,
        figure,
        statistic: Statistic::P50,
        against: Against::Alone,
        unit,
        budget: None,
        hard: None,
    }
}

const fn queues(title: &'static str, figure: &'static str, unit: &'static str, one: &'static str) -> Rule {
    rule(QUEUES, title, figure, unit).to(Against::Figure(one))
}

impl Rule {
    const fn to(mut self, against: Against) -> Self {
        self.against = against;
        self
    }

    const fn by(mut self, statistic: Statistic) -> Self {
        self.statistic = statistic;
        self
    }

    const fn goal(mut self, budget: f64) -> Self {
        self.budget = Some(budget);
        self
    }

    const fn never_above(mut self, hard: f64) -> Self {
        self.hard = Some(hard);
        self
    }

    /// A goal that is also the limit: for what has no spread.
    const fn exactly(self, budget: f64) -> Self {
        self.goal(budget).never_above(budget)
    }

    /// Its name in files: figure, statistic and what it is divided by.
    pub fn name(&self) -> String {
        let statistic = match self.statistic {
            Statistic::P50 => "p50",
            Mean => "mean",
            Max => "max",
        };
        let against = match self.against {
            Against::Alone => "",
            Against::Other(Who::Floor) => "/floor",
            Against::Other(Who::Go) => "/go",
            Against::Other(Who::Ours) => "/ours",
            Against::Figure(figure) => return format!("{}.{statistic}/{figure}", self.figure),
        };
        format!("{}.{statistic}{against}", self.figure)
    }
}

use Statistic::{Max, Mean};

const ADD: &str = "ADD, one at a time, warm pool";
const DEL: &str = "DEL, one at a time";
const VERSION: &str = "VERSION";
const BURST: &str = "Bursts, 16 at once";
const DAEMON: &str = "ipamd";
const CALLS: &str = "EC2 calls";
const STORM: &str = "50 pods at once on a small pool, assumed EC2 latencies";
const SIZES: &str = "Stripped sizes";
const QUEUES: &str = "Queues of a pod's link";

/// The goal for wall time next to the plugin in Go is a fifth, as for CPU. It cannot be the limit: ours contains the daemon's
/// durable answer, for which the other one has no counterpart, and the floor itself stands at a fifth.
const GO_WALL: f64 = 0.5;

/// All lines, in the order of the report.
pub const RULES: &[Rule] = &[
    rule(ADD, "wall, primary ENI, to floor", "add.primary.wall", "ms")
        .to(FLOOR)
        .goal(1.5)
        .never_above(2.0),
    rule(ADD, "wall, secondary ENI, to floor", "add.secondary.wall", "ms")
        .to(FLOOR)
        .goal(1.5)
        .never_above(2.0),
    rule(ADD, "CPU, primary ENI, to floor", "add.primary.cpu", "ms")
        .to(FLOOR)
        .goal(1.5)
        .never_above(2.0),
    rule(ADD, "CPU, secondary ENI, to floor", "add.secondary.cpu", "ms")
        .to(FLOOR)
        .goal(1.5)
        .never_above(2.0),
    rule(ADD, "wall, primary ENI, to ptp + host-local", "add.primary.wall", "ms")
        .to(GO)
        .goal(0.2)
        .never_above(GO_WALL),
    rule(
        ADD,
        "wall, secondary ENI, to ptp + host-local",
        "add.secondary.wall",
        "ms",
    )
    .to(GO)
    .goal(0.2)
    .never_above(GO_WALL),
    rule(ADD, "CPU, primary ENI, to ptp + host-local", "add.primary.cpu", "ms")
        .to(GO)
        .exactly(0.2),
    rule(
        ADD,
        "CPU, secondary ENI, to ptp + host-local",
        "add.secondary.cpu",
        "ms",
    )
    .to(GO)
    .exactly(0.2),
    rule(ADD, "CPU, mean", "add.secondary.cpu", "ms").by(Mean).goal(2.0),
    rule(ADD, "CPU with 180 pods on the node, to 0 pods", "add.many.cpu", "ms")
        .to(Against::Figure("add.primary.cpu"))
        .goal(1.1),
    rule(ADD, "wall with 180 pods on the node, to 0 pods", "add.many.wall", "ms")
        .to(Against::Figure("add.primary.wall")),
    rule(
        ADD,
        "CPU with 4,000 routes and rules of others, to none",
        "add.foreign.cpu",
        "ms",
    )
    .to(Against::Figure("add.primary.cpu"))
    .goal(1.2)
    .never_above(1.5),
    rule(
        ADD,
        "CPU with 4,000 routes and rules of others, to floor",
        "add.foreign.cpu",
        "ms",
    )
    .to(FLOOR),
    rule(ADD, "CPU with 180 pods on the node, to floor", "add.many.cpu", "ms")
        .to(FLOOR)
        .goal(1.5)
        .never_above(2.0),
    rule(ADD, "peak memory", "add.secondary.memory", "MiB")
        .by(Max)
        .exactly(2.5),
    rule(DEL, "wall, primary ENI, to floor", "del.primary.wall", "ms")
        .to(FLOOR)
        .goal(1.5),
    rule(DEL, "wall, secondary ENI, to floor", "del.secondary.wall", "ms")
        .to(FLOOR)
        .goal(1.5),
    rule(DEL, "CPU, secondary ENI, to floor", "del.secondary.cpu", "ms").to(FLOOR),
    rule(DEL, "wall, to ptp + host-local", "del.secondary.wall", "ms")
        .to(GO)
        .goal(0.2)
        .never_above(GO_WALL),
    rule(DEL, "CPU, to ptp + host-local", "del.secondary.cpu", "ms")
        .to(GO)
        .exactly(0.2),
    rule(DEL, "peak memory", "del.secondary.memory", "MiB")
        .by(Max)
        .exactly(2.5),
    rule(VERSION, "wall, to a bare exec", "version.wall", "ms")
        .to(FLOOR)
        .goal(1.5),
    rule(VERSION, "CPU, to a bare exec", "version.cpu", "ms").to(FLOOR),
    rule(VERSION, "wall, to ptp", "version.wall", "ms").to(GO).goal(0.2),
    rule(BURST, "100 ADDs, until the last", "burst.add.100.total", "ms").goal(200.0),
    rule(BURST, "100 ADDs, to floor", "burst.add.100.total", "ms")
        .to(FLOOR)
        .goal(1.5),
    rule(BURST, "100 ADDs, to ptp + host-local", "burst.add.100.total", "ms")
        .to(GO)
        .goal(0.2),
    rule(BURST, "CPU per ADD of 100, to floor", "burst.add.100.cpu", "ms")
        .to(FLOOR)
        .goal(1.5),
    rule(BURST, "16 ADDs, to floor", "burst.add.16.total", "ms")
        .to(FLOOR)
        .goal(1.5),
    rule(BURST, "16 ADDs, to ptp + host-local", "burst.add.16.total", "ms")
        .to(GO)
        .goal(0.2),
    rule(BURST, "100 DELs, to floor", "burst.del.100.total", "ms")
        .to(FLOOR)
        .goal(1.5),
    rule(BURST, "100 DELs, to ptp + host-local", "burst.del.100.total", "ms")
        .to(GO)
        .goal(0.2),
    rule(DAEMON, "first start until it serves", "start.first", "ms").goal(200.0),
    rule(
        DAEMON,
        "  of it: metadata and first EC2 call",
        "start.phase.metadata",
        "ms",
    ),
    rule(DAEMON, "  of it: kernel and state files", "start.phase.kernel", "ms"),
    rule(DAEMON, "  of it: until the socket is there", "start.phase.serve", "ms"),
    rule(DAEMON, "start with the files of 250 pods", "start.again", "ms").goal(200.0),
    rule(DAEMON, "SIGTERM until it has ended", "stop", "ms")
        .by(Max)
        .goal(500.0),
    rule(DAEMON, "resident after start", "memory.start.rss", "MiB"),
    rule(DAEMON, "resident with 50 pods", "memory.50.rss", "MiB")
        .goal(16.0)
        .never_above(20.0),
    rule(DAEMON, "resident with 250 pods", "memory.250.rss", "MiB")
        .goal(18.0)
        .never_above(22.5),
    rule(DAEMON, "  of it anonymous", "memory.250.anonymous", "MiB"),
    rule(DAEMON, "AddNetwork, one at a time, m5.4xlarge", "rpc.add", "ms").goal(0.3),
    rule(DAEMON, "DelNetwork, one at a time", "rpc.del", "ms"),
    rule(DAEMON, "50 AddNetwork at once", "rpc.add.50", "ms"),
    rule(DAEMON, "AddNetwork, one at a time, m5.24xlarge", "rpc.large.add", "ms").goal(0.3),
    rule(
        DAEMON,
        "  with 200 to 250 leases, to 0 to 50",
        "rpc.large.add.many",
        "ms",
    )
    .to(Against::Figure("rpc.large.add.few")),
    rule(DAEMON, "DelNetwork, one at a time", "rpc.large.del", "ms"),
    rule(DAEMON, "50 AddNetwork at once", "rpc.large.add.50", "ms"),
    rule(DAEMON, "packets to anybody during AddNetworks", "rpc.add.sent", "").goal(0.0),
    rule(DAEMON, "CPU of an idle minute, 12 probes included", "idle.cpu", "ms").goal(20.0),
    rule(DAEMON, "  of it the daemon", "idle.daemon", "ms"),
    rule(DAEMON, "packets to EC2 and IMDS while idle", "idle.sent", ""),
    rule(CALLS, "first start, on the boot of the launch", "calls.first", "")
        .by(Max)
        .exactly(3.0),
    rule(CALLS, "restart", "calls.restart", "").by(Max).exactly(1.0),
    rule(CALLS, "a new ENI", "calls.eni", "").by(Max).exactly(3.0),
    rule(CALLS, "during AddNetworks", "rpc.add.ec2", "").exactly(0.0),
    rule(CALLS, "while idle", "idle.calls", "").exactly(0.0),
    rule(STORM, "until the last has its address", "storm.total", "s").goal(6.0),
    rule(STORM, "EC2 calls until then", "storm.calls", "").exactly(13.0),
    rule(STORM, "EC2 calls until the pool is quiet", "storm.calls.settled", "").exactly(13.0),
    rule(STORM, "ADDs that failed", "storm.failed", "").exactly(0.0),
    rule(SIZES, "aws-cni", "size.plugin", "MiB").exactly(2.5),
    rule(SIZES, "ipamd", "size.daemon", "MiB").exactly(20.0),
    rule(QUEUES, "making a pair with 1", "veth.create.1", "ms"),
    queues("making a pair with 2, to 1", "veth.create.2", "ms", "veth.create.1"),
    queues("making a pair with 16, to 1", "veth.create.16", "ms", "veth.create.1"),
    queues("making a pair with 96, to 1", "veth.create.96", "ms", "veth.create.1"),
    queues("making a pair with 192, to 1", "veth.create.192", "ms", "veth.create.1"),
    queues("1 flow through 16, to 1", "veth.plain.1.16", "Gbit/s", "veth.plain.1.1").goal(1.1),
    queues(
        "8 flows through 16, to 1",
        "veth.plain.8.16",
        "Gbit/s",
        "veth.plain.8.1",
    )
    .goal(1.1),
    queues("the same with GRO, 1 flow", "veth.gro.1.16", "Gbit/s", "veth.gro.1.1").goal(1.1),
    queues("the same with GRO, 8 flows", "veth.gro.8.16", "Gbit/s", "veth.gro.8.1").goal(1.1),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_lines_have_one_name() {
        let names: BTreeSet<String> = RULES.iter().map(Rule::name).collect();
        assert_eq!(names.len(), RULES.len());
    }

    #[test]
    fn hard_limits_are_never_on_times_and_never_below_the_goal() {
        for rule in RULES {
            let is_time = rule.against == Against::Alone && ["ms", "s"].contains(&rule.unit);
            assert!(rule.hard.is_none() || !is_time, "{}", rule.name());
            assert!(
                rule.hard.is_none_or(|hard| Some(hard) >= rule.budget),
                "{}",
                rule.name()
            );
        }
    }
}
