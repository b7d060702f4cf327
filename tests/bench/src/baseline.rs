//! Ratios of an earlier state of the repository, and how far they may move.
//!
//! A ratio that is worse than its committed value by more than the tolerance fails the run. Better ones do not: who makes
//! something faster commits new values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::rows::Row;

/// The committed file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// Ratios by the name of their line.
    pub ratios: BTreeMap<String, f64>,
}

/// Factor by which a ratio may grow. Medians of runs at load averages between 3 and 14 on two cores differed by up to 15 %.
const TOLERANCE: f64 = 1.3;
/// The same for CPU times of a fraction of a millisecond, DEL's and VERSION's, which differed by up to 25 %.
const TOLERANCE_SMALL: f64 = 1.5;

impl Baseline {
    /// The ratios of a run.
    pub fn of(rows: &[Row]) -> Self {
        let steady = rows.iter().filter(|row| is_steady(&row.name));
        let ratios = steady.filter_map(|row| Some((row.name.clone(), round(row.ratio?))));
        Self {
            ratios: ratios.collect(),
        }
    }

    /// Lines that have become worse, as sentences.
    pub fn regressions(&self, rows: &[Row]) -> Vec<String> {
        let worse = rows.iter().filter_map(|row| {
            let (ratio, before) = (row.ratio?, *self.ratios.get(&row.name)?);
            let limit = before * tolerance(&row.name);
            (ratio > limit).then(|| format!("{}: {ratio:.2}, was {before:.2}, allowed {limit:.2}", row.name))
        });
        worse.collect()
    }

    /// Lines of the file that a run of all groups has not, as sentences: what was renamed is compared no more.
    pub fn uncompared(&self, rows: &[Row]) -> Vec<String> {
        let lost = self
            .ratios
            .keys()
            .filter(|name| rows.iter().all(|row| row.name != **name));
        lost.map(|name| format!("{name}: in the baseline, and not measured"))
            .collect()
    }
}

fn tolerance(name: &str) -> f64 {
    let small = name.contains(".cpu.") && (name.starts_with("del.") || name.starts_with("version."));
    if small { TOLERANCE_SMALL } else { TOLERANCE }
}

/// How long a burst takes depends on what else the machine does: the same ratio came out between 1.0 and 2.4. The CPU time of
/// its calls is steady. So is not the wall time of the plugin in Go, which waits for the kernel to take devices apart.
fn is_steady(name: &str) -> bool {
    let burst = name.starts_with("burst.") && name.contains(".total.");
    let waits = name.contains(".wall.") && name.ends_with("/go");
    !burst && !waits
}

fn round(ratio: f64) -> f64 {
    (ratio * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Figures, Who};
    use crate::rows::judge;

    #[test]
    fn a_ratio_that_grew_beyond_its_tolerance_is_named_and_a_smaller_one_is_not() {
        let rows = |ours: f64| {
            let mut figures = Figures::default();
            figures.series("add.primary.wall", Who::Ours, &[ours]);
            figures.series("add.primary.wall", Who::Floor, &[1.0]);
            judge(&figures)
        };
        let baseline = Baseline::of(&rows(1.5));
        assert_eq!(baseline.regressions(&rows(1.0)), Vec::<String>::new());
        assert_eq!(baseline.regressions(&rows(1.9)), Vec::<String>::new());
        assert!(baseline.regressions(&rows(2.0))[0].starts_with("add.primary.wall.p50/floor: 2.00, was 1.50"));
    }

    #[test]
    fn a_line_of_the_file_that_nobody_measured_is_named() {
        let baseline = Baseline {
            ratios: BTreeMap::from([("add.gone.wall.p50/floor".to_owned(), 1.0)]),
        };
        assert_eq!(
            baseline.uncompared(&[]),
            ["add.gone.wall.p50/floor: in the baseline, and not measured"]
        );
    }
}
