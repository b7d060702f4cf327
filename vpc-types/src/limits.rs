//! ENI and address limits of instance types, from a generated table (`data/`, `cargo xtask gen-limits`).

use crate::NetworkCard;

/// One line per type, sorted by type: name, addresses per ENI, comma-separated ENIs per card, default card, flags
/// (`p` prefixes, `t` trunk, `-` none), IPv6 addresses per ENI, vCPUs (`-` where unknown).
const TABLE: &str = include_str!("../data/instance-limits.tsv");

/// What EC2 allows on one instance type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceLimits {
    /// ENIs per network card, by card index.
    pub enis_per_card: Vec<u16>,
    /// Card on which unspecified attachments land.
    pub default_card: NetworkCard,
    /// IPv4 slots per ENI, the primary address included; a prefix takes one slot.
    pub ipv4_per_eni: u16,
    /// Nitro or bare metal: prefixes can be delegated.
    pub prefix_delegation: PrefixDelegation,
}

/// Whether a type can take delegated prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefixDelegation {
    /// Nitro or bare metal.
    Supported,
    /// Xen.
    Unsupported,
}

/// Facts of an instance type that bound nothing in EC2's network API, and are not known of every type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceShape {
    /// IPv6 addresses per ENI; a prefix takes the room of one.
    pub ipv6_per_eni: Option<u16>,
    /// vCPUs as the type comes.
    pub vcpus: Option<u16>,
}

/// Names of all types in the table, in order.
pub fn instance_types() -> impl Iterator<Item = &'static str> {
    TABLE.lines().filter_map(|line| Some(line.split_once('\t')?.0))
}

/// Columns of a known type after its name.
fn row_of(instance_type: &str) -> Option<&'static str> {
    TABLE
        .lines()
        .find_map(|line| line.strip_prefix(instance_type)?.strip_prefix('\t'))
}

impl InstanceShape {
    /// Shape of a known type; `None` for types newer than the table.
    pub fn of(instance_type: &str) -> Option<Self> {
        let mut columns = row_of(instance_type)?.split('\t').skip(4);
        let mut known = || columns.next().and_then(|number| number.parse().ok());
        Some(Self {
            ipv6_per_eni: known(),
            vcpus: known(),
        })
    }
}

impl InstanceLimits {
    /// Limits of a known type; `None` for types newer than the table (ask EC2 then).
    pub fn of(instance_type: &str) -> Option<Self> {
        row_of(instance_type).map(|row| parse_row(row).expect("the generated table is well formed (tested)"))
    }

    /// ENIs that fit on the card pods use by default.
    pub fn enis_on_default_card(&self) -> u16 {
        self.enis_per_card
            .get(usize::from(self.default_card.0))
            .copied()
            .unwrap_or(0)
    }
}

fn parse_row(rest: &str) -> Option<InstanceLimits> {
    let mut columns = rest.split('\t');
    let ipv4_per_eni = columns.next()?.parse().ok()?;
    let enis_per_card = columns
        .next()?
        .split(',')
        .map(|n| n.parse().ok())
        .collect::<Option<Vec<_>>>()?;
    let default_card = NetworkCard(columns.next()?.parse().ok()?);
    let prefix_delegation = match columns.next()? {
        flags if flags.contains('p') => PrefixDelegation::Supported,
        _ => PrefixDelegation::Unsupported,
    };
    Some(InstanceLimits {
        enis_per_card,
        default_card,
        ipv4_per_eni,
        prefix_delegation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_parses_and_has_room_for_a_pod_or_says_so() {
        let mut rows = 0;
        for line in TABLE.lines() {
            let (name, rest) = line.split_once('\t').unwrap();
            let limits = parse_row(rest).unwrap_or_else(|| panic!("row of {name}"));
            assert!(limits.enis_on_default_card() >= 1 && limits.ipv4_per_eni >= 1, "{name}");
            rows += 1;
        }
        assert!(rows > 1_400, "{rows} rows");
    }

    #[test]
    fn known_types_have_their_documented_limits() {
        let limits = |name| InstanceLimits::of(name).unwrap();
        assert_eq!(
            (
                limits("m5.large").enis_on_default_card(),
                limits("m5.large").ipv4_per_eni
            ),
            (3, 10)
        );
        assert_eq!(
            (
                limits("t3.medium").enis_on_default_card(),
                limits("t3.medium").ipv4_per_eni
            ),
            (3, 6)
        );
        assert_eq!(limits("p5.48xlarge").enis_on_default_card(), 2);
        assert_eq!(limits("t2.micro").prefix_delegation, PrefixDelegation::Unsupported);
        assert_eq!(InstanceLimits::of("m5"), None);
    }

    #[test]
    fn shapes_tell_what_is_known_and_no_more() {
        let shape = |name| InstanceShape::of(name).map(|shape| (shape.ipv6_per_eni, shape.vcpus));
        assert_eq!(shape("m5.large"), Some((Some(10), Some(2))));
        assert_eq!(shape("c1.medium").map(|(ipv6, _)| ipv6), Some(Some(0)));
        assert_eq!(shape("c7i.32xlarge").map(|(ipv6, _)| ipv6), Some(None));
        assert_eq!(shape("m5"), None);
        assert!(instance_types().count() > 1_400 && instance_types().any(|name| name == "t3.nano"));
    }
}
