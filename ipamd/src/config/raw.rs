//! The variables, one row each: name, default, what a bad value leads to. Documentation and checks read this table.

/// What a value that does not parse leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBad {
    /// The default is used and a warning names the variable: running clusters may rely on that.
    Fallback,
    /// The daemon does not start.
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

/// Every variable that this daemon reads itself. Endpoints, proxies and credentials are in `cloud::VARIABLES`.
pub const TABLE: &[Row] = &[
    row(
        "ENABLE_PREFIX_DELEGATION",
        "false",
        Fallback,
        "true: addresses come as /28 prefixes, where the instance type can have them",
    ),
    row(
        "WARM_ENI_TARGET",
        "",
        Fallback,
        "whole ENIs' worth of free addresses to keep; without prefixes only",
    ),
    row(
        "WARM_PREFIX_TARGET",
        "",
        Fallback,
        "free prefixes to keep; with prefixes only",
    ),
    row(
        "WARM_IP_TARGET",
        "",
        Fallback,
        "free addresses to keep; not 0 replaces WARM_ENI_TARGET and WARM_PREFIX_TARGET",
    ),
    row(
        "MINIMUM_IP_TARGET",
        "",
        Fallback,
        "addresses to hold in all; not 0 replaces WARM_ENI_TARGET and WARM_PREFIX_TARGET",
    ),
    row(
        "MAX_ENI",
        "-1",
        Fallback,
        "most ENIs, if below the instance's own limit",
    ),
    row(
        "IP_COOLDOWN_PERIOD",
        "30",
        Refuse,
        "seconds an address rests between two pods; 12 at least",
    ),
    row(
        "ENABLE_SUBNET_DISCOVERY",
        "true",
        Fallback,
        "new ENIs go to the subnets of the zone whose tags allow it; false: to the primary ENI's subnet",
    ),
    row(
        "MANAGE_UNTAGGED_ENI",
        "true",
        Fallback,
        "false: ENIs with neither our instance tag nor the tag no_manage are left alone",
    ),
    row(
        "DISABLE_NETWORK_RESOURCE_PROVISIONING",
        "false",
        Fallback,
        "true: nothing is changed at EC2, only looked at",
    ),
    row(
        "ENABLE_IMDS_ONLY_MODE",
        "false",
        Fallback,
        "true: EC2 is not even asked; IMDS tells what the node has",
    ),
    row(
        "DISABLE_LEAKED_ENI_CLEANUP",
        "false",
        Fallback,
        "true: ENIs that other nodes of the cluster left behind are not looked for",
    ),
    row(
        "AWS_MANAGE_ENIS_NON_SCHEDULABLE",
        "false",
        Fallback,
        "true: a cordoned node goes on growing and shrinking its pool, as every node does so far: cordons are not read yet",
    ),
    row("AWS_VPC_ENI_MTU", "9001", Refuse, "MTU of ENIs, 576 to 9001"),
    row(
        "AWS_VPC_K8S_CNI_VETHPREFIX",
        "eni",
        Refuse,
        "beginning of host veth names, 1 to 4 characters",
    ),
    row(
        "AWS_VPC_K8S_CNI_CONNMARK",
        "0x80",
        Fallback,
        "mark of connections that leave by the primary ENI: 1 to 0xffffffff, written as in Go",
    ),
    row(
        "AWS_VPC_K8S_CNI_EXTERNALSNAT",
        "false",
        Fallback,
        "true: a NAT gateway does the SNAT, we do none",
    ),
    row(
        "AWS_VPC_K8S_CNI_RANDOMIZESNAT",
        "prng",
        Fallback,
        "source ports of SNAT: prng, hashrandom or none",
    ),
    row(
        "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS",
        "",
        Fallback,
        "IPv4 ranges, comma-separated, that are reached without SNAT",
    ),
    row(
        "AWS_EXTERNAL_SERVICE_CIDRS",
        "",
        Fallback,
        "IPv4 ranges, comma-separated, that pods of every ENI reach through the primary ENI",
    ),
    row(
        "AWS_VPC_CNI_NODE_PORT_SUPPORT",
        "true",
        Fallback,
        "keep replies of NodePort connections on the primary ENI",
    ),
    row(
        "CLUSTER_NAME",
        "",
        Fallback,
        "cluster name: for ENI tags, and for which subnets and left-over ENIs are ours",
    ),
    row(
        "ADDITIONAL_ENI_TAGS",
        "{}",
        Fallback,
        "further ENI tags, a JSON object of texts",
    ),
    row(
        "NETWORK_POLICY_ENFORCING_MODE",
        "",
        Refuse,
        "none, standard or strict; unset: no network policy agent",
    ),
    row(
        "AWS_VPC_K8S_CNI_BACKING_STORE",
        "/var/run/aws-node/ipam.json",
        Fallback,
        "file with the leases",
    ),
    row(
        "AWS_VPC_K8S_CNI_LOGLEVEL",
        "info",
        Fallback,
        "error, warn, info or debug",
    ),
    row(
        "AWS_VPC_K8S_CNI_LOG_FILE",
        "/host/var/log/aws-routed-eni/ipamd.log",
        Fallback,
        "log file, or stdout, or stderr",
    ),
    row(
        "ENABLE_IPv4",
        "true",
        Fallback,
        "false stops the daemon: not possible yet",
    ),
    row("ENABLE_IPv6", "false", Refuse, "true is not possible yet"),
    row(
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG",
        "false",
        Refuse,
        "true is not possible yet",
    ),
    row("ENABLE_POD_ENI", "false", Refuse, "true is not possible yet"),
    row("ENABLE_MULTI_NIC", "false", Refuse, "true is not possible yet"),
    row(
        "VPC_CNI_ROOT",
        "",
        Refuse,
        "directory that stands for / in all our paths: many nodes on one machine",
    ),
    row(
        "VPC_CNI_HEALTH_ADDRESS",
        "127.0.0.1:50051",
        Fallback,
        "TCP address of the health service; empty: none",
    ),
    row(
        "VPC_CNI_TIMERS",
        "",
        Refuse,
        "for demonstrations and tests: name=seconds, comma-separated",
    ),
];
