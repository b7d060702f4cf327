//! Few points that together have every pair of values of any two axes.

use std::collections::BTreeSet;

/// Candidates from which each point is chosen: more make the list shorter and its making longer.
const CANDIDATES: usize = 60;

/// Two axes with a value of each.
type Pair = ((usize, usize), (usize, usize));

fn pairs(point: &[usize]) -> Vec<Pair> {
    let count = point.len();
    let both = (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other)));
    both.map(|(one, other)| ((one, point[one]), (other, point[other])))
        .collect()
}

/// Points over axes with so many values each, always the same ones.
pub(super) fn cover(axes: &[usize]) -> Vec<Vec<usize>> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut open: BTreeSet<Pair> = BTreeSet::new();
    for (one, &values) in axes.iter().enumerate() {
        for (other, &others) in axes.iter().enumerate().skip(one + 1) {
            open.extend((0..values).flat_map(|a| (0..others).map(move |b| ((one, a), (other, b)))));
        }
    }
    let mut points = Vec::new();
    while let Some(&((one, a), (other, b))) = open.first() {
        let candidate = |rng: &mut fastrand::Rng| {
            let mut point: Vec<usize> = axes.iter().map(|values| rng.usize(..*values)).collect();
            (point[one], point[other]) = (a, b);
            point
        };
        let candidates: Vec<Vec<usize>> = (0..CANDIDATES).map(|_| candidate(&mut rng)).collect();
        let gain = |point: &Vec<usize>| pairs(point).iter().filter(|pair| open.contains(*pair)).count();
        let best = candidates.into_iter().max_by_key(gain).expect("there are candidates");
        pairs(&best).iter().for_each(|pair| {
            open.remove(pair);
        });
        points.push(best);
    }
    points
}

/// All points.
pub(super) fn product(axes: &[usize]) -> Vec<Vec<usize>> {
    axes.iter().fold(vec![Vec::new()], |points, values| {
        let longer = points
            .iter()
            .flat_map(|point| (0..*values).map(|value| point.iter().copied().chain([value]).collect::<Vec<usize>>()));
        longer.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_values_is_covered_by_few_points() {
        let axes = [7, 7, 7, 7, 2, 5];
        let points = cover(&axes);
        let seen: BTreeSet<Pair> = points.iter().flat_map(|point| pairs(point)).collect();
        let all: BTreeSet<Pair> = product(&axes).iter().flat_map(|point| pairs(point)).collect();
        assert_eq!(seen, all);
        assert!(points.len() < 90, "{} points", points.len());
    }
}
