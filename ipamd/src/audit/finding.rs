//! Kinds of disagreement, and what each means to an operator. No judgement here.

use std::net::Ipv4Addr;

use vpc_types::{EniId, MacAddress, RouteTableId};

/// One disagreement, with the object it is about. Pods are named `namespace/name`, or by their container id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A pod's lease, and no host veth of its container.
    LeaseWithoutVeth { pod: String, address: Ipv4Addr },
    /// A pod's lease, and no /32 route to its address.
    LeaseWithoutRoute { pod: String, address: Ipv4Addr },
    /// A pod's lease, and the route of its address leads to another device.
    WrongRoute {
        pod: String,
        address: Ipv4Addr,
        device: String,
    },
    /// A pod's lease, and no rule of this priority for its address.
    LeaseWithoutRule {
        pod: String,
        address: Ipv4Addr,
        priority: u32,
    },
    /// A rule of a pod's address that looks in another table than its ENI's.
    WrongTable {
        pod: String,
        address: Ipv4Addr,
        priority: u32,
        found: RouteTableId,
        expected: RouteTableId,
    },
    /// One address in two leases.
    TwoPodsOneAddress { address: Ipv4Addr, pods: Vec<String> },
    /// A host veth of a container that has no lease.
    VethWithoutLease { device: String, container: String },
    /// A rule for an address that nobody leases.
    RuleWithoutLease { address: Ipv4Addr, priority: u32 },
    /// A route to a pod's device for an address that nobody leases.
    StaleRoute { address: Ipv4Addr, device: String },
    /// The daemon lets an address rest, and the kernel shows life on it.
    CoolingWithSigns { address: Ipv4Addr },
    /// A rule in a priority of ours that selects by something else than an address.
    ForeignRule { priority: u32 },
    /// No device has the MAC of an ENI.
    EniWithoutDevice { eni: EniId, mac: MacAddress },
    /// An ENI's table has no way out.
    MissingEniTable { eni: EniId, table: RouteTableId },
    /// An ENI's table leads out by another device.
    WrongEniTable { eni: EniId, table: RouteTableId },
    /// No rule leads from an ENI's own address to its table.
    MissingEniRule {
        eni: EniId,
        address: Ipv4Addr,
        table: RouteTableId,
    },
    /// A rule of an ENI that the daemon does not know.
    RuleWithoutEni { address: Ipv4Addr },
    /// The rule for marked connections is missing, or there without need.
    MarkRule,
    /// The rules for external services are not as they should be.
    ServiceRules,
    /// The nftables table differs.
    NodeTable { difference: String },
    /// Rules of the reference are still there.
    ReferenceRules { program: &'static str, rules: usize },
    /// EC2 shows an ENI here that the daemon does not know.
    EniUnknown { eni: EniId },
    /// The daemon has an ENI that EC2 does not show on this instance.
    EniNotAtEc2 { eni: EniId },
    /// The daemon has an address that EC2 does not show on its ENI.
    AddressNotAtEc2 {
        address: Ipv4Addr,
        eni: Option<EniId>,
        pod: Option<String>,
    },
    /// EC2 shows an address that the daemon does not know.
    AddressAtEc2UnknownToPool { address: Ipv4Addr, eni: EniId },
    /// EC2 shows an address on another ENI than the daemon.
    AddressOnOtherEni {
        address: Ipv4Addr,
        eni: EniId,
        at_ec2: EniId,
    },
}

/// What a finding is about, for programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object<'a> {
    /// An address.
    pub address: Option<Ipv4Addr>,
    /// An ENI.
    pub eni: Option<&'a EniId>,
    /// A pod.
    pub pod: Option<&'a str>,
    /// A device of the node.
    pub device: Option<&'a str>,
}

