//! The command line of `ipam-fleet`.

use std::process::ExitCode;
use std::time::Duration;

use super::*;

#[expect(clippy::print_stdout, reason = "the report is the product of this program")]
fn say(text: &str) {
    println!("{text}");
}

pub fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().collect();
    let churn = Workload::Churn {
        pods: 20,
        life: Duration::from_secs(600),
    };
    let day = Workload::Day {
        low: 5,
        high: 45,
        period: Duration::from_secs(7200),
        life: Duration::from_secs(1800),
    };
    let pol = [
        ("R1", Policy::reference(Targets::enis(1), Mode::Addresses)),
        ("R2", Policy::reference(Targets::addresses(5, 10), Mode::Addresses)),
        (
            "R2s",
            Policy::reference(
                Targets {
                    warm_eni: Some(0),
                    ..Targets::addresses(1, 1)
                },
                Mode::Addresses,
            ),
        ),
        ("R3", Policy::reference(Targets::prefixes(1), Mode::Prefixes)),
        ("O1e", Policy::ours(Targets::enis(1), Mode::Addresses)),
        ("O1i", Policy::ours(Targets::addresses(5, 10), Mode::Addresses)),
        ("O1s", Policy::ours(Targets::addresses(1, 1), Mode::Addresses)),
    ];
    for (name, policy) in pol {
        if args.len() > 2 && args[2] != name {
            continue;
        }
        let mut plan = match args[1].as_str() {
            "burst" => Plan::one_node(policy, Workload::Burst { pods: 50 }),
            "churn" => Plan::hundred_nodes(policy, churn),
            "day" => Plan {
                span: Duration::from_secs(7200),
                ..Plan::hundred_nodes(policy, day)
            },
            "roll" => Plan::hundred_nodes(policy, Workload::Rolling { pods: 20 }),
            "cron" => Plan::hundred_nodes(policy, Workload::Cron { pods: 20, jobs: 30 }),
            "batch" => Plan::hundred_nodes(
                policy,
                Workload::Batch {
                    rate: 0.6,
                    life: Duration::from_secs(30),
                },
            ),
            join => Plan::join(policy, join.parse()?),
        };
        if let Some(seed) = args.get(3) {
            plan.seed = seed.parse()?;
        }
        let started = std::time::Instant::now();
        let f = run(&plan);
        say(&format!(
            "{name}: served {} waited {:.1}% p50 {:.1} p99 {:.1} max {:.1} last {:.1} never {} calls-until {} c/pod {:.3} c/nh {:.1} c/n {:.1} thr/ok {:.2} held/used {:.2} ({:.1}/{:.1}) enis {:.2} [{:.1} s]  {:?}",
            f.served,
            100.0 * f.waited as f64 / f.served.max(1) as f64,
            f.wait_p50,
            f.wait_p99,
            f.wait_max,
            f.last_served,
            f.never_served,
            f.calls_until_served,
            f.calls_per_pod(),
            f.calls_per_node_hour(),
            f.calls_per_node(),
            f.throttled_per_accepted(),
            f.held_per_used(),
            f.held,
            f.used,
            f.enis,
            started.elapsed().as_secs_f64(),
            f.calls.accepted
        ));
    }
    Ok(ExitCode::SUCCESS)
}
