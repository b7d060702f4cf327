//! The side file: what a restart needs beyond the leases. ENIs with the rests of their addresses, the journal of
//! operations, and which `ipam.json` it belongs to.
//!
//! The format is ours alone and may change with the version text; a file that does not parse counts as absent.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vpc_types::{Allocation, AttachmentId, DeviceNumber, EniId, NetworkCard, Prefix28, SecurityGroupId, SubnetId};

use crate::action::{Want, Work};
use crate::address::AddressState;
use crate::core::OpRecord;
use crate::eni::{Backing, Eni, EniPhase, Service};
use crate::event::{EniRole, OnTermination};
use crate::lease::{Lease, LeaseState};
use crate::time::{boot, millis};
use crate::{BootTime, OpId, WallTime};

/// Bumped when a reader of the former version would misread.
const VERSION: &str = "vpc-cni-side/1";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SideFile {
    version: String,
    pub(crate) boot_id: String,
    /// SHA-1 of the `ipam.json` written with it.
    pub(crate) fingerprint: String,
    pub(crate) generation: u64,
    pub(crate) next_op: u64,
    /// What EC2 let the instance have, where that was less than the table says.
    pub(crate) max_enis: u16,
    /// Pauses after refused calls, so that a daemon that ends again and again does not call faster.
    #[serde(default)]
    pub(crate) budgets: Vec<BudgetRow>,
    enis: Vec<EniRow>,
    leases: Vec<StoredLease>,
    resting_elsewhere: Vec<(Ipv4Addr, u64)>,
    /// Whether a look for detached ENIs of ours was still to come.
    #[serde(default)]
    pub(crate) look_for_half_made: bool,
    /// How long addresses rest whose past this run did not know, while that still mattered: milliseconds.
    #[serde(default)]
    pub(crate) rest_unknown: Option<u64>,
    /// Whether the ENIs' fitness for pods is what tags of their subnets said.
    #[serde(default)]
    pub(crate) subnets_read: bool,
    journal: Vec<OpRow>,
}

/// The waiting rule of one kind of call; times in milliseconds since boot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BudgetRow {
    pub(crate) call: Cow<'static, str>,
    pub(crate) refusals: u32,
    pub(crate) not_before: u64,
    pub(crate) starving_not_before: u64,
    pub(crate) interval: u64,
    pub(crate) full_at: u64,
    pub(crate) last: Option<Cow<'static, str>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EniRow {
    id: String,
    mac: String,
    subnet: String,
    primary_address: Ipv4Addr,
    role: String,
    #[serde(default)]
    groups: Vec<String>,
    device: u16,
    card: u16,
    attachment: Option<String>,
    goes_with_instance: bool,
    phase: String,
    /// Whether its subnet was closed to pods.
    #[serde(default)]
    closed: bool,
    /// Whether EC2 had still to show what it holds.
    #[serde(default)]
    hearsay: bool,
    allocations: Vec<AllocationText>,
    /// Address, since, until: milliseconds since boot.
    cooling: Vec<(Ipv4Addr, u64, u64)>,
    missing: Vec<Ipv4Addr>,
    /// Addresses that showed life without a lease: they rest once that is over.
    blocked: Vec<Ipv4Addr>,
    idle_since: u64,
    known_since: u64,
    changed_at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredLease {
    address: Ipv4Addr,
    state: Cow<'static, str>,
    since: u64,
}

/// What `ipam.json` has no room for about one lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseRow {
    pub(crate) address: Ipv4Addr,
    pub(crate) state: LeaseState,
    pub(crate) since: BootTime,
}

#[derive(Debug, Serialize, Deserialize)]
struct OpRow {
    op: u64,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eni: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subnet: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attachment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u16>,
    /// As `count`, in prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefixes: Option<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requested_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card: Option<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allocations: Vec<String>,
}

fn parse_allocation(text: &str) -> Option<Allocation> {
    match text.parse::<Ipv4Addr>() {
        Ok(ip) => Some(Allocation::Ip(ip)),
        Err(_) => Some(Allocation::Prefix(Prefix28::new(text.parse().ok()?).ok()?)),
    }
}

