//! `ipamd cleanup`: the end of what only we use, for a node that goes back to the reference.
//!
//! Pods, and the reference that comes, need the rest: devices, routes, rules, ENIs' tables, `ipam.json`. Those stay. Our nftables
//! table may go only when the reference's rules are in, or traffic that leaves the VPC breaks for as long as they are not.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use datapath::takeover::{OurTable, Successor, find_our_table, find_successor, remove_our_table};
use serde_json::json;

use super::{Answer, Output, pretty};
use crate::config::Config;
use crate::observe::Chain;
use crate::serve;

/// Whether anything is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Yes.
    Act,
    /// No: the answer says what would be.
    DryRun,
}

/// What is done although something speaks against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Nothing.
    No,
    /// Everything: a daemon runs, or nobody has taken over yet.
    Yes,
}

/// What became of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// It is gone; in a dry run, it would be.
    Removed,
    /// It was not there.
    Absent,
    /// It is still there.
    Kept(String),
}

#[derive(Debug)]
struct Outcome {
    what: String,
    fate: Fate,
}

/// Removes; the answer's status is 0 when nothing of ours is left, else 1.
pub async fn cleanup(config: &Config, mode: Mode, force: Force, output: Output) -> Answer {
    let socket = &config.paths.socket;
    let lock = serve::lock_file(socket);
    let outcomes = match try_lock(&lock) {
        Err(why) if force == Force::No => vec![Outcome {
            what: "everything".to_owned(),
            fate: Fate::Kept(why),
        }],
        // Held until the end: a daemon that starts meanwhile waits.
        _held => {
            let mut outcomes = vec![table(mode, force)];
            outcomes.push(socket_file(socket, mode).await);
            for path in [&config.paths.side_file, &config.paths.aborts] {
                outcomes.push(file(path, mode));
            }
            outcomes
        }
    };
    let all_gone = outcomes.iter().all(|one| !matches!(one.fate, Fate::Kept(_)));
    Answer {
        text: match output {
            Output::Json => json_of(&outcomes, mode),
            Output::Text => text_of(&outcomes, mode),
        },
        status: u8::from(!all_gone),
    }
}

/// The lock of a daemon of ours; none if there never was one.
fn try_lock(path: &Path) -> Result<Option<File>, String> {
    let file = match File::options().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            Err("a daemon runs and would put everything back: end it first, or use --force".to_owned())
        }
        Err(TryLockError::Error(error)) => Err(format!("{}: {error}", path.display())),
    }
}

fn table(mode: Mode, force: Force) -> Outcome {
    let fate = match judge(force) {
        Ok(Fate::Removed) if mode == Mode::Act => match remove_our_table() {
            Ok(_) => Fate::Removed,
            Err(error) => Fate::Kept(Chain(&error).to_string()),
        },
        Ok(fate) => fate,
        Err(error) => Fate::Kept(Chain(&error).to_string()),
    };
    Outcome {
        what: "nftables table ip aws-cni".to_owned(),
        fate,
    }
}

fn judge(force: Force) -> Result<Fate, datapath::takeover::TakeOverError> {
    if find_our_table()? == OurTable::Absent {
        return Ok(Fate::Absent);
    }
    Ok(match (find_successor()?, force) {
        (Successor::Ready, _) | (Successor::Missing, Force::Yes) => Fate::Removed,
        (Successor::Missing, Force::No) => Fate::Kept(
            "nobody else marks and translates yet, so connections that leave the VPC would break: run this again when \
             the reference runs, or use --force"
                .to_owned(),
        ),
    })
}

/// The socket of a daemon that was killed. One that answers is the reference's.
async fn socket_file(path: &Path, mode: Mode) -> Outcome {
    if serve::answers(path).await {
        return Outcome {
            what: path.display().to_string(),
            fate: Fate::Absent,
        };
    }
    file(path, mode)
}

fn file(path: &Path, mode: Mode) -> Outcome {
    let done = match mode {
        Mode::Act => fs::remove_file(path),
        Mode::DryRun => fs::symlink_metadata(path).map(drop),
    };
    Outcome {
        what: path.display().to_string(),
        fate: match done {
            Ok(()) => Fate::Removed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Fate::Absent,
            Err(error) => Fate::Kept(error.to_string()),
        },
    }
}

fn word(fate: &Fate, mode: Mode) -> &'static str {
    match (fate, mode) {
        (Fate::Removed, Mode::Act) => "removed",
        (Fate::Removed, Mode::DryRun) => "would be removed",
        (Fate::Absent, _) => "not there",
        (Fate::Kept(_), _) => "kept",
    }
}

fn text_of(outcomes: &[Outcome], mode: Mode) -> String {
    let line = |one: &Outcome| {
        let why = match &one.fate {
            Fate::Kept(why) => format!(": {why}"),
            Fate::Removed | Fate::Absent => String::new(),
        };
        format!("{:<18}{}{why}", word(&one.fate, mode), one.what)
    };
    outcomes.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn json_of(outcomes: &[Outcome], mode: Mode) -> String {
    let object = |one: &Outcome| {
        let why = match &one.fate {
            Fate::Kept(why) => Some(why),
            Fate::Removed | Fate::Absent => None,
        };
        json!({"what": one.what, "fate": word(&one.fate, mode), "why": why})
    };
    pretty(&json!({
        "dryRun": mode == Mode::DryRun,
        "objects": outcomes.iter().map(object).collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_daemon_is_known_by_its_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipamd.lock");
        assert!(try_lock(&path).unwrap().is_none());
        assert!(!path.exists(), "looking makes no file");
        let held = File::create(&path).unwrap();
        held.try_lock().unwrap();
        assert!(try_lock(&path).unwrap_err().contains("a daemon runs"));
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_somebody_elses_and_a_stale_one_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipamd.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(socket_file(&path, Mode::Act).await.fate, Fate::Absent);
        drop(listener);
        assert_eq!(socket_file(&path, Mode::DryRun).await.fate, Fate::Removed);
        assert!(path.exists(), "a dry run removes nothing");
        assert_eq!(socket_file(&path, Mode::Act).await.fate, Fate::Removed);
        assert_eq!(socket_file(&path, Mode::Act).await.fate, Fate::Absent);
    }
}
