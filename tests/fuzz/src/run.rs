//! Feeds one target until its time is over or something breaks.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::mutate::Mutator;

/// No reader of ours takes as long, even on a busy machine and without optimisation.
const SLOW: Duration = Duration::from_secs(2);
/// The clock is asked once per so many inputs.
const BETWEEN_LOOKS: u64 = 64;
/// Inputs that are mutated further, at most: the committed ones and those with an outcome of a new shape.
const POOL: usize = 4096;
/// Tries to make a finding shorter.
const SHRINKING: usize = 4000;

/// Something that reads bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its directory in the corpus.
    pub name: &'static str,
    /// Words that mean something to it.
    pub dictionary: &'static [&'static [u8]],
    /// Reads; equal numbers mean outcomes of the same shape.
    pub read: fn(&[u8]) -> u64,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// After so long.
    Time(Duration),
    /// After so many inputs.
    Inputs(u64),
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Inputs.
    pub inputs: u64,
    /// Outcomes of different shapes.
    pub shapes: usize,
    /// Time.
    pub took: Duration,
}

/// An input that must not do what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// The input, made shorter where it goes on to break.
    pub input: Vec<u8>,
    /// Why.
    pub reason: String,
    /// Number of the input, from 1.
    pub number: u64,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "input {} of {} bytes: {}\n  hex:",
            self.number,
            self.input.len(),
            self.reason
        )?;
        for byte in self.input.iter().take(512) {
            write!(f, "{byte:02x}")?;
        }
        if self.input.len() > 512 {
            f.write_str("…")?;
        }
        Ok(())
    }
}

/// Reads one input. The answer is the shape of the outcome, or why it broke.
pub fn read_one(target: &Target, input: &[u8]) -> Result<u64, String> {
    let started = Instant::now();
    let read = catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    let shape = read.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("panic: {}", text.unwrap_or("without a text"))
    })?;
    match started.elapsed() {
        took if took > SLOW => Err(format!("took {took:?}")),
        _ => Ok(shape),
    }
}

/// Feeds a target. `note` is told each input before it is read, for those that end the process.
pub fn run(
    target: &Target,
    seeds: &[Vec<u8>],
    seed: u64,
    limit: Limit,
    mut note: impl FnMut(&[u8]),
) -> Result<Tally, Crash> {
    let started = Instant::now();
    let mut mutator = Mutator::new(seed, target.dictionary);
    let mut pool: Vec<Vec<u8>> = seeds.to_vec();
    if pool.is_empty() {
        pool.push(Vec::new());
    }
    let mut shapes = BTreeSet::new();
    let mut inputs = 0;
    while !is_over(limit, inputs, started) {
        let input = match pool.get(usize::try_from(inputs).unwrap_or(usize::MAX)) {
            // The committed ones first, as they are.
            Some(seed) if inputs < seeds.len() as u64 => seed.clone(),
            _ => mutator.next_input(&pool),
        };
        inputs += 1;
        note(&input);
        match read_one(target, &input) {
            Ok(shape) => {
                if shapes.insert(shape) && pool.len() < POOL {
                    pool.push(input);
                }
            }
            Err(reason) => {
                return Err(Crash {
                    input: shrink(target, input),
                    reason,
                    number: inputs,
                });
            }
        }
    }
    Ok(Tally {
        inputs,
        shapes: shapes.len(),
        took: started.elapsed(),
    })
}

fn is_over(limit: Limit, inputs: u64, started: Instant) -> bool {
    match limit {
        Limit::Inputs(most) => inputs >= most,
        Limit::Time(time) => inputs > 0 && inputs.is_multiple_of(BETWEEN_LOOKS) && started.elapsed() >= time,
    }
}

/// Leaves out whatever it can.
fn shrink(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let breaks = |input: &[u8]| read_one(target, input).is_err();
    let mut tries = 0;
    let mut size = input.len() / 2;
    while size > 0 && tries < SHRINKING {
        let mut start = 0;
        while start < input.len() && tries < SHRINKING {
            tries += 1;
            let mut shorter = input.clone();
            shorter.drain(start..(start + size).min(input.len()));
            if breaks(&shorter) {
                input = shorter;
            } else {
                start += size;
            }
        }
        size /= 2;
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of records with two defects, as ours could have.
    fn defective(input: &[u8]) -> u64 {
        let Some(rest) = input.strip_prefix(b"rec") else {
            return 0;
        };
        let Some((len, body)) = rest.split_first() else {
            return 1;
        };
        // The planted defect: a length that is believed.
        let body = &body[..usize::from(*len)];
        2 + u64::from(body.contains(&b'x'))
    }

    const PLANTED: Target = Target {
        name: "planted",
        dictionary: &[b"rec"],
        read: defective,
    };

    #[test]
    fn a_planted_defect_is_found_made_short_and_found_again_by_the_same_seed() {
        let seeds = [b"rec\x04abcd".to_vec()];
        let crash = run(&PLANTED, &seeds, 1, Limit::Inputs(50_000), |_| {}).unwrap_err();
        assert!(crash.reason.contains("out of range"), "{crash}");
        assert!(crash.input.len() <= 6 && crash.input.starts_with(b"rec"), "{crash}");
        assert_eq!(
            run(&PLANTED, &seeds, 1, Limit::Inputs(50_000), |_| {}),
            Err(crash.clone())
        );
        // And a committed input that breaks is found at once.
        let again = run(
            &PLANTED,
            std::slice::from_ref(&crash.input),
            2,
            Limit::Inputs(10),
            |_| {},
        )
        .unwrap_err();
        assert_eq!(again.number, 1);
    }

    #[test]
    fn a_sound_reader_passes_with_the_number_of_inputs_asked_for() {
        let sound = Target {
            read: |input| input.len() as u64,
            ..PLANTED
        };
        let mut told = 0;
        let tally = run(&sound, &[], 1, Limit::Inputs(1000), |_| told += 1).unwrap();
        assert_eq!((tally.inputs, told), (1000, 1000));
        assert!(tally.shapes > 10);
    }

    #[test]
    fn an_endless_reader_is_a_finding() {
        let slow = Target {
            read: |_| {
                let end = Instant::now() + SLOW + Duration::from_millis(50);
                while Instant::now() < end {
                    std::thread::yield_now();
                }
                0
            },
            ..PLANTED
        };
        assert!(read_one(&slow, b"").unwrap_err().contains("took"));
    }
}
