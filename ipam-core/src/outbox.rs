//! Holds back what must not happen before the state behind it is durable.
//!
//! Owns the persist-before-reply rule: an action gated on a generation leaves only once a checkpoint of that generation,
//! or a later one, is durable. One write is under way at a time; requests that arrive meanwhile share the next.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::action::{Action, Note};
use crate::{BootTime, Generation};

/// Pause after a failed write. Long enough not to hammer a full disk, short enough for a waiting runtime.
const RETRY: Duration = Duration::from_secs(1);

/// A write that takes longer counts as failed for those who wait for it, whatever becomes of it. Well below the plugin's
/// deadline for a DEL of 10 s.
const HUNG: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Outbox {
    ready: Vec<Action>,
    held: BTreeMap<Generation, Vec<Action>>,
    current: Generation,
    durable: Generation,
    writing: Option<Generation>,
    writing_since: BootTime,
    patience: Patience,
    retry_at: Option<BootTime>,
    /// Test hook: act as if everything were durable.
    pub(crate) skip_gate: Gate,
}

/// Whether the write under way is still waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Patience {
    #[default]
    Waits,
    HasEnded,
}

/// Whether the gate works. It is only ever opened to show that the simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Gate {
    #[default]
    Closed,
    #[cfg(feature = "mutants")]
    Open,
}

impl Outbox {
    /// Starts with the generation that the files hold.
    pub(crate) fn starting_at(generation: Generation) -> Self {
        Self {
            current: generation,
            durable: generation,
            ..Self::default()
        }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.current
    }

    /// The state changed in a way that the files must show.
    pub(crate) fn bump(&mut self) -> Generation {
        self.current = Generation(self.current.0 + 1);
        self.current
    }

    pub(crate) fn now(&mut self, action: Action) {
        self.ready.push(action);
    }

    pub(crate) fn after(&mut self, generation: Generation, action: Action) {
        if self.durable >= generation || self.skip_gate != Gate::Closed {
            self.ready.push(action);
        } else {
            self.held.entry(generation).or_default().push(action);
        }
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.ready.push(Action::Note(note));
    }

    /// Starts a write if one is due; returns when to try again if the last one failed.
    pub(crate) fn flush(&mut self, now: BootTime) -> Option<BootTime> {
        if self.writing.is_some() {
            let waited_for = self.patience == Patience::Waits && !self.held.is_empty();
            return waited_for.then(|| self.writing_since.after(HUNG));
        }
        if self.durable >= self.current {
            return None;
        }
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return Some(at);
        }
        (self.writing, self.writing_since) = (Some(self.current), now);
        self.ready.push(Action::Persist {
            generation: self.current,
        });
        (!self.held.is_empty()).then(|| now.after(HUNG))
    }

    /// What is held back by a write that hangs, for the core to decide as after a failed one. The write stays under way: there is
    /// one at a time.
    pub(crate) fn hung(&mut self, now: BootTime) -> Option<Vec<(Generation, Action)>> {
        let hangs = self.writing.is_some() && now >= self.writing_since.after(HUNG);
        if !hangs || (self.patience == Patience::HasEnded && self.held.is_empty()) {
            return None;
        }
        if self.patience == Patience::Waits {
            self.patience = Patience::HasEnded;
            self.note(Note::CheckpointFailing);
        }
        Some(self.take_held())
    }

    fn take_held(&mut self) -> Vec<(Generation, Action)> {
        let held = std::mem::take(&mut self.held);
        held.into_iter()
            .flat_map(|(generation, actions)| actions.into_iter().map(move |a| (generation, a)))
            .collect()
    }

    pub(crate) fn durable(&mut self, generation: Generation) {
        (self.writing, self.retry_at, self.patience) = (None, None, Patience::Waits);
        self.durable = self.durable.max(generation);
        let later = self.held.split_off(&Generation(self.durable.0 + 1));
        self.ready
            .extend(std::mem::replace(&mut self.held, later).into_values().flatten());
    }

    /// Gives back everything that was held, for the core to decide what may go on without a file.
    pub(crate) fn failed(&mut self, now: BootTime) -> Vec<(Generation, Action)> {
        (self.writing, self.patience) = (None, Patience::Waits);
        self.retry_at = Some(now.after(RETRY));
        self.take_held()
    }

    /// Whether the last write failed, or hangs, and none has succeeded since.
    pub(crate) fn is_failing(&self) -> bool {
        self.retry_at.is_some() || self.patience == Patience::HasEnded
    }

    pub(crate) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.ready)
    }
}
