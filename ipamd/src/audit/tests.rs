//! One deliberate defect per kind of finding, in a node that agrees otherwise.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{LeaseState, WallTime};
use vpc_types::{EniId, MacAddress, RouteTableId};

use super::*;

const PRIMARY: &str = "eni-0000000000000000a";
const SECOND: &str = "eni-0000000000000000b";
const NOW: WallTime = WallTime(Duration::from_secs(1_000_000));
const JUST_NOW: u64 = 999_990_000_000_000;
const SECOND_TABLE: RouteTableId = RouteTableId(2);

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

fn id(text: &str) -> EniId {
    EniId::parse(text).unwrap()
}

/// A node with two ENIs; `web` on the first, `db` on the second, one address free and one resting on each.
#[derive(Clone)]
struct World {
    before: Account,
    after: Account,
    looks: Looks,
}

fn lease(pod: &str, address: Ipv4Addr, table: RouteTableId) -> LeaseAccount {
    LeaseAccount {
        pod: format!("default/{pod}"),
        container: format!("container-{pod}"),
        interface: "eth0".to_owned(),
        host_veth: format!("eni{pod}"),
        address,
        table,
        state: LeaseState::Wired,
        granted_at: JUST_NOW,
    }
}

fn eni(number: u8, table: RouteTableId, role: Role, addresses: &[(u8, AddressKind)]) -> EniAccount {
    let address = |(last, state): &(u8, AddressKind)| {
        (
            ip(*last),
            AddressAccount {
                state: *state,
                since: 1,
            },
        )
    };
    EniAccount {
        mac: MacAddress([2, 0, 0, 0, 0, number]),
        table,
        primary: ip(number),
        role,
        state: EniPhase::Ready,
        in_motion: false,
        addresses: addresses.iter().map(address).collect(),
    }
}

fn world() -> World {
    let account = Account {
        enis: BTreeMap::from([
            (
                id(PRIMARY),
                eni(
                    10,
                    RouteTableId::MAIN,
                    Role::Primary,
                    &[
                        (11, AddressKind::Leased),
                        (12, AddressKind::Free),
                        (13, AddressKind::Cooling),
                    ],
                ),
            ),
            (
                id(SECOND),
                eni(
                    20,
                    SECOND_TABLE,
                    Role::Managed,
                    &[
                        (21, AddressKind::Leased),
                        (22, AddressKind::Free),
                        (23, AddressKind::Cooling),
                    ],
                ),
            ),
        ]),
        leases: vec![
            lease("web", ip(11), RouteTableId::MAIN),
            lease("db", ip(21), SECOND_TABLE),
        ],
    };
    let veth = |pod: &str| (format!("eni{pod}"), Some(format!("container-{pod}")));
    let kernel = KernelLook {
        veths: BTreeMap::from([veth("web"), veth("db")]),
        routes: BTreeMap::from([(ip(11), "eniweb".to_owned()), (ip(21), "enidb".to_owned())]),
        to_pod: BTreeMap::from([(ip(11), vec![RouteTableId::MAIN]), (ip(21), vec![RouteTableId::MAIN])]),
        from_pod: BTreeMap::from([(ip(21), vec![SECOND_TABLE])]),
        from_eni: BTreeMap::from([(ip(20), vec![SECOND_TABLE])]),
        odd_rules: Vec::new(),
        devices: account
            .enis
            .values()
            .map(|eni| (eni.mac, format!("eth{}", eni.table.0)))
            .collect(),
        ways_out: BTreeMap::from([(SECOND_TABLE, vec!["eth2".to_owned()])]),
    };
    let at_ec2 = |eni: &EniAccount| EniLook {
        in_motion: false,
        addresses: eni.addresses.keys().copied().collect(),
    };
    let ec2 = Ec2Look {
        enis: account.enis.iter().map(|(id, eni)| (id.clone(), at_ec2(eni))).collect(),
    };
    World {
        before: account.clone(),
        after: account,
        looks: Looks {
            kernel: Some(kernel),
            node: Some(NodeLook::default()),
            leftovers: Vec::new(),
            ec2: Some(ec2),
        },
    }
}

impl World {
    /// Both accounts.
    fn account(&mut self, change: impl Fn(&mut Account)) {
        change(&mut self.before);
        change(&mut self.after);
    }

    fn kernel(&mut self) -> &mut KernelLook {
        self.looks.kernel.as_mut().unwrap()
    }

    fn ec2(&mut self, eni: &str) -> &mut EniLook {
        self.looks.ec2.as_mut().unwrap().enis.entry(id(eni)).or_default()
    }

    fn settled(&self) -> Settled {
        Settled::between(&self.before, &self.after, NOW)
    }

    fn kinds(&self) -> Vec<&'static str> {
        let findings = audit(&self.settled(), &self.looks);
        findings.iter().map(Finding::kind).collect()
    }
}

type Defect = fn(&mut World);

