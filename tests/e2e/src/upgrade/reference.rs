//! The reference's state of a node, made by the programs that it uses and in the order in which it makes it at its start.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vpc_fabric::Node;
use vpc_fabric::node::CommandSpec;

use crate::runtime::Pod;

/// A hundred short programs on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// How the reference keeps its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// All by `iptables-legacy`.
    Legacy,
    /// All by `iptables-nft`, as releases before 1.23 do.
    Nft,
    /// Marks in a table of its own, the rest by `iptables-nft`.
    Native,
}

impl Variant {
    /// The program.
    pub(super) fn iptables(self) -> &'static str {
        match self {
            Self::Legacy => "iptables-legacy",
            Self::Nft | Self::Native => "iptables-nft",
        }
    }
}

/// What the reference knows of a node.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) node: &'a Node,
    /// Its primary address.
    pub(super) address: Ipv4Addr,
    /// The primary ENI's device.
    pub(super) device: String,
    /// Pods on the node.
    pub(super) pods: Vec<&'a Pod>,
}

impl<'a> Site<'a> {
    pub(super) fn of(node: &'a Node, address: Ipv4Addr, pods: &'a [Pod]) -> Result<Self> {
        let found = run(node, &format!("ip -o -4 address show to {address}"))?;
        let device = found
            .split_whitespace()
            .nth(1)
            .context("the primary address has a device")?;
        Ok(Self {
            node,
            address,
            device: device.to_owned(),
            pods: pods.iter().filter(|pod| pod.node == node.name()).collect(),
        })
    }

    /// The reference starts: rules first, then ENIs, then pods.
    pub(super) fn start(&self, variant: Variant, vpc: &str) -> Result<()> {
        run(self.node, &self.host_network(variant, vpc))?;
        run(self.node, &self.enis()?)?;
        run(self.node, &self.pod_rules())?;
        Ok(())
    }

    /// An older release that has wired the pods: of each ENI's pods one rule per network of the VPC.
    pub(super) fn old_pod_rules(&self, vpc: &str) -> Result<()> {
        let mut script = String::new();
        for pod in self.pods.iter().filter(|pod| pod.table != MAIN) {
            let (address, table) = (pod.address, pod.table);
            let _ = writeln!(script, "ip rule del from {address} priority 1536");
            let _ = writeln!(
                script,
                "ip rule add from {address} to {vpc} lookup {table} priority 1536"
            );
            let _ = writeln!(
                script,
                "ip rule add from {address} to 100.64.0.0/10 lookup {table} priority 1536"
            );
        }
        run(self.node, &script).map(drop)
    }

    fn host_network(&self, variant: Variant, vpc: &str) -> String {
        let Self { address, device, .. } = self;
        let ipt = variant.iptables();
        let mut script = format!(
            "ip rule del priority 1024 || true
             ip rule add fwmark 0x80/0x80 lookup main priority 1024
             {ipt} -w -t nat -N AWS-SNAT-CHAIN-0
             {ipt} -w -t nat -A POSTROUTING -m comment --comment 'AWS SNAT CHAIN' -j AWS-SNAT-CHAIN-0
             {ipt} -w -t nat -I AWS-SNAT-CHAIN-0 1 -d {vpc} -m comment --comment 'AWS SNAT CHAIN' -j RETURN
             {ipt} -w -t nat -A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment 'AWS, SNAT' -m addrtype ! --dst-type LOCAL -j SNAT --to-source {address} --random-fully
             {ipt} -w -t mangle -A PREROUTING -i {device} -m comment --comment 'AWS, primary ENI' -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80
             {ipt} -w -t mangle -A PREROUTING -i eni+ -m comment --comment 'AWS, primary ENI' -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
             {ipt} -w -t mangle -A PREROUTING -i vlan+ -m comment --comment 'AWS, primary ENI' -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
            ",
        );
        script.push_str(&match variant {
            Variant::Native => native(vpc),
            Variant::Legacy | Variant::Nft => format!(
                "{ipt} -w -t nat -N AWS-CONNMARK-CHAIN-0
                 {ipt} -w -t nat -A AWS-CONNMARK-CHAIN-0 -d {vpc} -m comment --comment 'AWS CONNMARK CHAIN' -j RETURN
                 {ipt} -w -t nat -A AWS-CONNMARK-CHAIN-0 -m comment --comment 'AWS, CONNMARK' -j CONNMARK --set-xmark 0x80/0x80
                 {ipt} -w -t nat -A PREROUTING -i eni+ -m comment --comment 'AWS, outbound connections' -j AWS-CONNMARK-CHAIN-0
                 {ipt} -w -t nat -A PREROUTING -m comment --comment 'AWS, CONNMARK' -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
                "
            ),
        });
        if variant == Variant::Legacy {
            script.push_str("nft list table ip aws-cni >/dev/null 2>&1 && nft delete table ip aws-cni || true\n");
        }
        script
    }

