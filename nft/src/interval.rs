//! Networks to intervals. The kernel refuses overlapping intervals, and old kernels accept or report them wrongly, so
//! networks are merged here first.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::{Element, key};

/// Inclusive ranges that cover exactly the given networks: ascending, disjoint and not touching.
pub fn merge(networks: &[Ipv4Net]) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let mut ranges: Vec<_> = networks.iter().map(|net| (net.network(), net.broadcast())).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(Ipv4Addr, Ipv4Addr)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if u32::from(first) <= u32::from(*end).saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Start and exclusive end of each range, each start directly followed by its end. A range that reaches the last address has
/// no end: the next address would be 0.
pub(crate) fn elements_of(networks: &[Ipv4Net]) -> Vec<Element> {
    let mut elements = Vec::new();
    for (first, last) in merge(networks) {
        elements.push(Element::member(key::ipv4(first)));
        let end = u32::from(last)
            .checked_add(1)
            .map(|next| Element::interval_end(key::ipv4(next.into())));
        elements.extend(end);
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn contained_duplicate_and_adjacent_networks_become_one() {
        let merged = merge(&nets(&[
            "10.0.1.0/24",
            "10.0.0.0/24",
            "10.0.0.16/28",
            "10.0.1.0/24",
            "10.0.3.0/24",
        ]));
        let texts: Vec<_> = merged.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        assert_eq!(texts, ["10.0.0.0-10.0.1.255", "10.0.3.0-10.0.3.255"]);
    }

    #[test]
    fn the_end_of_the_address_space_has_no_end_element() {
        assert_eq!(elements_of(&nets(&["0.0.0.0/0"])), [Element::member(vec![0; 4])]);
        assert_eq!(
            elements_of(&nets(&["255.255.255.255/32"])),
            [Element::member(vec![255; 4])]
        );
        assert_eq!(elements_of(&[]), []);
        let ends = elements_of(&nets(&["10.0.0.0/16"]));
        assert_eq!(
            ends,
            [
                Element::member(vec![10, 0, 0, 0]),
                Element::interval_end(vec![10, 1, 0, 0])
            ]
        );
    }

    proptest! {
        #[test]
        fn merging_keeps_exactly_the_covered_addresses(
            raw in prop::collection::vec((any::<u32>(), 0u8..=32), 0..12),
            probe in any::<u32>(),
        ) {
            let nets: Vec<_> = raw.iter().map(|(a, len)| Ipv4Net::new((*a).into(), *len).unwrap().trunc()).collect();
            let merged = merge(&nets);
            prop_assert!(merged.windows(2).all(|w| u64::from(u32::from(w[0].1)) + 1 < u64::from(u32::from(w[1].0))));
            let mut probes = vec![Ipv4Addr::from(probe)];
            for net in &nets {
                let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
                probes.extend([first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(Ipv4Addr::from));
            }
            for probe in probes {
                let covered = merged.iter().any(|(first, last)| (*first..=*last).contains(&probe));
                prop_assert_eq!(covered, nets.iter().any(|net| net.contains(&probe)));
            }
        }
    }
}
