//! What was measured: a series of values per contestant, with a name.

use serde::{Deserialize, Serialize};

/// The middle and the ends of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Number of values.
    pub n: usize,
    /// Half of them are at most this.
    pub p50: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// Their mean.
    pub mean: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            n: sorted.len(),
            p50: quantile(&sorted, 50)?,
            p95: quantile(&sorted, 95)?,
            #[expect(clippy::cast_precision_loss, reason = "there are less than 2^52 values")]
            mean: sorted.iter().sum::<f64>() / sorted.len() as f64,
            max: *sorted.last()?,
        })
    }

    /// Of one value.
    pub fn one(value: f64) -> Self {
        Self {
            n: 1,
            p50: value,
            p95: value,
            mean: value,
            max: value,
        }
    }
}

/// Nearest rank.
fn quantile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Who was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// Our binaries.
    Ours,
    /// The least that is possible.
    Floor,
    /// `ptp` with `host-local`.
    Go,
}

/// One series of one contestant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What, for instance `add.primary.wall`.
    pub name: String,
    /// Of whom.
    pub who: Who,
    /// The values, in milliseconds, KiB, bytes or pieces.
    pub spread: Spread,
}

/// All that was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Adds a series; an empty one is left out.
    pub fn series(&mut self, name: &str, who: Who, values: &[f64]) {
        let spread = Spread::of(values);
        self.0.extend(spread.map(|spread| Figure {
            name: name.to_owned(),
            who,
            spread,
        }));
    }

    /// Adds one value of ours.
    pub fn value(&mut self, name: &str, value: f64) {
        self.series(name, Who::Ours, &[value]);
    }

    /// Looks one up.
    pub fn get(&self, name: &str, who: Who) -> Option<Spread> {
        let found = self.0.iter().find(|figure| figure.name == name && figure.who == who);
        found.map(|figure| figure.spread)
    }

    /// All of them, in the order of measuring.
    pub fn iter(&self) -> impl Iterator<Item = &Figure> {
        self.0.iter()
    }

    /// Takes over the others.
    pub fn append(&mut self, others: Self) {
        self.0.extend(others.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_the_lower_one() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.p50, spread.p95, spread.max, spread.mean), (2.0, 4.0, 4.0, 2.5));
        assert_eq!(Spread::of(&[]), None);
    }
}
