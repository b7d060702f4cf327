//! Runs job lists in a node, by the small static launcher.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench_floor::launch::{self, Class, Job, Run};
use vpc_fabric::Node;
use vpc_fabric::node::CommandSpec;

/// For one list; only a hang takes as long.
const DEADLINE: Duration = Duration::from_secs(120);

/// The launcher's program.
#[derive(Debug, Clone)]
pub(crate) struct Launcher(pub(crate) PathBuf);

/// What a list took.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Each run, in the order of the list.
    pub(crate) runs: Vec<Run>,
    /// From before the first until all had ended.
    pub(crate) total: Duration,
}

impl Launcher {
    /// Runs a list, at most `parallel` at once, scheduled as usual.
    pub(crate) fn run(&self, node: &Node, jobs: &[Job], parallel: usize) -> Result<Launched> {
        self.launch(node, jobs, parallel, Class::Usual)
    }

    fn launch(&self, node: &Node, jobs: &[Job], parallel: usize, class: Class) -> Result<Launched> {
        let command = CommandSpec::new(&self.0);
        let output = node.output(&command, launch::list(jobs, parallel, class).as_bytes(), DEADLINE)?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "the launcher failed: {complaint}");
        let text = String::from_utf8(output.stdout).context("the launcher's answer")?;
        let (lines, total) = text
            .rsplit_once("total ")
            .context("the launcher's answer has no total")?;
        let runs: Vec<Run> = lines.lines().filter_map(launch::parse_line).collect();
        ensure!(
            runs.len() == jobs.len(),
            "the launcher ran {} of {}: {complaint}",
            runs.len(),
            jobs.len()
        );
        let total = Duration::from_nanos(total.trim().parse().context("the launcher's total")?);
        Ok(Launched { runs, total })
    }

    /// Runs one job, before everything else on the machine.
    pub(crate) fn one(&self, node: &Node, job: &Job) -> Result<Run> {
        let launched = self.launch(node, std::slice::from_ref(job), 1, Class::Realtime)?;
        launched.runs.first().copied().context("one job has one run")
    }
}

/// Milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Wall times in milliseconds.
pub(crate) fn walls(runs: &[Run]) -> Vec<f64> {
    runs.iter().map(|run| millis(run.wall)).collect()
}

/// CPU times in milliseconds.
pub(crate) fn cpus(runs: &[Run]) -> Vec<f64> {
    runs.iter().map(|run| millis(run.cpu)).collect()
}

/// Peak memory in MiB.
#[expect(clippy::cast_precision_loss, reason = "KiB of a process")]
pub(crate) fn memories(runs: &[Run]) -> Vec<f64> {
    runs.iter().map(|run| run.memory_kib as f64 / 1024.0).collect()
}
