//! The rules that the reference makes on a node, in the order in which it makes them, and those of others around them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use datapath::takeover::Variant;

/// A node with one VPC network and one excluded one, a leftover chain of an older release included.
pub(crate) const REFERENCE: &[&str] = &[
    "-t nat -N AWS-SNAT-CHAIN-0",
    "-t nat -N AWS-SNAT-CHAIN-1",
    "-t nat -A POSTROUTING -m comment --comment|AWS SNAT CHAIN|-j AWS-SNAT-CHAIN-0",
    "-t nat -A AWS-SNAT-CHAIN-0 -d 192.168.0.0/16 -m comment --comment|AWS SNAT CHAIN EXCLUSION|-j RETURN",
    "-t nat -A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16 -m comment --comment|AWS SNAT CHAIN|-j RETURN",
    "-t nat -A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment|AWS, SNAT|-m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.1.10 --random-fully",
    "-t nat -A AWS-SNAT-CHAIN-0 ! -d 10.0.0.0/16 -m comment --comment|AWS SNAT CHAN|-j AWS-SNAT-CHAIN-1",
    "-t nat -A AWS-SNAT-CHAIN-1 -m comment --comment|AWS, SNAT|-j SNAT --to-source 10.0.1.10 --random",
    "-t nat -N AWS-CONNMARK-CHAIN-0",
    "-t nat -A PREROUTING -i eni+ -m comment --comment|AWS, outbound connections|-m state --state NEW -j AWS-CONNMARK-CHAIN-0",
    "-t nat -A PREROUTING -i eni+ -m comment --comment|AWS, outbound connections|-j AWS-CONNMARK-CHAIN-0",
    "-t nat -A AWS-CONNMARK-CHAIN-0 -d 10.0.0.0/16 -m comment --comment|AWS CONNMARK CHAIN|-j RETURN",
    "-t nat -A AWS-CONNMARK-CHAIN-0 -m comment --comment|AWS, CONNMARK|-j CONNMARK --set-xmark 0x80/0x80",
    "-t nat -A PREROUTING -m comment --comment|AWS, CONNMARK|-j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80",
    "-t mangle -A PREROUTING -i ens5 -m comment --comment|AWS, primary ENI|-m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80",
    "-t mangle -A PREROUTING -i eni+ -m comment --comment|AWS, primary ENI|-j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80",
    "-t mangle -A PREROUTING -i vlan+ -m comment --comment|AWS, primary ENI|-j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80",
];

/// What makes way for a state of its own.
pub(crate) const CLEAN: &[&str] = &["-t mangle -F PREROUTING"];

/// kube-proxy, portmap, an administrator, and the reference's chains that must outlive it.
const OTHERS: &[&str] = &[
    "-t nat -N KUBE-SERVICES",
    "-t nat -N KUBE-SVC-1",
    "-t nat -N KUBE-POSTROUTING",
    "-t nat -N CNI-HOSTPORT-DNAT",
    "-t nat -N CNI-E6-0123456789abcdef",
    "-t nat -A PREROUTING -m comment --comment|kubernetes service portals|-j KUBE-SERVICES",
    "-t nat -A OUTPUT -m comment --comment|kubernetes service portals|-j KUBE-SERVICES",
    "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    "-t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 8080 -j DNAT --to-destination 10.0.1.21:80",
    "-t nat -A KUBE-SERVICES -d 172.20.0.10/32 -p tcp --dport 80 -m comment --comment|default/web cluster IP|-j KUBE-SVC-1",
    "-t nat -A KUBE-SVC-1 -m statistic --mode random --probability 0.5 -j DNAT -p tcp --to-destination 10.0.1.20:80",
    "-t nat -A KUBE-SVC-1 -j MARK --set-xmark 0x4000/0x4000",
    "-t nat -A KUBE-SVC-1",
    "-t nat -A POSTROUTING -m comment --comment|kubernetes postrouting rules|-j KUBE-POSTROUTING",
    "-t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
    "-t nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    "-t nat -A POSTROUTING -s 169.254.172.9/32 -m comment --comment|name: \"egress-v4-cni\" id: \"1\"|-j CNI-E6-0123456789abcdef",
    "-t nat -A CNI-E6-0123456789abcdef -j SNAT --to-source 10.0.1.10",
    "-t mangle -A PREROUTING -m comment --comment|mine|-j CONNMARK --restore-mark",
    "-t mangle -A PREROUTING -m comment --comment|AWS, primary ENI|-j MARK --set-xmark 0x1/0x1",
    "-t filter -A FORWARD -d 169.254.172.0/22 -m conntrack --ctstate NEW -m comment --comment|Block Node Local Pod access via IPv4|-j REJECT",
    "-t filter -A INPUT -p tcp --dport 22 -j ACCEPT",
];

/// By which xtables programs exclude each other: the usual file is root's.
pub(crate) fn lock() -> PathBuf {
    std::env::temp_dir().join(format!("xtables-{}.lock", std::process::id()))
}

/// Everything that is not to be removed.
pub(crate) fn state_of_others(variant: Variant) {
    for rule in OTHERS {
        iptables(variant, rule);
    }
}

/// Runs the program with words parted by spaces, or by bars where a word has spaces.
pub(crate) fn iptables(variant: Variant, rule: &str) {
    let words: Vec<&str> = if rule.contains('|') {
        let parts = rule.split('|').enumerate();
        let split = parts.flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        });
        split.collect()
    } else {
        rule.split_whitespace().collect()
    };
    let output = Command::new(variant.program())
        .env("XTABLES_LOCKFILE", lock())
        .arg("-w")
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("this test needs {}: {error}", variant.program()));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {rule}: {error}", variant.program());
}

/// What the program would save, without times and counts.
pub(crate) fn saved(variant: Variant) -> Vec<String> {
    let text = run(&format!("{}-save", variant.program()), "");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    // A chain's counts follow its name and policy.
    lines
        .map(|line| line.split(" [").next().unwrap_or_default().to_owned())
        .collect()
}

/// What a program prints.
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Adds a saved ruleset.
pub(crate) fn restore(variant: Variant, text: &str) {
    let mut child = Command::new(format!("{}-restore", variant.program()))
        .env("XTABLES_LOCKFILE", lock())
        .arg("--noflush")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Loads an nft script.
pub(crate) fn nft(script: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
