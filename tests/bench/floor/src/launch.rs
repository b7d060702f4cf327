//! Starts programs and measures them: wall time from before the start to the end of the wait, CPU time and peak memory from the
//! kernel's account of the process and of those it waited for.
//!
//! It is small on purpose. The kernel counts the memory of the process that forks as that of its child until `exec`, so the
//! launcher's own size is the least that can be seen.
//!
//! A job list is lines of text: `class NAME`, `parallel N`, and for each run `program`, `env NAME=VALUE`, `stdin FILE`, `stdout FILE`, `arg
//! WORD`, and `go`. The answer has a line per run in the order of the list, then one for all.

use std::fs::File;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::sys;

/// One program to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// Its path.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment, as `NAME=VALUE`.
    pub env: Vec<String>,
    /// File to read from; `/dev/null` if empty.
    pub stdin: String,
    /// File to write to, made anew; `/dev/null` if empty.
    pub stdout: String,
}

/// How the kernel schedules what is started. A process that wakes up in the usual class waits for the end of the slice of
/// whoever runs, some milliseconds on a busy machine, whatever its niceness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// As everything else. For many processes at once: they would distort each other in the real-time class.
    #[default]
    Usual,
    /// Before everything else, where that is permitted. For one process at a time.
    Realtime,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Realtime => "realtime",
        }
    }
}

/// What is to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// In this order.
    pub jobs: Vec<Job>,
    /// At most so many at once.
    pub parallel: usize,
    /// How they are scheduled.
    pub class: Class,
}

/// What a run took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// From before its start until it had ended.
    pub wall: Duration,
    /// In user space and in the kernel.
    pub cpu: Duration,
    /// Resident at most.
    pub memory_kib: u64,
    /// Exit status; 128 + n if signal n ended it.
    pub status: i32,
}

/// A job list as text.
pub fn list(jobs: &[Job], parallel: usize, class: Class) -> String {
    let mut text = format!("parallel {parallel}\nclass {}\n", class.name());
    for job in jobs {
        let fields = [
            ("program", &job.program),
            ("stdin", &job.stdin),
            ("stdout", &job.stdout),
        ];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let args = job.args.iter().map(|value| ("arg", value));
        let env = job.env.iter().map(|value| ("env", value));
        for (name, value) in fields.chain(args).chain(env) {
            text.push_str(name);
            text.push(' ');
            text.push_str(value);
            text.push('\n');
        }
        text.push_str("go\n");
    }
    text
}

/// Reads a job list.
pub fn parse_list(text: &str) -> Result<List, String> {
    let (mut list, mut job) = (List::default(), Job::default());
    for line in text.lines() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let value = value.to_owned();
        match name {
            "class" if value == Class::Realtime.name() => list.class = Class::Realtime,
            "class" => list.class = Class::Usual,
            "parallel" => list.parallel = value.parse().map_err(|_| format!("no number: {value}"))?,
            "program" => job.program = value,
            "arg" => job.args.push(value),
            "env" => job.env.push(value),
            "stdin" => job.stdin = value,
            "stdout" => job.stdout = value,
            "go" => list.jobs.push(std::mem::take(&mut job)),
            other => return Err(format!("no field: {other}")),
        }
    }
    Ok(list)
}

/// The answer's line for one run.
pub fn line(run: &Run) -> String {
    let (wall, cpu) = (run.wall.as_nanos(), run.cpu.as_micros());
    format!("{wall} {cpu} {} {}\n", run.memory_kib, run.status)
}

/// Reads [`line()`].
pub fn parse_line(line: &str) -> Option<Run> {
    let mut words = line.split(' ');
    let run = Run {
        wall: Duration::from_nanos(words.next()?.parse().ok()?),
        cpu: Duration::from_micros(words.next()?.parse().ok()?),
        memory_kib: words.next()?.parse().ok()?,
        status: words.next()?.parse().ok()?,
    };
    Some(run)
}