const DEFECTS: &[(&str, Defect)] = &[
    ("LeaseWithoutVeth", |world| {
        world.kernel().veths.remove("eniweb");
        world.kernel().routes.remove(&ip(11));
    }),
    ("LeaseWithoutRoute", |world| {
        world.kernel().routes.remove(&ip(11));
    }),
    ("WrongRoute", |world| {
        world.kernel().routes.insert(ip(11), "enidb".to_owned());
    }),
    ("LeaseWithoutRule", |world| {
        world.kernel().to_pod.remove(&ip(11));
    }),
    ("LeaseWithoutRule", |world| {
        world.kernel().from_pod.remove(&ip(21));
    }),
    ("WrongTable", |world| {
        world
            .kernel()
            .from_pod
            .insert(ip(21), vec![SECOND_TABLE, RouteTableId(3)]);
    }),
    ("WrongTable", |world| {
        world.kernel().from_pod.insert(ip(11), vec![SECOND_TABLE]);
    }),
    ("TwoPodsOneAddress", |world| {
        world.account(|account| account.leases[1] = lease("db", ip(11), RouteTableId::MAIN));
        world.kernel().routes.remove(&ip(21));
        world.kernel().to_pod.remove(&ip(21));
        world.kernel().from_pod.remove(&ip(21));
    }),
    ("VethWithoutLease", |world| {
        let veth = ("enix".to_owned(), Some("container-x".to_owned()));
        world.kernel().veths.extend([veth]);
    }),
    ("RuleWithoutLease", |world| {
        world.kernel().to_pod.insert(ip(12), vec![RouteTableId::MAIN]);
    }),
    ("RuleWithoutLease", |world| {
        world.kernel().from_pod.insert(ip(99), vec![RouteTableId(7)]);
    }),
    ("StaleRoute", |world| {
        world.kernel().routes.insert(ip(12), "eniweb".to_owned());
    }),
    ("CoolingWithSigns", |world| {
        world.kernel().to_pod.insert(ip(13), vec![RouteTableId::MAIN]);
    }),
    ("ForeignRule", |world| world.kernel().odd_rules.push(512)),
    ("EniWithoutDevice", |world| {
        world.kernel().devices.remove(&MacAddress([2, 0, 0, 0, 0, 20]));
    }),
    ("MissingEniTable", |world| {
        world.kernel().ways_out.remove(&SECOND_TABLE);
    }),
    ("WrongEniTable", |world| {
        world.kernel().ways_out.insert(SECOND_TABLE, vec!["eth254".to_owned()]);
    }),
    ("MissingEniRule", |world| {
        world.kernel().from_eni.remove(&ip(20));
    }),
    ("RuleWithoutEni", |world| {
        world.kernel().from_eni.insert(ip(77), vec![RouteTableId(9)]);
    }),
    ("MarkRule", |world| {
        world.looks.node.as_mut().unwrap().mark_rule = Judgement::Wrong;
    }),
    ("ServiceRules", |world| {
        world.looks.node.as_mut().unwrap().service_rules = Judgement::Wrong;
    }),
    ("NodeTable", |world| {
        world.looks.node.as_mut().unwrap().table = Some("the table is missing".to_owned());
    }),
    ("EniUnknown", |world| {
        world.ec2("eni-0000000000000000c");
    }),
    ("EniNotAtEc2", |world| {
        world.looks.ec2.as_mut().unwrap().enis.remove(&id(PRIMARY));
        // The lease on it then is not at EC2 either; it is the ENI that is told.
        world.account(|account| {
            account.leases.remove(0);
        });
        let mut kernel = world.looks.kernel.take().unwrap();
        kernel.veths.remove("eniweb");
        kernel.routes.remove(&ip(11));
        kernel.to_pod.remove(&ip(11));
        world.looks.kernel = Some(kernel);
    }),
    ("AddressNotAtEc2", |world| {
        world.ec2(PRIMARY).addresses.remove(&ip(11));
    }),
    ("AddressNotAtEc2", |world| {
        world.ec2(PRIMARY).addresses.remove(&ip(12));
    }),
    ("AddressAtEc2UnknownToPool", |world| {
        world.ec2(SECOND).addresses.insert(ip(24));
    }),
    ("AddressOnOtherEni", |world| {
        world.ec2(PRIMARY).addresses.remove(&ip(12));
        world.ec2(SECOND).addresses.insert(ip(12));
    }),
];

#[test]
fn a_node_that_agrees_has_no_finding() {
    assert_eq!(world().kinds(), Vec::<&str>::new());
    assert_eq!(world().settled().in_motion(), 0);
}

#[test]
fn each_defect_is_found_as_what_it_is_and_nothing_else() {
    for (kind, defect) in DEFECTS {
        let mut world = world();
        defect(&mut world);
        assert_eq!(world.kinds(), [*kind]);
        for finding in audit(&world.settled(), &world.looks) {
            assert!(finding.text().len() > 40, "{finding:?} says {:?}", finding.text());
        }
    }
}

