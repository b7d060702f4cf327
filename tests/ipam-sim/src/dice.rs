//! Chance, drawn from one seeded generator, so that a seed is a whole history.

use std::time::Duration;

/// A generator with the few draws that the simulation makes.
#[derive(Debug, Clone)]
pub(crate) struct Dice(fastrand::Rng);

impl Dice {
    /// Streams of one seed that differ in name are independent: what is added to the world later changes no other stream,
    /// and switching off a fault leaves the workload as it was.
    pub(crate) fn of(seed: u64, stream: &str) -> Self {
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let name = stream.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
        Self(fastrand::Rng::with_seed(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ name,
        ))
    }

    /// True in `per_mille` of 1000 draws.
    pub(crate) fn chance(&mut self, per_mille: u32) -> bool {
        self.0.u32(..1000) < per_mille
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.usize(..bound.max(1))
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn number(&mut self, low: u32, high: u32) -> u32 {
        self.0.u32(low..=high)
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Milliseconds from `low` to `high`, with a fraction, so that few things happen at the same instant.
    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.0.u64(low * 1000..=high * 1000))
    }
}