/// Runs all jobs, at most `parallel` at once; the runs and the time until the last had ended.
pub fn run(list: &List) -> io::Result<(Vec<Run>, Duration)> {
    if list.class == Class::Realtime {
        // Without the right to it the figures are those of the usual class; the report says so.
        let _ = sys::set_realtime(0);
    }
    let (jobs, parallel) = (&list.jobs, list.parallel.max(1));
    let start = Instant::now();
    let mut running: Vec<(u32, usize, Instant)> = Vec::with_capacity(parallel);
    let mut runs: Vec<Option<Run>> = vec![None; jobs.len()];
    let mut next = 0;
    while next < jobs.len() || !running.is_empty() {
        if next < jobs.len() && running.len() < parallel {
            let begun = Instant::now();
            running.push((spawn(&jobs[next])?, next, begun));
            next += 1;
            continue;
        }
        let ended = sys::wait_for_any()?;
        let now = Instant::now();
        let Some(at) = running
            .iter()
            .position(|(pid, ..)| i64::from(*pid) == i64::from(ended.pid))
        else {
            continue;
        };
        let (_, index, begun) = running.swap_remove(at);
        runs[index] = Some(Run {
            wall: now - begun,
            cpu: ended.cpu,
            memory_kib: ended.memory_kib,
            status: ended.status,
        });
    }
    Ok((runs.into_iter().flatten().collect(), start.elapsed()))
}

/// Lets this process, and all that it starts, go before everything else on the machine. Without the right to do so nothing
/// changes.
pub fn go_first() -> io::Result<()> {
    sys::set_niceness(-20)
}

/// Puts a thread (0: the calling one) and what it starts from now on into [`Class::Realtime`].
pub fn make_realtime(thread: i32) -> io::Result<()> {
    sys::set_realtime(thread)
}

/// The child is waited for by [`sys::wait_for_any`], which also tells what it used.
fn spawn(job: &Job) -> io::Result<u32> {
    let mut command = Command::new(&job.program);
    command.args(&job.args).env_clear().stderr(Stdio::inherit());
    for pair in &job.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        command.env(name, value);
    }
    command.stdin(match job.stdin.as_str() {
        "" => Stdio::null(),
        path => File::open(path)?.into(),
    });
    command.stdout(match job.stdout.as_str() {
        "" => Stdio::null(),
        path => File::create(path)?.into(),
    });
    Ok(command.spawn()?.id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_and_its_answer_survive_the_way() {
        let job = Job {
            program: "/bin/x y".into(),
            args: vec!["a b".into()],
            env: vec!["A=b c=d".into()],
            stdin: "/in".into(),
            stdout: "/out".into(),
        };
        let jobs = vec![job, Job::default()];
        let text = list(&jobs, 16, Class::Realtime);
        let class = Class::Realtime;
        assert_eq!(
            parse_list(&text),
            Ok(List {
                jobs,
                parallel: 16,
                class
            })
        );
        assert!(parse_list("nonsense 1\n").is_err());
        let run = Run {
            wall: Duration::from_nanos(7),
            cpu: Duration::from_micros(3),
            memory_kib: 12,
            status: 1,
        };
        assert_eq!(parse_line(line(&run).trim_end()), Some(run));
    }

    #[test]
    fn programs_are_measured_and_their_status_is_kept() {
        let job = |text: &str| Job {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), text.into()],
            ..Job::default()
        };
        let list = List {
            jobs: vec![job("exit 3"), job("exit 0"), job("kill -9 $$")],
            parallel: 2,
            class: Class::Usual,
        };
        let (runs, total) = run(&list).unwrap();
        let statuses: Vec<i32> = runs.iter().map(|run| run.status).collect();
        assert_eq!(statuses, [3, 0, 137]);
        assert!(runs.iter().all(|run| run.wall <= total && run.memory_kib > 0));
    }
}