    /// Addresses and routes of every other ENI go and come again: a defect of the reference, and part of its start.
    fn enis(&self) -> Result<String> {
        let mut script = String::new();
        let rules = run(self.node, "ip rule list")?;
        for rule in rules.lines().filter(|line| line.starts_with("32765:")) {
            let mut words = rule.split_whitespace().skip(2);
            let (Some(address), Some(table)) = (words.next(), words.nth(1)) else {
                continue;
            };
            let shown = run(self.node, &format!("ip -o -4 address show to {address}"))?;
            let mut words = shown.split_whitespace().skip(1);
            let device = words.next().context("an ENI has a device")?;
            let network = words.nth(1).context("an ENI has a network")?;
            let octets: Vec<&str> = address.split('.').collect();
            let gateway = format!("{}.{}.{}.1", octets[0], octets[1], octets[2]);
            let _ = writeln!(
                script,
                "printf '%s\\n' 'address del {network} dev {device}' 'address add {network} dev {device} noprefixroute' \
                 'route replace {gateway} dev {device} scope link table {table}' \
                 'route replace default via {gateway} dev {device} table {table}' | ip -batch -"
            );
        }
        Ok(script)
    }

    /// All rules from a pod's address go, and one comes.
    fn pod_rules(&self) -> String {
        let mut script = String::new();
        for pod in self.pods.iter().filter(|pod| pod.table != MAIN) {
            let address = pod.address;
            let _ = writeln!(
                script,
                "while ip rule del from {address} priority 1536 2>/dev/null; do :; done"
            );
            let _ = writeln!(script, "ip rule add from {address} lookup {} priority 1536", pod.table);
        }
        script
    }

    /// Rules of the reference that are still there.
    pub(super) fn leftovers(&self) -> Result<Vec<String>> {
        let text = run(
            self.node,
            "iptables-nft-save 2>/dev/null; iptables-legacy-save 2>/dev/null",
        )?;
        Ok(text
            .lines()
            .filter(|line| line.contains("AWS"))
            .map(str::to_owned)
            .collect())
    }

    /// Clears the way for a start of another kind.
    pub(super) fn wipe(&self, variant: Variant) -> Result<()> {
        let ipt = variant.iptables();
        run(
            self.node,
            &format!(
                "{ipt} -w -t nat -F; {ipt} -w -t nat -X; {ipt} -w -t mangle -F
                 nft delete table ip aws-cni 2>/dev/null || true"
            ),
        )
        .map(drop)
    }

    /// What kube-proxy makes of a service of type NodePort with local endpoints: port `first` + n leads to the nth pod.
    pub(super) fn node_ports(&self, variant: Variant, first: u16, port: u16) -> Result<()> {
        let ipt = variant.iptables();
        let mut script = format!(
            "{ipt} -w -t nat -N KUBE-NODEPORTS
             {ipt} -w -t nat -I PREROUTING -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n"
        );
        for (pod, number) in self.pods.iter().zip(first..) {
            let address = pod.address;
            let _ = writeln!(
                script,
                "{ipt} -w -t nat -A KUBE-NODEPORTS -p tcp --dport {number} -j DNAT --to-destination {address}:{port}"
            );
        }
        run(self.node, &script).map(drop)
    }
}

/// Table of pods on the primary ENI.
const MAIN: u32 = 254;

/// Its own chains into a table that may hold ours: one of ours has the name of one of its, and makes way.
fn native(vpc: &str) -> String {
    format!(
        "nft -f - <<END
         add table ip aws-cni
         add chain ip aws-cni nat-prerouting
         delete chain ip aws-cni nat-prerouting
         table ip aws-cni {{
           chain snat-mark {{ counter ip daddr {vpc} return; counter ct mark set ct mark or 0x80; }}
           chain nat-prerouting {{
             type nat hook prerouting priority -90; policy accept;
             fib daddr type local return
             iifname \"eni*\" counter jump snat-mark
             counter meta mark set ct mark and 0x80
           }}
         }}
END
"
    )
}

/// Runs a shell script in the node; what it prints.
pub(super) fn run(node: &Node, script: &str) -> Result<String> {
    let command = CommandSpec::new("sh").args(["-e", "-c", script]);
    let output = node.output(&command, b"", DEADLINE)?;
    ensure!(
        output.status.success(),
        "on {}: {}\n{script}",
        node.name(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
