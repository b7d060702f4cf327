//! Random sequences of calls: the audit finds nothing after any of them, and the reported changes alone are enough
//! to know what every device holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use vpc_types::Allocation;

use super::super::request::*;
use super::super::*;
use super::*;

/// One step; numbers choose among what exists at that moment.
#[derive(Debug, Clone)]
enum Step {
    Create {
        token: Option<u8>,
        count: u32,
        prefixes: bool,
    },
    Attach {
        eni: usize,
        instance: usize,
        device: u16,
    },
    Detach {
        eni: usize,
        force: bool,
    },
    Delete {
        eni: usize,
    },
    Assign {
        eni: usize,
        count: u32,
        prefixes: bool,
    },
    AssignNamed {
        eni: usize,
        host: u8,
        reassign: bool,
    },
    Unassign {
        eni: usize,
        skip: usize,
    },
    Modify {
        eni: usize,
    },
    Terminate {
        instance: usize,
    },
    Wait {
        millis: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..12_usize;
    prop_oneof![
        3 => (prop::option::of(0..3_u8), 0..5_u32, any::<bool>())
            .prop_map(|(token, count, prefixes)| Step::Create { token, count, prefixes }),
        3 => (n.clone(), 0..3_usize, 0..4_u16).prop_map(|(eni, instance, device)| Step::Attach { eni, instance, device }),
        2 => (n.clone(), any::<bool>()).prop_map(|(eni, force)| Step::Detach { eni, force }),
        2 => n.clone().prop_map(|eni| Step::Delete { eni }),
        4 => (n.clone(), 0..6_u32, any::<bool>()).prop_map(|(eni, count, prefixes)| Step::Assign { eni, count, prefixes }),
        1 => (n.clone(), any::<u8>(), any::<bool>())
            .prop_map(|(eni, host, reassign)| Step::AssignNamed { eni, host, reassign }),
        3 => (n.clone(), 0..4_usize).prop_map(|(eni, skip)| Step::Unassign { eni, skip }),
        1 => n.prop_map(|eni| Step::Modify { eni }),
        1 => (0..9_usize).prop_map(|instance| Step::Terminate { instance }),
        3 => (0..8_000_u64).prop_map(|millis| Step::Wait { millis }),
    ]
}

fn pick<T: Clone>(from: &[T], number: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[number % from.len()].clone())
}

fn ipv4(count: u32, prefixes: bool) -> Ipv4Request {
    if prefixes {
        Ipv4Request::PrefixCount(count)
    } else {
        Ipv4Request::Count(count)
    }
}

fn create(subnet: &SubnetId, token: Option<u8>, count: u32, prefixes: bool) -> CreateNetworkInterface {
    CreateNetworkInterface {
        client_token: token.map(|token| token.to_string()),
        ipv4: (count > 0).then(|| ipv4(count, prefixes)),
        ..CreateNetworkInterface::new(subnet.clone())
    }
}

/// Does one step; refusals are part of the game.
fn run(model: &mut Model, subnet: &SubnetId, now: &mut Duration, step: &Step) -> Option<()> {
    let enis: Vec<_> = model.enis().cloned().collect();
    let instances: Vec<_> = model.instances().map(|one| one.id.clone()).collect();
    match *step {
        Step::Create { token, count, prefixes } => {
            model.call(*now, &create(subnet, token, count, prefixes));
        }
        Step::Attach { eni, instance, device } => {
            let (eni, instance) = (pick(&enis, eni)?.id.clone(), pick(&instances, instance)?);
            model.call(
                *now,
                &AttachNetworkInterface {
                    eni,
                    instance,
                    device: DeviceNumber(device),
                    card: None,
                },
            );
        }
        Step::Detach { eni, force } => {
            let attachment = pick(&enis, eni)?.attachment.clone()?.id;
            let mode = if force { DetachMode::Force } else { DetachMode::Orderly };
            model.call(*now, &DetachNetworkInterface { attachment, mode });
        }
        Step::Delete { eni } => {
            model.call(
                *now,
                &DeleteNetworkInterface {
                    eni: pick(&enis, eni)?.id.clone(),
                },
            );
        }
        Step::Modify { eni } => {
            let eni = pick(&enis, eni)?;
            let attribute = EniAttribute::OnTermination(eni.attachment.clone()?.id, OnTermination::Delete);
            model.call(
                *now,
                &ModifyNetworkInterfaceAttribute {
                    eni: eni.id.clone(),
                    attribute,
                },
            );
        }
        Step::Terminate { instance } => {
            // Numbers beyond the instances keep termination rare.
            model.terminate_instance(*now, instances.get(instance)?).unwrap();
        }
        Step::Wait { millis } => *now += Duration::from_millis(millis),
        Step::Assign { .. } | Step::AssignNamed { .. } | Step::Unassign { .. } => {
            run_on_addresses(model, &enis, *now, step)?
        }
    }
    Some(())
}

