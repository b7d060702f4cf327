//! By what the reference's rules are known: comment and target, whatever device, network or mark they name, so that those of
//! other settings and older releases are found as well. Pure.

/// Tables in which there are such rules, with their base chains.
pub(super) const TABLES: [(&str, &[&str]); 2] = [("nat", &["PREROUTING", "POSTROUTING"]), ("mangle", &["PREROUTING"])];

const CHAINS: [&str; 2] = [SNAT_CHAIN, CONNMARK_CHAIN];
const SNAT_CHAIN: &str = "AWS-SNAT-CHAIN-";
const CONNMARK_CHAIN: &str = "AWS-CONNMARK-CHAIN-";
const CONNMARK: &str = "CONNMARK";

/// What a rule does, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// Goes on in a chain.
    Jump(&'a str),
    /// Calls a target.
    Extension(&'a str),
}

/// Whether the chain was made by the reference: numbered, because older releases had one for each network of the VPC.
pub(super) fn is_chain(name: &str) -> bool {
    CHAINS.iter().any(|stem| is_numbered(name, stem))
}

fn is_numbered(name: &str, stem: &str) -> bool {
    let number = name.strip_prefix(stem);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a rule of a base chain is the reference's.
pub(super) fn is_rule(table: &str, comment: Option<&str>, target: Target<'_>) -> bool {
    let Some(comment) = comment else { return false };
    match (table, target) {
        // The second spelling is that of releases before 1.7.
        ("nat", Target::Jump(chain)) => match comment {
            "AWS SNAT CHAIN" | "AWS SNAT CHAN" => is_numbered(chain, SNAT_CHAIN),
            "AWS, outbound connections" => is_numbered(chain, CONNMARK_CHAIN),
            _ => false,
        },
        ("nat", Target::Extension(CONNMARK)) => comment == "AWS, CONNMARK",
        ("mangle", Target::Extension(CONNMARK)) => comment == "AWS, primary ENI",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_known_by_their_numbered_names() {
        for name in ["AWS-SNAT-CHAIN-0", "AWS-CONNMARK-CHAIN-12"] {
            assert!(is_chain(name), "{name}");
        }
        for name in [
            "AWS-SNAT-CHAIN-",
            "AWS-SNAT-CHAIN-x",
            "MY-AWS-SNAT-CHAIN-0",
            "KUBE-SERVICES",
        ] {
            assert!(!is_chain(name), "{name}");
        }
    }

    #[test]
    fn rules_need_both_comment_and_target() {
        let connmark = Target::Extension(CONNMARK);
        assert!(is_rule("nat", Some("AWS, CONNMARK"), connmark));
        assert!(is_rule("mangle", Some("AWS, primary ENI"), connmark));
        assert!(is_rule("nat", Some("AWS SNAT CHAN"), Target::Jump("AWS-SNAT-CHAIN-0")));
        assert!(!is_rule("mangle", Some("AWS, CONNMARK"), connmark));
        assert!(!is_rule("nat", None, connmark));
        assert!(!is_rule("nat", Some("AWS, CONNMARK"), Target::Extension("MARK")));
        assert!(!is_rule("nat", Some("AWS SNAT CHAIN"), Target::Jump("KUBE-SERVICES")));
        assert!(!is_rule("nat", Some("mine"), Target::Jump("AWS-SNAT-CHAIN-0")));
    }
}
