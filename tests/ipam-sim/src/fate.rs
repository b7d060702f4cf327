//! What befalls a run: every stroke of bad luck and every act of the users has a name, so that a failing run can be
//! repeated with few of them.
//!
//! Each kind of trouble draws from a stream of its own, and the details of a stroke come from a stream of that stroke:
//! leaving one out changes the others as little as can be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::dice::Dice;
use crate::fault::Fault;

/// Who or what acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Bad luck of this kind.
    Fault(Fault),
    /// The users.
    Users,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.as_str(),
            Self::Users => "users",
        }
    }
}

/// The `number`-th event of its origin in a run, written `crash#2` or `users#17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stroke {
    /// Whose.
    pub origin: Origin,
    /// Counted from 1.
    pub number: u32,
}

impl fmt::Display for Stroke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.origin.as_str(), self.number)
    }
}

/// A text that names no stroke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoStroke(String);

impl fmt::Display for NoStroke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} names no stroke such as \"crash#2\" or \"users#17\"", self.0)
    }
}

impl std::error::Error for NoStroke {}

impl FromStr for Stroke {
    type Err = NoStroke;

    fn from_str(text: &str) -> Result<Self, NoStroke> {
        let wrong = || NoStroke(text.to_owned());
        let (name, number) = text.split_once('#').ok_or_else(wrong)?;
        let fault = || Fault::ALL.iter().find(|fault| fault.as_str() == name).copied();
        let origin = match name {
            "users" => Origin::Users,
            _ => Origin::Fault(fault().ok_or_else(wrong)?),
        };
        let number = number.parse().map_err(|_| wrong())?;
        Ok(Self { origin, number })
    }
}

/// Which strokes a run may have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Allowed {
    /// Whatever is drawn.
    #[default]
    All,
    /// These only; the others are drawn all the same and do nothing.
    Only(BTreeSet<Stroke>),
}

impl Allowed {
    fn has(&self, stroke: Stroke) -> bool {
        match self {
            Self::All => true,
            Self::Only(these) => these.contains(&stroke),
        }
    }
}

/// A stroke that fell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallen {
    /// Which.
    pub stroke: Stroke,
    /// When, since the start of the run.
    pub at: Duration,
    /// What it was, in a word, where its name does not say so.
    pub what: &'static str,
}

/// Draws the strokes of one run, and remembers those that fell.
#[derive(Debug)]
pub(crate) struct Fate {
    seed: u64,
    allowed: Allowed,
    dice: Vec<Dice>,
    drawn: BTreeMap<Origin, u32>,
    pub(crate) fallen: Vec<Fallen>,
}

impl Fate {
    pub(crate) fn new(seed: u64, allowed: Allowed) -> Self {
        let stream = |fault: &Fault| Dice::of(seed, fault.as_str());
        Self {
            seed,
            allowed,
            dice: Fault::ALL.iter().map(stream).collect(),
            drawn: BTreeMap::new(),
            fallen: Vec::new(),
        }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether a fault with these odds, per mille, strikes here and now.
    pub(crate) fn draw(&mut self, fault: Fault, per_mille: u32, at: Duration) -> Option<Stroke> {
        if per_mille == 0 || !self.dice[fault as usize].chance(per_mille) {
            return None;
        }
        self.next(Origin::Fault(fault), at)
    }

    /// The next stroke of an origin, unless it is not allowed.
    pub(crate) fn next(&mut self, origin: Origin, at: Duration) -> Option<Stroke> {
        let count = self.drawn.entry(origin).or_default();
        *count += 1;
        let stroke = Stroke { origin, number: *count };
        let falls = self.allowed.has(stroke);
        if falls {
            self.fallen.push(Fallen { stroke, at, what: "" });
        }
        falls.then_some(stroke)
    }

    /// Says what the last stroke was.
    pub(crate) fn was(&mut self, what: &'static str) {
        if let Some(last) = self.fallen.last_mut() {
            last.what = what;
        }
    }

    /// Decides the details of a stroke.
    pub(crate) fn details(&self, stroke: Stroke) -> Dice {
        Dice::of(self.seed, &stroke.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_stroke_is_read_back() {
        for text in ["users#17", "crash#2", "write-failure#1"] {
            assert_eq!(text.parse::<Stroke>().unwrap().to_string(), text);
        }
        for text in ["users", "users#x", "nobody#1", "#1", ""] {
            assert!(text.parse::<Stroke>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn leaving_a_stroke_out_leaves_its_followers_their_names() {
        let fall = |allowed| {
            let mut fate = Fate::new(7, allowed);
            for _ in 0..200 {
                let _ = fate.draw(Fault::Crash, 100, Duration::ZERO);
            }
            fate.fallen.iter().map(|one| one.stroke).collect::<BTreeSet<_>>()
        };
        let mut all = fall(Allowed::All);
        let out = *all.first().unwrap();
        all.remove(&out);
        assert!(all.len() > 5);
        assert_eq!(fall(Allowed::Only(all.clone())), all);
    }
}
