//! The table of instance limits that `vpc-types` compiles in, made from the gathered facts.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::context::Context;

/// The facts.
const FACTS: &str = "vpc-types/data/instance-limits.json";
/// The table.
pub(crate) const TABLE: &str = "vpc-types/data/instance-limits.tsv";
/// Where the facts come from.
pub(crate) const README: &str = "vpc-types/data/README.md";

/// Text of [`README`].
pub(crate) const PROVENANCE: &str = "\
# Limits of EC2 instance types

`instance-limits.json` holds facts about 1,419 instance types, one line each, sorted: `type`; `eni`, the sum over network cards;
`v4` and `v6`, addresses per ENI; `cards`, most ENIs per card; `dc`, the card that unspecified attachments use; `hv`, the
hypervisor; `bm`, bare metal; `pd`, takes delegated prefixes (Nitro or bare metal); `cpu`, default vCPUs; `efa`; `trunk`, can
have a trunk ENI; `branch`, branch ENIs. `null` means unknown.

`instance-limits.tsv` is the part that the programs read, made from it by `cargo xtask gen-limits`. Columns: type, `v4`, `cards`
(comma-separated), `dc`, flags (`p` for `pd`, `t` for `trunk`, `-` for neither), `v6`, `cpu` (`-` where unknown).

Where the facts come from:

- 1,395 types: as DescribeInstanceTypes returns them, gathered in moto 5.2.5 (Apache-2.0).
- 24 retired or unlisted types: limit tables of amazon-vpc-cni-k8s and amazon-vpc-resource-controller-k8s (both Apache-2.0);
  their vCPUs and IPv6 addresses: the archived EC2 user guide.
- `trunk` and `branch`: amazon-vpc-resource-controller-k8s; no public API tells them.

Only facts were taken. Where the sources differ (`i7ie.48xlarge`, `i7ie.metal-48xl`, `i8ge.48xlarge`, `i8ge.metal-48xl`: one
card or two) the newer EC2 data stands.
";

/// `cargo xtask gen-limits`.
pub(crate) fn write(context: &Context) -> Result<ExitCode> {
    let table = table(&context.root)?;
    fs::write(context.root.join(TABLE), &table).with_context(|| format!("cannot write {TABLE}"))?;
    fs::write(context.root.join(README), PROVENANCE).with_context(|| format!("cannot write {README}"))?;
    println!("{TABLE}: {} types", table.lines().count());
    Ok(ExitCode::SUCCESS)
}

/// What the table should contain.
pub(crate) fn table(root: &Path) -> Result<String> {
    let text = fs::read_to_string(root.join(FACTS)).with_context(|| format!("cannot read {FACTS}"))?;
    let facts: Value = serde_json::from_str(&text).with_context(|| format!("{FACTS} is no JSON"))?;
    let types = facts["types"]
        .as_array()
        .with_context(|| format!("{FACTS} has no list `types`"))?;
    let mut rows = types
        .iter()
        .map(|fact| row(fact).with_context(|| format!("{FACTS}: incomplete: {fact}")))
        .collect::<Result<Vec<_>>>()?;
    rows.sort();
    Ok(rows
        .into_iter()
        .map(|(name, rest)| format!("{name}\t{rest}\n"))
        .collect())
}

fn row(fact: &Value) -> Option<(String, String)> {
    let cards = fact["cards"]
        .as_array()?
        .iter()
        .map(|enis| Some(enis.as_u64()?.to_string()))
        .collect::<Option<Vec<_>>>()?;
    let mut flags = String::new();
    for (key, flag) in [("pd", 'p'), ("trunk", 't')] {
        if fact[key].as_bool() == Some(true) {
            flags.push(flag);
        }
    }
    if flags.is_empty() {
        flags.push('-');
    }
    let rest = [
        fact["v4"].as_u64()?.to_string(),
        cards.join(","),
        fact["dc"].as_u64()?.to_string(),
        flags,
        known(&fact["v6"]),
        known(&fact["cpu"]),
    ];
    Some((fact["type"].as_str()?.to_owned(), rest.join("\t")))
}

/// A number, or a dash.
fn known(fact: &Value) -> String {
    fact.as_u64()
        .map_or_else(|| "-".to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_becomes_a_row_and_an_incomplete_one_none() {
        let fact = serde_json::json!({"type": "x.big", "v4": 50, "cards": [8, 7], "dc": 1, "pd": true, "trunk": null, "v6": 0, "cpu": 896});
        assert_eq!(
            row(&fact),
            Some(("x.big".to_owned(), "50\t8,7\t1\tp\t0\t896".to_owned()))
        );
        let fact = serde_json::json!({"type": "x.old", "v4": 2, "cards": [2], "dc": 0, "pd": false, "trunk": false});
        assert_eq!(row(&fact), Some(("x.old".to_owned(), "2\t2\t0\t-\t-\t-".to_owned())));
        assert_eq!(row(&serde_json::json!({"type": "x.none"})), None);
    }
}
