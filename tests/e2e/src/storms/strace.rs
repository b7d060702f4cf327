//! Runs the plugin under strace: lists its system calls, kills it before one of them, or holds it there for a while.
//!
//! strace counts occurrences per system call and thread, so a boundary is a call's name and its number among those of the
//! name. The signal is sent on entry and the call is not executed: what the plugin did before is done, what comes after
//! is not. The state after a call is that before the next one, so entries alone cover every state; the last entry is that
//! of the exit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vpc_fabric::Node;

use crate::runtime::Runtime;

const STRACE: &str = "/usr/bin/strace";
/// Where a node's strace writes, as the node sees it.
const OUTPUT: &str = "/run/strace.txt";
/// The call that starts the plugin; strace itself makes it, and nothing of the plugin has run then.
const START: &str = "execve";

/// Before the `nth` call of this name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Boundary {
    /// Of the system call.
    pub(super) call: String,
    /// Counts from 1.
    pub(super) nth: usize,
}

impl std::fmt::Display for Boundary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} #{}", self.call, self.nth)
    }
}

/// What a traced run did.
#[derive(Debug)]
pub(super) struct Trace {
    /// All system calls of all threads.
    pub(super) calls: usize,
    /// Each call of the thread that made most of its name, in the order of the run.
    pub(super) boundaries: Vec<Boundary>,
    /// Whether a signal ended it.
    pub(super) end: End,
}

/// How a traced run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// By itself.
    Exit,
    /// By the signal, when these calls had begun last, one per thread at most.
    Killed(BTreeSet<Boundary>),
}

/// Whether strace is there.
pub(super) fn ensure_installed() -> Result<()> {
    ensure!(Path::new(STRACE).is_file(), "{STRACE} is not there: install strace");
    Ok(())
}

fn wrapper(further: &[String]) -> Vec<String> {
    let usual = [STRACE, "-f", "-qq", "-o", OUTPUT].map(str::to_owned);
    [usual.as_slice(), further].concat()
}

/// The plugin with all its calls recorded.
pub(super) fn recorded(runtime: &Runtime) -> Runtime {
    runtime.under(wrapper(&[]))
}

/// The plugin, killed at a boundary, with its calls recorded until then.
pub(super) fn killed_at(runtime: &Runtime, at: &Boundary) -> Runtime {
    let inject = format!("inject={}:signal=KILL:when={}", at.call, at.nth);
    runtime.under(wrapper(&["-e".to_owned(), inject]))
}

/// The plugin, held at a boundary.
pub(super) fn held_at(runtime: &Runtime, at: &Boundary, time: Duration) -> Runtime {
    let inject = format!("inject={}:delay_enter={}:when={}", at.call, time.as_micros(), at.nth);
    runtime.under(wrapper(&["-e".to_owned(), inject]))
}

/// The record of the last run in a node.
pub(super) fn read(node: &Node) -> Result<Trace> {
    let path = node.outside(OUTPUT.as_ref());
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Trace {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut last: BTreeMap<&str, Boundary> = BTreeMap::new();
    let (mut seen, mut boundaries, mut calls, mut killed) = (BTreeSet::new(), Vec::new(), 0, false);
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        killed |= rest.starts_with("+++ killed by SIGKILL");
        let Some((name, _)) = rest.split_once('(').filter(|(name, _)| is_name(name)) else {
            continue;
        };
        calls += 1;
        let nth = counts.entry((thread, name)).or_default();
        *nth += 1;
        let boundary = Boundary {
            call: name.to_owned(),
            nth: *nth,
        };
        last.insert(thread, boundary.clone());
        if name != START && seen.insert(boundary.clone()) {
            boundaries.push(boundary);
        }
    }
    Trace {
        calls,
        boundaries,
        end: if killed {
            End::Killed(last.into_values().collect())
        } else {
            End::Exit
        },
    }
}

/// Not `<... read resumed>` and not `+++ exited`.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_counted_by_name_and_thread() {
        let text = "7 execve(\"x\") = 0\n7 read(0, \"a\") = 1\n8 read(3,  <unfinished ...>\n7 read(4, \"\") = 0\n\
                    8 <... read resumed>) = 1\n8 close(3) = ?\n7 +++ killed by SIGKILL +++\n8 +++ killed by SIGKILL +++\n";
        let trace = parse(text);
        let boundary = |call: &str, nth| Boundary {
            call: call.to_owned(),
            nth,
        };
        assert_eq!(trace.calls, 5);
        assert_eq!(
            trace.boundaries,
            [boundary("read", 1), boundary("read", 2), boundary("close", 1)]
        );
        let ends = BTreeSet::from([boundary("read", 2), boundary("close", 1)]);
        assert_eq!(trace.end, End::Killed(ends));
    }

    #[test]
    fn a_run_that_ends_by_itself_was_not_killed() {
        assert_eq!(parse("7 exit_group(0) = ?\n7 +++ exited with 0 +++\n").end, End::Exit);
    }
}