/// An allocation as text, written without a copy of it: there is one for each address of the node.
#[derive(Debug)]
struct AllocationText(Allocation);

impl Serialize for AllocationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            // Formats without the machinery for widths and precisions, in a fifth of the time.
            Allocation::Ip(ip) => ip.serialize(serializer),
            Allocation::Prefix(prefix) => serializer.collect_str(&prefix.net()),
        }
    }
}

impl<'de> Deserialize<'de> for AllocationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let allocation = parse_allocation(&text);
        allocation
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom(format!("{text} is no allocation")))
    }
}

pub(crate) struct SideSource<'a> {
    pub(crate) boot_id: &'a str,
    pub(crate) fingerprint: String,
    pub(crate) generation: u64,
    pub(crate) next_op: u64,
    pub(crate) max_enis: u16,
    pub(crate) budgets: Vec<BudgetRow>,
    pub(crate) resting_elsewhere: Vec<(Ipv4Addr, BootTime)>,
    pub(crate) look_for_half_made: bool,
    pub(crate) rest_unknown: Option<Duration>,
    pub(crate) subnets_read: bool,
}

pub(crate) fn encode<'a>(
    source: SideSource<'_>,
    enis: impl Iterator<Item = &'a Eni>,
    leases: impl Iterator<Item = &'a Lease>,
    ops: impl Iterator<Item = (&'a OpId, &'a OpRecord)>,
) -> Vec<u8> {
    let file = SideFile {
        version: VERSION.to_owned(),
        boot_id: source.boot_id.to_owned(),
        fingerprint: source.fingerprint,
        generation: source.generation,
        next_op: source.next_op,
        max_enis: source.max_enis,
        budgets: source.budgets,
        enis: enis.map(eni_row).collect(),
        leases: leases.map(lease_row).collect(),
        resting_elsewhere: source
            .resting_elsewhere
            .into_iter()
            .map(|(a, until)| (a, millis(until)))
            .collect(),
        look_for_half_made: source.look_for_half_made,
        rest_unknown: source.rest_unknown.map(|rest| millis(BootTime(rest))),
        subnets_read: source.subnets_read,
        journal: ops
            .filter(|(_, record)| record.work.is_ec2())
            .map(|(op, record)| op_row(*op, &record.work))
            .collect(),
    };
    let mut bytes = serde_json::to_vec(&file).expect("rows of numbers and texts always serialise");
    bytes.push(b'\n');
    bytes
}

fn eni_row(eni: &Eni) -> EniRow {
    let cooling = |(address, state): (Ipv4Addr, &AddressState)| {
        let AddressState::Cooling { since, until } = state else {
            return None;
        };
        Some((address, millis(*since), millis(*until)))
    };
    let missing =
        |(address, state): (Ipv4Addr, &AddressState)| matches!(state, AddressState::Missing { .. }).then_some(address);
    let blocked =
        |(address, state): (Ipv4Addr, &AddressState)| matches!(state, AddressState::Blocked { .. }).then_some(address);
    EniRow {
        id: eni.id.to_string(),
        mac: eni.mac.to_string(),
        subnet: eni.subnet.to_string(),
        primary_address: eni.primary_address,
        role: eni.role.as_str().to_owned(),
        groups: eni.groups.iter().map(SecurityGroupId::to_string).collect(),
        device: eni.device.0,
        card: eni.card.0,
        attachment: eni.attachment.as_ref().map(AttachmentId::to_string),
        goes_with_instance: eni.on_termination == OnTermination::Delete,
        phase: eni.phase.as_str().to_owned(),
        closed: eni.service == Service::Closed,
        allocations: eni.allocations().map(AllocationText).collect(),
        cooling: eni.addresses().filter_map(cooling).collect(),
        missing: eni.addresses().filter_map(missing).collect(),
        blocked: eni.addresses().filter_map(blocked).collect(),
        hearsay: eni.backing == Backing::HearsayOnly,
        idle_since: millis(eni.idle_since),
        known_since: millis(eni.known_since),
        changed_at: millis(eni.changed_at),
    }
}

