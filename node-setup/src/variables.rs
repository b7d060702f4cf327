//! The variables of init container and entrypoint, one row each. Documentation and checks read this table.
//!
//! Several are the daemon's as well, with the same meaning: here they are checked before it starts, or handed on to plugins.

/// What a value that does not parse leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBad {
    /// The default is used and a warning names the variable: running clusters may rely on that.
    Fallback,
    /// The container ends before anything was changed.
    Refuse,
}

/// One variable.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Text that stands for "unset".
    pub default: &'static str,
    /// What a bad value leads to.
    pub on_bad: OnBad,
    /// What it means, in a sentence.
    pub meaning: &'static str,
}

const fn row(name: &'static str, default: &'static str, on_bad: OnBad, meaning: &'static str) -> Row {
    Row {
        name,
        default,
        on_bad,
        meaning,
    }
}

use OnBad::{Fallback, Refuse};

/// Every variable that init container and entrypoint read.
pub const TABLE: &[Row] = &[
    row(
        "HOST_CNI_BIN_PATH",
        "/host/opt/cni/bin",
        Refuse,
        "where plugins are copied to",
    ),
    row(
        "HOST_CNI_CONFDIR_PATH",
        "/host/etc/cni/net.d",
        Refuse,
        "where 10-aws.conflist is put once the daemon serves",
    ),
    row(
        "VPC_CNI_ROOT",
        "",
        Refuse,
        "directory that stands for / in both of these paths",
    ),
    row(
        "VPC_CNI_CNI_VERSION",
        "",
        Refuse,
        "cniVersion of the list: 0.4.0, 1.0.0 or 1.1.0; unset: what the list says, 0.4.0 in ours",
    ),
    row(
        "AWS_VPC_K8S_CNI_VETHPREFIX",
        "eni",
        Refuse,
        "vethPrefix of the list: 1 to 4 characters, none of eth, lo, vlan",
    ),
    row(
        "AWS_VPC_ENI_MTU",
        "9001",
        Refuse,
        "MTU of ENIs, 576 to 9001; with IPv6 1280 to 9001",
    ),
    row(
        "POD_MTU",
        "",
        Refuse,
        "mtu of the list, in the same range; unset: AWS_VPC_ENI_MTU",
    ),
    row(
        "AWS_VPC_K8S_PLUGIN_LOG_FILE",
        "/var/log/aws-routed-eni/plugin.log",
        Refuse,
        "the plugin's log: a path on the host, or stderr; stdout belongs to its result",
    ),
    row(
        "AWS_VPC_K8S_PLUGIN_LOG_LEVEL",
        "Debug",
        Fallback,
        "lowest level that plugins log",
    ),
    row(
        "POD_SECURITY_GROUP_ENFORCING_MODE",
        "strict",
        Refuse,
        "strict or standard; checked only with ENABLE_POD_ENI",
    ),
    row(
        "ENABLE_POD_ENI",
        "false",
        Fallback,
        "true: pods may have ENIs of their own",
    ),
    row(
        "IP_COOLDOWN_PERIOD",
        "30",
        Refuse,
        "whole seconds, at least 0; the daemon keeps 12 at least",
    ),
    row("ENABLE_PREFIX_DELEGATION", "false", Fallback, "see the daemon"),
    row("WARM_PREFIX_TARGET", "", Fallback, "see the daemon"),
    row("WARM_IP_TARGET", "", Fallback, "see the daemon"),
    row("MINIMUM_IP_TARGET", "", Fallback, "see the daemon"),
    row("ENABLE_IPv6", "false", Fallback, "true: pods have IPv6 addresses"),
    row(
        "ENABLE_V4_EGRESS",
        "true",
        Fallback,
        "with IPv6: pods also reach IPv4 addresses, through the plugin egress-cni",
    ),
    row(
        "ENABLE_V6_EGRESS",
        "false",
        Fallback,
        "without: pods also reach IPv6 addresses, where the node has one",
    ),
    row(
        "AWS_VPC_K8S_EGRESS_V4_PLUGIN_LOG_FILE",
        "/var/log/aws-routed-eni/egress-v4-plugin.log",
        Refuse,
        "log of egress-cni, as the plugin's",
    ),
    row(
        "AWS_VPC_K8S_EGRESS_V6_PLUGIN_LOG_FILE",
        "/var/log/aws-routed-eni/egress-v6-plugin.log",
        Refuse,
        "the same without IPv6",
    ),
    row(
        "AWS_VPC_K8S_CNI_RANDOMIZESNAT",
        "prng",
        Fallback,
        "source ports of egress-cni's SNAT: prng, hashrandom or none",
    ),
    row(
        "ENABLE_BANDWIDTH_PLUGIN",
        "false",
        Fallback,
        "true: the plugin bandwidth is called as well",
    ),
    row(
        "DISABLE_POD_V6",
        "false",
        Fallback,
        "true: the plugin tuning switches IPv6 off in pods",
    ),
    row(
        "DISABLE_TCP_EARLY_DEMUX",
        "false",
        Fallback,
        "true: for kubelet's probes of pods with ENIs of their own",
    ),
];

/// The row of a variable.
pub(crate) fn find(name: &str) -> &'static Row {
    TABLE
        .iter()
        .find(|row| row.name == name)
        .expect("every variable that is read has a row (tested)")
}