fn run_on_addresses(model: &mut Model, enis: &[Arc<Eni>], now: Duration, step: &Step) -> Option<()> {
    match *step {
        Step::Assign { eni, count, prefixes } => {
            model.call(
                now,
                &AssignPrivateIpAddresses::new(pick(enis, eni)?.id.clone(), ipv4(count, prefixes)),
            );
        }
        Step::AssignNamed { eni, host, reassign } => {
            let wanted = Ipv4Request::Addresses(vec![std::net::Ipv4Addr::new(10, 0, 1, host)]);
            let reassignment = if reassign {
                Reassignment::Allowed
            } else {
                Reassignment::Refused
            };
            model.call(
                now,
                &AssignPrivateIpAddresses {
                    eni: pick(enis, eni)?.id.clone(),
                    wanted,
                    reassignment,
                },
            );
        }
        Step::Unassign { eni, skip } => {
            let eni = pick(enis, eni)?;
            let addresses = eni.secondary.iter().skip(skip).copied().collect();
            let prefixes = eni.prefixes.iter().skip(skip).copied().collect();
            model.call(
                now,
                &UnassignPrivateIpAddresses {
                    eni: eni.id.clone(),
                    addresses,
                    prefixes,
                },
            );
        }
        Step::Create { .. }
        | Step::Attach { .. }
        | Step::Detach { .. }
        | Step::Delete { .. }
        | Step::Modify { .. }
        | Step::Terminate { .. }
        | Step::Wait { .. } => unreachable!("the caller runs these"),
    }
    Some(())
}

/// What a driver knows from the changes alone.
#[derive(Default)]
struct Mirror(BTreeMap<EniId, BTreeSet<Allocation>>);

impl Mirror {
    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Attached { eni, .. } => {
                    assert!(
                        self.0.insert(eni.id.clone(), eni.allocations().collect()).is_none(),
                        "attached twice"
                    );
                }
                Change::Detached { eni, .. } => assert!(self.0.remove(&eni).is_some(), "detached twice"),
                Change::Assigned { eni, allocation } => assert!(self.0.get_mut(&eni).unwrap().insert(allocation)),
                Change::Unassigned { eni, allocation } => assert!(self.0.get_mut(&eni).unwrap().remove(&allocation)),
                Change::Ipv6Assigned { .. }
                | Change::Ipv6Unassigned { .. }
                | Change::SourceDestCheck { .. }
                | Change::Terminated { .. } => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_calls_keeps_the_books(steps in prop::collection::vec(step(), 1..120), seed in any::<u64>()) {
        let mut region = region_with(Settings { throttle: Throttle::Off, ..Settings::aws(seed) }, "m5.large", "10.0.1.0/25");
        for kind in ["t3.medium", "m5.xlarge"] {
            region.model.run_instance(secs(0), InstanceSpec::new(kind, region.subnet.clone())).unwrap();
        }
        let mut mirror = Mirror::default();
        let primary = region.model.enis_of(&region.instance).next().unwrap();
        mirror.0.insert(primary.id.clone(), BTreeSet::new());
        let mut now = secs(1);
        for step in &steps {
            let _ = run(&mut region.model, &region.subnet, &mut now, step);
            prop_assert_eq!(region.model.audit(), Vec::<String>::new());
            mirror.apply(region.model.drain_changes());
            let truth: BTreeMap<_, BTreeSet<_>> = region.model.enis()
                .filter(|eni| region.model.is_plugged(eni))
                .map(|eni| (eni.id.clone(), eni.allocations().collect()))
                .collect();
            prop_assert_eq!(&mirror.0, &truth);
        }
    }
}