#[test]
fn a_lease_that_came_or_went_between_the_accounts_is_no_finding() {
    for changes in ["before", "after"] {
        let mut world = world();
        let account = if changes == "before" {
            &mut world.before
        } else {
            &mut world.after
        };
        account.leases.remove(0);
        let address = account
            .enis
            .get_mut(&id(PRIMARY))
            .unwrap()
            .addresses
            .get_mut(&ip(11))
            .unwrap();
        address.state = AddressKind::Free;
        let mut without = world.clone();
        without.kernel().veths.remove("eniweb");
        without.kernel().routes.remove(&ip(11));
        without.kernel().to_pod.remove(&ip(11));
        assert_eq!(world.kinds(), Vec::<&str>::new(), "wired, absent {changes}");
        assert_eq!(without.kinds(), Vec::<&str>::new(), "not wired, absent {changes}");
        assert_eq!(world.settled().in_motion(), 1);
    }
}

#[test]
fn leases_that_are_being_wired_or_cleared_are_no_findings() {
    for state in [LeaseState::Granted, LeaseState::Draining] {
        let mut world = world();
        world.account(|account| account.leases[1].state = state);
        world.kernel().from_pod.clear();
        world.kernel().routes.remove(&ip(21));
        assert_eq!(world.kinds(), Vec::<&str>::new(), "{state:?}");
    }
}

#[test]
fn an_address_that_was_used_between_the_accounts_is_no_finding() {
    let mut world = world();
    let address = |account: &mut Account| {
        account
            .enis
            .get_mut(&id(PRIMARY))
            .unwrap()
            .addresses
            .get_mut(&ip(13))
            .unwrap()
            .since = 2;
    };
    address(&mut world.after);
    world.kernel().to_pod.insert(ip(13), vec![RouteTableId::MAIN]);
    assert_eq!(world.kinds(), Vec::<&str>::new());
}

#[test]
fn an_eni_that_is_worked_on_is_compared_with_nothing() {
    let mut world = world();
    world.account(|account| {
        account.leases.remove(1);
        account.enis.get_mut(&id(SECOND)).unwrap().in_motion = true;
    });
    let kernel = world.kernel();
    kernel.veths.remove("enidb");
    kernel.routes.remove(&ip(21));
    kernel.to_pod.remove(&ip(21));
    kernel.from_pod.remove(&ip(21));
    kernel.from_eni.clear();
    kernel.ways_out.clear();
    world.looks.ec2.as_mut().unwrap().enis.remove(&id(SECOND));
    assert_eq!(world.kinds(), Vec::<&str>::new());
}

#[test]
fn what_was_not_looked_at_is_not_compared() {
    let mut world = world();
    world.looks = Looks::default();
    assert_eq!(world.kinds(), Vec::<&str>::new());
}

#[test]
fn an_orphan_without_an_eni_is_an_address_that_is_not_at_ec2() {
    let mut world = world();
    world.account(|account| {
        account.leases.push(LeaseAccount {
            state: LeaseState::Orphan,
            ..lease("lost", ip(50), SECOND_TABLE)
        });
    });
    let kernel = world.kernel();
    kernel
        .veths
        .insert("enilost".to_owned(), Some("container-lost".to_owned()));
    kernel.routes.insert(ip(50), "enilost".to_owned());
    kernel.to_pod.insert(ip(50), vec![RouteTableId::MAIN]);
    kernel.from_pod.insert(ip(50), vec![SECOND_TABLE]);
    assert_eq!(world.kinds(), ["AddressNotAtEc2"]);
}

/// After a restart the daemon calls every lease granted until the kernel shows veth and route.
#[test]
fn a_lease_that_was_granted_long_ago_and_is_not_wired_is_a_finding() {
    let mut world = world();
    world.account(|account| {
        account.leases[0].state = LeaseState::Granted;
        account.leases[0].granted_at = JUST_NOW - 60_000_000_000;
    });
    assert_eq!(world.kinds(), Vec::<&str>::new());
    world.kernel().routes.remove(&ip(11));
    assert_eq!(world.kinds(), ["LeaseWithoutRoute"]);
}

/// podman in two networks: one container id, two interfaces.
#[test]
fn a_sandbox_with_two_interfaces_has_two_veths_of_one_alias() {
    let mut world = world();
    world.account(|account| {
        let address = account.enis.get_mut(&id(PRIMARY)).unwrap().addresses.get_mut(&ip(12));
        address.unwrap().state = AddressKind::Leased;
        account.leases.push(LeaseAccount {
            container: "container-web".to_owned(),
            interface: "eth1".to_owned(),
            ..lease("web1", ip(12), RouteTableId::MAIN)
        });
    });
    let kernel = world.kernel();
    kernel
        .veths
        .insert("eniweb1".to_owned(), Some("container-web".to_owned()));
    kernel.routes.insert(ip(12), "eniweb1".to_owned());
    kernel.to_pod.insert(ip(12), vec![RouteTableId::MAIN]);
    assert_eq!(world.kinds(), Vec::<&str>::new());
    world.kernel().routes.insert(ip(12), "eniweb".to_owned());
    assert_eq!(world.kinds(), ["WrongRoute"]);
}

#[test]
fn rules_that_the_reference_left_are_named_with_their_kind() {
    let mut world = world();
    let left = |program, rules| LeftoverLook { program, rules };
    world.looks.leftovers = vec![left("iptables-nft", 0), left("iptables-legacy", 9)];
    assert_eq!(world.kinds(), ["ReferenceRules"]);
}