impl Finding {
    /// A stable word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::LeaseWithoutVeth { .. } => "LeaseWithoutVeth",
            Self::LeaseWithoutRoute { .. } => "LeaseWithoutRoute",
            Self::WrongRoute { .. } => "WrongRoute",
            Self::LeaseWithoutRule { .. } => "LeaseWithoutRule",
            Self::WrongTable { .. } => "WrongTable",
            Self::TwoPodsOneAddress { .. } => "TwoPodsOneAddress",
            Self::VethWithoutLease { .. } => "VethWithoutLease",
            Self::RuleWithoutLease { .. } => "RuleWithoutLease",
            Self::StaleRoute { .. } => "StaleRoute",
            Self::CoolingWithSigns { .. } => "CoolingWithSigns",
            Self::ForeignRule { .. } => "ForeignRule",
            Self::EniWithoutDevice { .. } => "EniWithoutDevice",
            Self::MissingEniTable { .. } => "MissingEniTable",
            Self::WrongEniTable { .. } => "WrongEniTable",
            Self::MissingEniRule { .. } => "MissingEniRule",
            Self::RuleWithoutEni { .. } => "RuleWithoutEni",
            Self::MarkRule => "MarkRule",
            Self::ServiceRules => "ServiceRules",
            Self::NodeTable { .. } => "NodeTable",
            Self::ReferenceRules { .. } => "ReferenceRules",
            Self::EniUnknown { .. } => "EniUnknown",
            Self::EniNotAtEc2 { .. } => "EniNotAtEc2",
            Self::AddressNotAtEc2 { .. } => "AddressNotAtEc2",
            Self::AddressAtEc2UnknownToPool { .. } => "AddressAtEc2UnknownToPool",
            Self::AddressOnOtherEni { .. } => "AddressOnOtherEni",
        }
    }

    /// What it is about.
    pub fn object(&self) -> Object<'_> {
        let mut object = Object::default();
        match self {
            Self::LeaseWithoutVeth { pod, address }
            | Self::LeaseWithoutRoute { pod, address }
            | Self::LeaseWithoutRule { pod, address, .. }
            | Self::WrongTable { pod, address, .. } => {
                (object.pod, object.address) = (Some(pod.as_str()), Some(*address));
            }
            Self::WrongRoute { pod, address, device } => {
                (object.pod, object.address, object.device) =
                    (Some(pod.as_str()), Some(*address), Some(device.as_str()));
            }
            Self::TwoPodsOneAddress { address, .. }
            | Self::RuleWithoutLease { address, .. }
            | Self::CoolingWithSigns { address }
            | Self::RuleWithoutEni { address } => object.address = Some(*address),
            Self::VethWithoutLease { device, .. } => object.device = Some(device),
            Self::StaleRoute { address, device } => {
                (object.address, object.device) = (Some(*address), Some(device.as_str()));
            }
            Self::EniWithoutDevice { eni, .. }
            | Self::MissingEniTable { eni, .. }
            | Self::WrongEniTable { eni, .. }
            | Self::EniUnknown { eni }
            | Self::EniNotAtEc2 { eni } => object.eni = Some(eni),
            Self::MissingEniRule { eni, address, .. }
            | Self::AddressAtEc2UnknownToPool { address, eni }
            | Self::AddressOnOtherEni { address, eni, .. } => {
                (object.address, object.eni) = (Some(*address), Some(eni));
            }
            Self::AddressNotAtEc2 { address, eni, pod } => {
                (object.address, object.eni, object.pod) = (Some(*address), eni.as_ref(), pod.as_deref());
            }
            Self::ForeignRule { .. }
            | Self::MarkRule
            | Self::ServiceRules
            | Self::NodeTable { .. }
            | Self::ReferenceRules { .. } => {}
        }
        object
    }

    /// One sentence: what it means, and what to do.
    pub fn text(&self) -> String {
        self.of_pod()
            .or_else(|| self.of_nobody())
            .or_else(|| self.of_node())
            .unwrap_or_else(|| self.of_ec2())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other findings have functions of their own"
    )]
    fn of_pod(&self) -> Option<String> {
        Some(match self {
            Self::LeaseWithoutVeth { pod, address } => format!(
                "{pod} holds {address} but its host veth is gone: if the sandbox is gone too, the daemon takes the address \
                 back within about a minute; if the pod runs, it has no network: delete it"
            ),
            Self::LeaseWithoutRoute { pod, address } => format!(
                "there is no route to {address} of {pod}, so nothing reaches it: delete the pod, and find out who removes \
                 routes from table main"
            ),
            Self::WrongRoute { pod, address, device } => format!(
                "the route to {address} of {pod} leads to {device}, which is another sandbox's: its packets go astray; \
                 delete both pods"
            ),
            Self::LeaseWithoutRule { pod, address, priority } => format!(
                "rule {priority} for {address} of {pod} is gone, so its packets take a wrong way: delete the pod, and find \
                 out who removes rules"
            ),
            Self::WrongTable {
                pod,
                address,
                priority,
                found,
                expected,
            } => format!(
                "rule {priority} for {address} of {pod} looks in table {found} instead of {expected}, so the VPC drops its \
                 packets: delete the pod, and find out who changes rules",
                found = found.0,
                expected = expected.0
            ),
            Self::TwoPodsOneAddress { address, pods } => format!(
                "{address} is leased to {}: this must never be; delete these pods and report a bug",
                pods.join(" and to ")
            ),
            _ => return None,
        })
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other findings have functions of their own"
    )]
    fn of_nobody(&self) -> Option<String> {
        Some(match self {
            Self::VethWithoutLease { device, container } => format!(
                "{device} belongs to sandbox {container}, which holds no lease: if the runtime does not know the sandbox, \
                 delete the device with `ip link delete {device}`"
            ),
            Self::RuleWithoutLease { address, priority } => format!(
                "rule {priority} names {address}, which nobody leases: if no pod and no other program uses it, delete the \
                 rule; until then the address is not granted"
            ),
            Self::StaleRoute { address, device } => format!(
                "the route to {address} leads to {device}, though nobody leases the address: it is not granted until the \
                 device is gone; delete that sandbox if the runtime still has it"
            ),
            Self::CoolingWithSigns { address } => format!(
                "{address} rests between two pods, and still has a rule or a route: the daemon withholds it as soon as it \
                 looks; find out who made them"
            ),
            Self::ForeignRule { priority } => format!(
                "another program has a rule of priority {priority}, which stands among those of pods and may send their \
                 packets elsewhere: give it another priority"
            ),
            _ => return None,
        })
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other findings have functions of their own"
    )]
    fn of_node(&self) -> Option<String> {
        Some(match self {
            Self::EniWithoutDevice { eni, mac } => format!(
                "no device has {mac}, the MAC of {eni}: its pods have no network; if it does not appear within minutes, \
                 detach the ENI or replace the node"
            ),
            Self::MissingEniTable { eni, table } => format!(
                "table {} of {eni} has no default route, so its pods reach nothing outside the node: restart the daemon, \
                 which sets it up again",
                table.0
            ),
            Self::WrongEniTable { eni, table } => format!(
                "table {} of {eni} leads out by another device, so the VPC drops its pods' packets: restart the daemon, \
                 which sets it up again",
                table.0
            ),
            Self::MissingEniRule { eni, address, table } => format!(
                "rule 32765 for {address}, the own address of {eni}, does not lead to table {} alone: restart the daemon, which \
                 sets it up again, and delete rules to other tables",
                table.0
            ),
            Self::RuleWithoutEni { address } => format!(
                "a rule of priority 32765 names {address}, which is no ENI's: it may be left from an ENI that was detached \
                 by hand; delete it"
            ),
            Self::MarkRule => {
                "the rule for marked connections (1024) is not as the settings want it, so connections by the \
                               primary ENI break: the daemon restores it within half a minute"
                    .to_owned()
            }
            Self::ServiceRules => {
                "the rules for external services (1535) are not what AWS_EXTERNAL_SERVICE_CIDRS names: the \
                                   daemon restores them within half a minute"
                    .to_owned()
            }
            Self::NodeTable { difference } => format!(
                "nftables table ip aws-cni differs ({difference}), so connections that leave the VPC break: the daemon \
                 restores it within half a minute; find out who changes it"
            ),
            Self::ReferenceRules { program, rules } => format!(
                "{rules} rules of the reference's iptables chains are left ({program}): they do no harm until the VPC gains a \
                 range, which they would translate; the daemon's log says why it could not remove them at its start"
            ),
            _ => return None,
        })
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other findings have functions of their own"
    )]
    fn of_ec2(&self) -> String {
        match self {
            Self::EniUnknown { eni } => format!(
                "EC2 shows {eni} on this instance, and the daemon does not know it: attached by hand? The daemon adopts it \
                 at its next look, at the latest when it restarts"
            ),
            Self::EniNotAtEc2 { eni } => format!(
                "EC2 does not show {eni} on this instance, though the daemon counts on it: detached by hand? Drain the \
                 node if pods use it"
            ),
            Self::AddressNotAtEc2 { address, pod, .. } => match pod {
                Some(pod) => format!(
                    "{pod} uses {address}, which EC2 does not give to this ENI: somebody may have unassigned it, and \
                     another instance may get it; delete the pod"
                ),
                None => format!(
                    "EC2 does not show {address}, which the daemon would grant: somebody unassigned it; restart the \
                     daemon, so that it looks"
                ),
            },
            Self::AddressAtEc2UnknownToPool { address, eni } => format!(
                "EC2 shows {address} on {eni}, and the daemon does not know it: assigned by hand? The daemon adopts it at \
                 its next look, at the latest when it restarts"
            ),
            Self::AddressOnOtherEni { address, eni, at_ec2 } => format!(
                "EC2 shows {address} on {at_ec2}, the daemon has it on {eni}, so packets leave by the wrong ENI: restart \
                 the daemon, and delete the pod that uses it"
            ),
            _ => String::new(),
        }
    }
}
