use datapath::Random;
use ipam_core::{AllocationMode, Provisioning, SubnetChoice, WarmTarget};

use super::*;

fn config(pairs: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let environment = pairs
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    Config::from_environment(&environment)
}

#[test]
fn an_empty_environment_is_valid_and_quiet() {
    let config = config(&[]).unwrap();
    assert_eq!(config.pool.target(AllocationMode::Addresses), WarmTarget::Adaptive);
    assert_eq!(config.pool.provisioning, Provisioning::Full);
    assert_eq!(config.pool.subnets, SubnetChoice::ByTag);
    assert_eq!(
        (config.max_eni, config.mtu, config.timers.cooldown.as_secs()),
        (None, 9001, 30)
    );
    assert_eq!(config.mark, FwMark::DEFAULT);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn every_mistake_is_reported_at_once_by_name() {
    let text = config(&[
        ("AWS_VPC_ENI_MTU", "100"),
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "lo"),
        ("ENABLE_IPv6", "true"),
        ("IP_COOLDOWN_PERIOD", "-1"),
        ("VPC_CNI_TIMERS", "nonsense=3"),
        ("AWS_ENDPOINT_URL", "localhost"),
    ])
    .unwrap_err()
    .to_string();
    for name in [
        "AWS_VPC_ENI_MTU",
        "VETHPREFIX",
        "ENABLE_IPv6",
        "IP_COOLDOWN",
        "VPC_CNI_TIMERS",
        "EC2 endpoint",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
}

#[test]
fn bad_targets_fall_back_and_say_so() {
    let config = config(&[
        ("WARM_IP_TARGET", "abc"),
        ("WARM_ENI_TARGET", "-3"),
        ("MAX_ENI", "0"),
        ("IP_COOLDOWN_PERIOD", "5"),
    ])
    .unwrap();
    assert_eq!(config.pool.target(AllocationMode::Addresses), WarmTarget::Adaptive);
    assert_eq!(config.max_eni, None);
    for name in [
        "WARM_IP_TARGET=\"abc\"",
        "WARM_ENI_TARGET=\"-3\"",
        "MAX_ENI=0",
        "IP_COOLDOWN_PERIOD=5",
    ] {
        assert!(
            config.warnings.iter().any(|w| w.contains(name)),
            "{name}: {:?}",
            config.warnings
        );
    }
    assert_eq!(config.warnings.len(), 4);
}

#[test]
fn either_address_target_replaces_the_others() {
    let target = |pairs| config(pairs).unwrap().pool.target(AllocationMode::Addresses);
    let prefixes = |pairs| config(pairs).unwrap().pool.target(AllocationMode::Prefixes);
    let minimum = [("MINIMUM_IP_TARGET", "4")];
    assert_eq!(target(&minimum), WarmTarget::Addresses { warm: 0, minimum: 4 });
    let warm = [("WARM_IP_TARGET", "2"), ("WARM_ENI_TARGET", "3")];
    assert_eq!(target(&warm), WarmTarget::Addresses { warm: 2, minimum: 0 });
    assert_eq!(prefixes(&warm), WarmTarget::Addresses { warm: 2, minimum: 0 });
    let whole = [
        ("WARM_ENI_TARGET", "0"),
        ("WARM_PREFIX_TARGET", "1"),
        ("WARM_IP_TARGET", "0"),
    ];
    assert_eq!(target(&whole), WarmTarget::Enis(0));
    assert_eq!(prefixes(&whole), WarmTarget::Prefixes(1));
    assert_eq!(prefixes(&[("WARM_ENI_TARGET", "1")]), WarmTarget::Adaptive);
}

#[test]
fn targets_without_effect_are_named_unless_the_chart_set_them() {
    let warnings = |pairs| config(pairs).unwrap().warnings;
    let chart = [
        ("WARM_ENI_TARGET", "1"),
        ("WARM_PREFIX_TARGET", "1"),
        ("WARM_IP_TARGET", "5"),
    ];
    assert_eq!(warnings(&chart), Vec::<String>::new());
    let both = warnings(&[("WARM_ENI_TARGET", "2"), ("WARM_IP_TARGET", "5")]);
    assert!(both.len() == 1 && both[0].contains("WARM_ENI_TARGET"), "{both:?}");
    let other = warnings(&[("ENABLE_PREFIX_DELEGATION", "true"), ("WARM_ENI_TARGET", "0")]);
    assert!(
        other.len() == 1 && other[0].contains("ENABLE_PREFIX_DELEGATION"),
        "{other:?}"
    );
    let minimum = warnings(&[("MINIMUM_IP_TARGET", "10")]);
    assert!(
        minimum.len() == 1 && minimum[0].contains("MINIMUM_IP_TARGET"),
        "{minimum:?}"
    );
}

#[test]
fn types_without_nitro_have_single_addresses() {
    use vpc_types::limits::PrefixDelegation::{Supported, Unsupported};
    let pool = config(&[("ENABLE_PREFIX_DELEGATION", "true")]).unwrap().pool;
    assert_eq!(pool.mode_on(Supported), AllocationMode::Prefixes);
    assert_eq!(pool.mode_on(Unsupported), AllocationMode::Addresses);
}

#[test]
fn the_imds_only_switch_is_the_stronger_one() {
    let of = |pairs: &[(&str, &str)]| config(pairs).unwrap().pool.provisioning;
    let disabled = ("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true");
    assert_eq!(of(&[disabled]), Provisioning::Disabled);
    assert_eq!(of(&[disabled, ("ENABLE_IMDS_ONLY_MODE", "1")]), Provisioning::ImdsOnly);
}

#[test]
fn marks_are_read_as_go_reads_them() {
    let mark = |text| {
        let config = config(&[("AWS_VPC_K8S_CNI_CONNMARK", text)]).unwrap();
        assert_eq!(config.mark.mask, config.mark.value);
        (config.mark.value, config.warnings.len())
    };
    for text in [
        "0x100",
        "0X100",
        "256",
        "+256",
        "0400",
        "0o400",
        "0O4_00",
        "0b1_0000_0000",
        "0x_100",
        "0_400",
        "2_56",
    ] {
        assert_eq!(mark(text), (256, 0), "{text}");
    }
    assert_eq!(mark("0xffffffff"), (u32::MAX, 0));
    let bad = [
        "0",
        "-1",
        "x",
        "0x",
        "0b",
        "0x100000000",
        "08",
        "0oo7",
        "_256",
        "256_",
        "2__56",
        "0x+1",
        "1e3",
        " 256",
        "++1",
    ];
    for text in bad {
        assert_eq!(mark(text), (0x80, 1), "{text}");
    }
}

#[test]
fn source_ports_are_chosen_as_the_reference_chooses_them_and_a_bad_word_is_named() {
    let random = |text| {
        let config = config(&[("AWS_VPC_K8S_CNI_RANDOMIZESNAT", text)]).unwrap();
        let SnatPolicy::ToPrimary { random } = config.snat else {
            panic!("the node translates")
        };
        (random, config.warnings.len())
    };
    assert_eq!(random("prng"), (Random::Fully, 0));
    assert_eq!(random(""), (Random::Fully, 0));
    assert_eq!(random("hashrandom"), (Random::Hash, 0));
    assert_eq!(random("none"), (Random::No, 0));
    assert_eq!(random("PRNG"), (Random::Fully, 1));
    assert_eq!(random("fully"), (Random::Fully, 1));
}

#[test]
fn excluded_ranges_shape_our_own_snat_only() {
    let list = ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "10.0.0.5/8,0.0.0.0/0");
    let ours = config(&[list]).unwrap();
    assert_eq!(
        ours.exclude_cidrs,
        ["10.0.0.0/8", "0.0.0.0/0"].map(|text| text.parse().unwrap())
    );
    assert_eq!(ours.warnings, Vec::<String>::new());
    let external = config(&[list, ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true")]).unwrap();
    assert_eq!(external.exclude_cidrs, []);
    assert!(external.warnings.len() == 1 && external.warnings[0].contains("EXCLUDE_SNAT_CIDRS"));
}

#[test]
fn external_services_are_ipv4_ranges_and_others_are_named() {
    let config = config(&[("AWS_EXTERNAL_SERVICE_CIDRS", "100.64.0.9/10, fd00::/8,52.0.0.1,,")]).unwrap();
    assert_eq!(config.service_cidrs, ["100.64.0.0/10".parse().unwrap()]);
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
}

#[test]
fn names_mtus_and_modes_that_nobody_could_use_stop_the_daemon() {
    for (name, good, bad) in [
        ("AWS_VPC_ENI_MTU", &["576", "9001"][..], &["575", "9002", "1500x"][..]),
        (
            "AWS_VPC_K8S_CNI_VETHPREFIX",
            &["e", "pods"],
            &["eth", "lo", "vlan", "fives", "a b", "a/b", "a:b"],
        ),
        // The agent ends with any other mode, so the node would be without its policies; nobody asks for none of them.
        (
            "NETWORK_POLICY_ENFORCING_MODE",
            &["", "none", "standard", "strict", "Strict"],
            &["off", "audit", "strict "],
        ),
    ] {
        for text in good {
            assert!(config(&[(name, text)]).is_ok(), "{name}={text}");
        }
        for text in bad {
            let errors = config(&[(name, text)]).unwrap_err().0;
            assert!(errors.len() == 1 && errors[0].contains(name), "{errors:?}");
        }
    }
}

#[test]
fn bad_items_of_a_list_are_left_out_and_named() {
    let config = config(&[
        ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "10.1.2.3/8, fd00::/8,x"),
        ("ADDITIONAL_ENI_TAGS", r#"{"team":"a","node.k8s.amazonaws.com/x":"b"}"#),
    ])
    .unwrap();
    assert_eq!(config.exclude_cidrs, vec!["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(config.additional_tags.len(), 1);
    assert_eq!(config.warnings.len(), 3);
}

#[test]
fn timers_can_be_set_by_name() {
    let config = config(&[
        ("VPC_CNI_TIMERS", "eni_idle=0.5, add_deadline=3"),
        ("IP_COOLDOWN_PERIOD", "7"),
    ])
    .unwrap();
    assert_eq!(config.timers.eni_idle, Duration::from_millis(500));
    assert_eq!(
        (config.add_deadline.as_secs(), config.timers.cooldown.as_secs()),
        (3, 7)
    );
}

#[test]
fn the_table_names_each_variable_once_and_its_defaults_are_valid() {
    let mut names: Vec<_> = raw::TABLE.iter().map(|row| row.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    let defaults: Vec<_> = raw::TABLE.iter().map(|row| (row.name, row.default)).collect();
    let with_defaults = config(&defaults).unwrap();
    assert_eq!(with_defaults.warnings, Vec::<String>::new());
}
