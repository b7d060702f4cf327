//! Does the kernel hold this table? Both sides are reduced to one form: what we would send is encoded and read back by the
//! same reader as the kernel's dump, and both are freed of what the kernel adds by itself.

use std::collections::{BTreeMap, BTreeSet};

use netlink::{Attributes, parse_str};

use crate::numbers::attr;
use crate::read::{self, be_u32};
use crate::table::{Element, IntervalSide};

/// Result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// The kernel holds exactly this.
    Equal,
    /// It does not.
    Different(Difference),
}

/// The first difference found, for logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// There is no such table.
    #[error("the table is missing")]
    TableMissing,
    /// Missing, foreign, or with other properties.
    #[error("chain {0} differs")]
    Chain(String),
    /// Missing, foreign, or with other properties or elements.
    #[error("set {0} differs")]
    Set(String),
    /// The rules of this chain.
    #[error("the rules of chain {0} differ")]
    Rules(String),
    /// Missing or foreign.
    #[error("counter {0} differs")]
    Counter(String),
}

/// Attribute number to value; nested data is flattened to (number, inner number).
type Properties = BTreeMap<(u16, u16), Vec<u8>>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CanonicalTable {
    exists: bool,
    chains: BTreeMap<String, Properties>,
    rules: BTreeMap<String, Vec<CanonicalRule>>,
    sets: BTreeMap<String, Properties>,
    elements: BTreeMap<String, BTreeSet<Element>>,
    counters: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct CanonicalRule {
    exprs: Vec<(String, Properties)>,
    userdata: Vec<u8>,
}

impl CanonicalTable {
    pub(crate) fn note_table(&mut self) {
        self.exists = true;
    }

    pub(crate) fn add_chain(&mut self, payload: &[u8]) {
        let Some(name) = read::text(payload, attr::CHAIN_NAME) else {
            return;
        };
        let kept = [attr::CHAIN_HOOK, attr::CHAIN_POLICY, attr::CHAIN_TYPE];
        let mut properties = properties(read::attributes(payload), &kept, &[attr::CHAIN_HOOK]);
        // The dump of a chain without hook names a policy too.
        if !properties.keys().any(|(kind, _)| *kind == attr::CHAIN_HOOK) {
            properties.clear();
        }
        self.chains.insert(name.to_owned(), properties);
    }

    pub(crate) fn add_rule(&mut self, payload: &[u8]) {
        let Some(chain) = read::text(payload, attr::RULE_CHAIN) else {
            return;
        };
        let list = read::attributes(payload)
            .find_value(attr::RULE_EXPRESSIONS)
            .unwrap_or_default();
        let exprs = read::expressions(list)
            .map(|(name, data)| (name.to_owned(), canonical_data(name, data)))
            .collect();
        let userdata = read::attributes(payload)
            .find_value(attr::RULE_USERDATA)
            .unwrap_or_default()
            .to_vec();
        self.rules
            .entry(chain.to_owned())
            .or_default()
            .push(CanonicalRule { exprs, userdata });
    }

    pub(crate) fn add_set(&mut self, payload: &[u8]) {
        let Some(name) = read::text(payload, attr::SET_NAME) else {
            return;
        };
        let kept = [
            attr::SET_FLAGS,
            attr::SET_KEY_TYPE,
            attr::SET_KEY_LEN,
            attr::SET_DATA_TYPE,
            attr::SET_OBJ_TYPE,
        ];
        self.sets
            .insert(name.to_owned(), properties(read::attributes(payload), &kept, &[]));
    }

    pub(crate) fn add_elements(&mut self, payload: &[u8]) {
        let Some(set) = read::text(payload, attr::ELEMS_SET) else {
            return;
        };
        let known = self.elements.entry(set.to_owned()).or_default();
        for found in read::elements(payload) {
            // `nft` puts an end at 0 before the first interval; look-ups do not see it.
            let is_filler = found.element.end == IntervalSide::End && found.element.key.iter().all(|byte| *byte == 0);
            if !is_filler {
                known.insert(found.element);
            }
        }
    }

    pub(crate) fn add_counter(&mut self, payload: &[u8]) {
        self.counters
            .extend(read::text(payload, attr::OBJ_NAME).map(str::to_owned));
    }

    /// Whether a rule has the instructions of the other table's only rule in one piece.
    pub(crate) fn has_rule_with(&self, other: &Self) -> bool {
        let Some(run) = other.rules.values().flatten().next() else {
            return false;
        };
        let mut rules = self.rules.values().flatten();
        rules.any(|rule| rule.exprs.windows(run.exprs.len().max(1)).any(|part| part == run.exprs))
    }

    pub(crate) fn set_names(&self) -> Vec<String> {
        self.sets.keys().cloned().collect()
    }

    /// Compares what is wanted with what was found.
    pub(crate) fn compare(&self, found: &Self) -> Comparison {
        self.find_difference(found)
            .map_or(Comparison::Equal, Comparison::Different)
    }

    fn find_difference(&self, found: &Self) -> Option<Difference> {
        if !found.exists {
            return Some(Difference::TableMissing);
        }
        let empty = BTreeSet::new();
        let members = |table: &Self, set: &String| table.elements.get(set).unwrap_or(&empty).clone();
        let dynamic = |set: &String| self.is_dynamic(set);
        first_unequal(&self.chains, &found.chains)
            .map(Difference::Chain)
            .or_else(|| first_unequal(&self.sets, &found.sets).map(Difference::Set))
            .or_else(|| {
                let differs = |set: &&String| !dynamic(set) && members(self, set) != members(found, set);
                self.sets.keys().find(differs).cloned().map(Difference::Set)
            })
            .or_else(|| first_unequal(&self.rules, &found.rules).map(Difference::Rules))
            .or_else(|| {
                self.counters
                    .symmetric_difference(&found.counters)
                    .next()
                    .cloned()
                    .map(Difference::Counter)
            })
    }

    /// Rules fill dynamic sets, so their elements are not compared.
    fn is_dynamic(&self, set: &str) -> bool {
        let flags = self.sets.get(set).and_then(|set| set.get(&(attr::SET_FLAGS, 0)));
        flags
            .and_then(|flags| be_u32(flags))
            .is_some_and(|flags| flags & crate::numbers::set_flag::EVAL != 0)
    }
}

fn first_unequal<T: PartialEq>(wanted: &BTreeMap<String, T>, found: &BTreeMap<String, T>) -> Option<String> {
    let differs = |name: &&String| wanted.get(*name) != found.get(*name);
    wanted.keys().chain(found.keys()).find(differs).cloned()
}

fn properties(attributes: Attributes<'_>, kept: &[u16], nested: &[u16]) -> Properties {
    let mut properties = Properties::new();
    for attribute in attributes.filter(|attribute| kept.contains(&attribute.kind)) {
        if nested.contains(&attribute.kind) {
            let inner = Attributes::new(attribute.value);
            properties.extend(inner.map(|inner| ((attribute.kind, inner.kind), inner.value.to_vec())));
        } else {
            properties.insert((attribute.kind, 0), attribute.value.to_vec());
        }
    }
    properties
}

/// The data of an expression without what the kernel adds or forgets.
fn canonical_data(name: &str, data: &[u8]) -> Properties {
    let nested: &[u16] = match name {
        "cmp" => &[3],
        "range" => &[3, 4],
        "bitwise" => &[4, 5],
        "immediate" => &[2],
        _ => &[],
    };
    let mut properties = Properties::new();
    for attribute in Attributes::new(data) {
        if nested.contains(&attribute.kind) {
            flatten_data(&mut properties, attribute.kind, attribute.value);
        } else {
            properties.insert((attribute.kind, 0), attribute.value.to_vec());
        }
    }
    drop_additions(name, &mut properties);
    properties
}

/// `NFTA_DATA_VALUE` and `NFTA_DATA_VERDICT`; the parts of a verdict are numbered behind the value.
fn flatten_data(properties: &mut Properties, kind: u16, data: &[u8]) {
    for inner in Attributes::new(data) {
        if inner.kind == attr::DATA_VERDICT {
            for part in Attributes::new(inner.value) {
                properties.insert((kind, 0x100 + part.kind), part.value.to_vec());
            }
        } else {
            properties.insert((kind, inner.kind), inner.value.to_vec());
        }
    }
}

fn drop_additions(name: &str, properties: &mut Properties) {
    let zero = |properties: &Properties, kind| properties.get(&(kind, 0)).is_some_and(|v| v.iter().all(|b| *b == 0));
    match name {
        "counter" => properties.clear(),
        "bitwise" if zero(properties, 6) => drop(properties.remove(&(6, 0))),
        "lookup" => {
            properties.remove(&(4, 0));
            if zero(properties, 5) {
                properties.remove(&(5, 0));
            }
        }
        "dynset" => properties.retain(|(kind, _), _| [1, 3, 4].contains(kind)),
        "objref" => drop(properties.remove(&(5, 0))),
        "nat" => {
            if properties.get(&(4, 0)) == properties.get(&(3, 0)) {
                properties.remove(&(4, 0));
            }
            drop_map_ips(properties);
        }
        _ => {}
    }
}

/// `NF_NAT_RANGE_MAP_IPS`, which the kernel sets for every translation of an address.
fn drop_map_ips(properties: &mut Properties) {
    let flags = properties.remove(&(7, 0)).and_then(|flags| be_u32(&flags)).unwrap_or(0) & !1;
    if flags != 0 {
        properties.insert((7, 0), flags.to_be_bytes().to_vec());
    }
}

/// A name in a message, for filtering dumps that the kernel does not filter.
pub(crate) fn names(payload: &[u8], kind: u16, name: &str) -> bool {
    read::attributes(payload).find_value(kind).and_then(parse_str) == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;
    use crate::write::Writer;
    use crate::{Family, FibFlags, Rule, TableId, Verdict, rule};
    use proptest::prelude::*;

    fn absorb_all(table: &mut CanonicalTable, payload: &[u8]) {
        table.add_chain(payload);
        table.add_rule(payload);
        table.add_set(payload);
        table.add_elements(payload);
        table.add_counter(payload);
    }

    fn rule_message() -> Vec<u8> {
        let mut w = Writer::default();
        let exprs = [
            rule::fib_missing(FibFlags::SADDR),
            rule::verdict(Verdict::Jump("c".into())),
        ];
        encode::rule(
            &mut w,
            &TableId::new(Family::Ipv4, "t"),
            "c",
            1,
            &Rule::new(exprs).with_comment("x"),
        );
        w.buffer.split_off(16)
    }

    proptest! {
        #[test]
        fn arbitrary_messages_are_read_without_panic(payload in prop::collection::vec(any::<u8>(), 0..256)) {
            absorb_all(&mut CanonicalTable::default(), &payload);
        }

        #[test]
        fn damaged_rules_are_read_without_panic(position in 0usize..400, value in any::<u8>(), cut in 0usize..400) {
            let mut payload = rule_message();
            let len = payload.len();
            payload[position % len] = value;
            payload.truncate(cut.max(1));
            absorb_all(&mut CanonicalTable::default(), &payload);
        }
    }

    #[test]
    fn what_the_kernel_adds_to_a_translation_does_not_count() {
        let mut sent = Properties::from([
            ((1, 0), vec![0; 4]),
            ((3, 0), vec![0, 0, 0, 1]),
            ((7, 0), vec![0, 0, 0, 0x10]),
        ]);
        let mut dumped = sent.clone();
        dumped.insert((4, 0), vec![0, 0, 0, 1]);
        dumped.insert((7, 0), vec![0, 0, 0, 0x11]);
        drop_additions("nat", &mut sent);
        drop_additions("nat", &mut dumped);
        assert_eq!(sent, dumped);
    }
}