fn lease_row(lease: &Lease) -> StoredLease {
    StoredLease {
        address: lease.address,
        state: lease.state.as_str().into(),
        since: millis(lease.since),
    }
}

impl OpRow {
    fn set_want(&mut self, want: Want) {
        match want {
            Want::Addresses(count) => self.count = Some(count),
            Want::Prefixes(count) => self.prefixes = Some(count),
        }
    }

    fn want(&self) -> Option<Want> {
        let prefixes = self.prefixes.map(Want::Prefixes);
        prefixes.or_else(|| self.count.map(Want::Addresses))
    }

    fn groups(&self) -> Option<BTreeSet<SecurityGroupId>> {
        parse_groups(&self.groups)
    }
}

fn parse_groups(texts: &[String]) -> Option<BTreeSet<SecurityGroupId>> {
    texts.iter().map(|text| SecurityGroupId::parse(text).ok()).collect()
}

fn op_row(op: OpId, work: &Work) -> OpRow {
    let mut row = OpRow {
        op: op.0,
        kind: work.kind().to_owned(),
        eni: work.eni().map(EniId::to_string),
        token: None,
        subnet: None,
        attachment: None,
        count: None,
        prefixes: None,
        groups: Vec::new(),
        requested_at: None,
        device: None,
        card: None,
        allocations: Vec::new(),
    };
    match work {
        Work::CreateEni {
            token,
            subnet,
            groups,
            want,
            requested_at,
        } => {
            row.token = Some(token.clone());
            row.subnet = Some(subnet.to_string());
            row.groups = groups.iter().map(SecurityGroupId::to_string).collect();
            row.set_want(*want);
            row.requested_at = Some(requested_at.as_nanos());
        }
        Work::Attach { device, card, .. } => (row.device, row.card) = (Some(device.0), Some(card.0)),
        Work::DeleteOnTermination { attachment, .. } | Work::Detach { attachment, .. } => {
            row.attachment = Some(attachment.to_string());
        }
        Work::AllocateAddresses { want, .. } => row.set_want(*want),
        Work::SetGroups { groups, .. } => row.groups = groups.iter().map(SecurityGroupId::to_string).collect(),
        Work::ReleaseAddresses { allocations, .. } => {
            row.allocations = allocations.iter().map(Allocation::to_string).collect();
        }
        Work::DeleteEni { .. } | Work::SetupEni { .. } | Work::TeardownEni { .. } | Work::ClearPodState { .. } => {}
    }
    row
}

/// What a side file says, checked.
#[derive(Debug)]
pub(crate) struct SideState {
    pub(crate) enis: Vec<Eni>,
    pub(crate) leases: Vec<LeaseRow>,
    pub(crate) resting_elsewhere: Vec<(Ipv4Addr, BootTime)>,
    pub(crate) journal: Vec<(OpId, Work)>,
}

impl SideState {
    /// Its times are of another boot: rests count from now, and nothing is known of how old anything is.
    pub(crate) fn forget_times(&mut self) {
        self.resting_elsewhere
            .iter_mut()
            .for_each(|(_, until)| *until = BootTime::default());
        for (_, state) in self.enis.iter_mut().flat_map(Eni::addresses_mut) {
            if let AddressState::Cooling { since, until } = state {
                (*since, *until) = (BootTime::default(), BootTime::default());
            }
        }
    }
}

/// `None` when the file is no side file of this version, or any row does not parse.
pub(crate) fn decode(bytes: &[u8]) -> Option<(SideFile, SideState)> {
    let file: SideFile = serde_json::from_slice(bytes).ok()?;
    if file.version != VERSION {
        return None;
    }
    let state = SideState {
        enis: file.enis.iter().map(parse_eni).collect::<Option<_>>()?,
        leases: file
            .leases
            .iter()
            .map(|row| {
                Some(LeaseRow {
                    address: row.address,
                    state: LeaseState::parse(&row.state)?,
                    since: boot(row.since),
                })
            })
            .collect::<Option<_>>()?,
        resting_elsewhere: file
            .resting_elsewhere
            .iter()
            .map(|(address, until)| (*address, boot(*until)))
            .collect(),
        journal: file
            .journal
            .iter()
            .map(|row| Some((OpId(row.op), parse_work(row)?)))
            .collect::<Option<_>>()?,
    };
    Some((file, state))
}

fn parse_eni(row: &EniRow) -> Option<Eni> {
    let role = EniRole::parse(&row.role)?;
    let mut eni = Eni {
        id: row.id.parse().ok()?,
        mac: row.mac.parse().ok()?,
        subnet: row.subnet.parse().ok()?,
        primary_address: row.primary_address,
        role,
        groups: parse_groups(&row.groups)?,
        device: DeviceNumber(row.device),
        card: NetworkCard(row.card),
        attachment: row.attachment.as_deref().map(AttachmentId::parse).transpose().ok()?,
        on_termination: if row.goes_with_instance {
            OnTermination::Delete
        } else {
            OnTermination::Keep
        },
        phase: EniPhase::parse(&row.phase)?,
        service: if row.closed { Service::Closed } else { Service::Open },
        known_since: boot(row.known_since),
        changed_at: boot(row.changed_at),
        idle_since: boot(row.idle_since),
        missing_since: None,
        ec2_op: None,
        kernel_op: None,
        not_before: BootTime::default(),
        refusals: 0,
        last_refusal: None,
        next_look: None,
        looks: 0,
        backing: if row.hearsay {
            Backing::HearsayOnly
        } else {
            Backing::Sure
        },
        blocks: std::collections::BTreeMap::new(),
    };
    for AllocationText(allocation) in &row.allocations {
        eni.restore(
            *allocation,
            &AddressState::Free {
                since: BootTime::default(),
            },
        );
    }
    for (address, since, until) in &row.cooling {
        *eni.address_mut(*address)? = AddressState::Cooling {
            since: boot(*since),
            until: boot(*until),
        };
    }
    for address in &row.missing {
        *eni.address_mut(*address)? = AddressState::Missing {
            since: BootTime::default(),
        };
    }
    for address in &row.blocked {
        *eni.address_mut(*address)? = AddressState::Blocked {
            since: BootTime::default(),
        };
    }
    Some(eni)
}

fn parse_work(row: &OpRow) -> Option<Work> {
    let eni = || row.eni.as_deref().and_then(|id| EniId::parse(id).ok());
    let attachment = || row.attachment.as_deref().and_then(|id| AttachmentId::parse(id).ok());
    let work = match row.kind.as_str() {
        "CreateEni" => Work::CreateEni {
            token: row.token.clone()?,
            subnet: SubnetId::parse(row.subnet.as_deref()?).ok()?,
            groups: row.groups()?,
            want: row.want()?,
            requested_at: WallTime(Duration::from_nanos(row.requested_at?)),
        },
        "Attach" => Work::Attach {
            eni: eni()?,
            device: DeviceNumber(row.device?),
            card: NetworkCard(row.card?),
        },
        "DeleteOnTermination" => Work::DeleteOnTermination {
            eni: eni()?,
            attachment: attachment()?,
        },
        "AllocateAddresses" => Work::AllocateAddresses {
            eni: eni()?,
            want: row.want()?,
        },
        "SetGroups" => Work::SetGroups {
            eni: eni()?,
            groups: row.groups()?,
        },
        "ReleaseAddresses" => {
            let allocations = row
                .allocations
                .iter()
                .map(|text| parse_allocation(text))
                .collect::<Option<_>>()?;
            Work::ReleaseAddresses {
                eni: eni()?,
                allocations,
            }
        }
        "Detach" => Work::Detach {
            eni: eni()?,
            attachment: attachment()?,
        },
        "DeleteEni" => Work::DeleteEni { eni: eni()? },
        _ => return None,
    };
    Some(work)
}
