//! One ENI of the node: its life from creation to deletion, and the addresses on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use vpc_types::{
    Allocation, AttachmentId, DeviceNumber, EniId, MacAddress, NetworkCard, Prefix28, RouteTableId, SecurityGroupId,
    SubnetId,
};

use crate::address::AddressState;
use crate::block::{Block, Tally};
use crate::event::{EniFact, EniRole, OnTermination, Refusal};
use crate::{BootTime, OpId};

/// Where an ENI stands. Each phase has exactly one next step, so recovery and steady state are the same code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EniPhase {
    /// Exists, not attached. Next: attach; or delete, when it was half-made by an earlier run.
    Available,
    /// Attached; its device or its routes are missing. Next: set up, once the link is there.
    Attached,
    /// Pods can use it. Next: nothing, until the pool shrinks.
    Ready,
    /// Leaving: no grants. Next: remove its rules.
    Retiring,
    /// Rules are gone. Next: detach.
    TornDown,
    /// Detached or about to be. Next: delete.
    Detached,
}

impl EniPhase {
    /// A word for logs and the checkpoint.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Attached => "attached",
            Self::Ready => "ready",
            Self::Retiring => "retiring",
            Self::TornDown => "torn-down",
            Self::Detached => "detached",
        }
    }

    /// Inverse of `as_str`.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Available,
            Self::Attached,
            Self::Ready,
            Self::Retiring,
            Self::TornDown,
            Self::Detached,
        ]
        .into_iter()
        .find(|phase| phase.as_str() == text)
    }

    /// Whether the pool may count its addresses on coming pods.
    pub fn is_arriving_or_ready(self) -> bool {
        matches!(self, Self::Available | Self::Attached | Self::Ready)
    }
}

/// Whether addresses may be granted on what is known of an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// EC2 has shown it, or a file that nobody else can have outdated.
    Sure,
    /// Only a file of doubtful age names it: no grants until EC2 shows it to this run.
    HearsayOnly,
}

/// Whether coming pods may use an ENI, as far as the rules of the operator say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Service {
    /// Yes.
    #[default]
    Open,
    /// No: its subnet is excluded by tag. What it has does not count; the pods that it has stay.
    Closed,
    /// No: custom networking puts pods elsewhere. Never outlives a run, which is told anew where pods go.
    Elsewhere,
    /// Not yet: whether its subnet is excluded is about to be known. Never outlives a run.
    Unread,
}

/// One ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eni {
    /// Its id.
    pub id: EniId,
    /// MAC of its device.
    pub mac: MacAddress,
    /// Subnet of its addresses.
    pub subnet: SubnetId,
    /// The ENI's own address, never given to a pod.
    pub primary_address: Ipv4Addr,
    /// Who may use it.
    pub role: EniRole,
    /// Its security groups, as last seen or set.
    pub groups: BTreeSet<SecurityGroupId>,
    /// Slot; for an ENI not attached yet, the slot reserved for it.
    pub device: DeviceNumber,
    /// Card.
    pub card: NetworkCard,
    /// Present while attached.
    pub attachment: Option<AttachmentId>,
    /// Fate at termination.
    pub on_termination: OnTermination,
    /// Where it stands.
    pub phase: EniPhase,
    /// Whether coming pods may use it.
    pub service: Service,
    /// When this core learnt of it.
    pub known_since: BootTime,
    /// When the last operation on it ended; views that started less than the settle time later say nothing about it.
    pub changed_at: BootTime,
    /// When its last lease ended; `known_since` before the first.
    pub idle_since: BootTime,
    /// First of the EC2 views in a row that did not show it.
    pub missing_since: Option<BootTime>,
    /// EC2 operation in flight; at most one.
    pub ec2_op: Option<OpId>,
    /// Kernel operation in flight; at most one.
    pub kernel_op: Option<OpId>,
    /// Earliest time for its next operation, after refusals that concern it alone.
    pub not_before: BootTime,
    /// Refusals in a row.
    pub refusals: u32,
    /// The last of them, until something succeeds.
    pub(crate) last_refusal: Option<Refusal>,
    /// When to look again at EC2 why its device is not there, and how often that was done.
    pub(crate) next_look: Option<BootTime>,
    pub(crate) looks: u32,
    pub(crate) backing: Backing,
    pub(crate) blocks: BTreeMap<Allocation, Block>,
}

impl Eni {
    pub(crate) fn from_fact(fact: &EniFact, device: DeviceNumber, phase: EniPhase, now: BootTime) -> Self {
        let attachment = fact.attachment.as_ref();
        Self {
            id: fact.id.clone(),
            mac: fact.mac,
            subnet: fact.subnet.clone(),
            primary_address: fact.primary_address,
            role: fact.role,
            groups: fact.groups.clone(),
            device: attachment.map_or(device, |a| a.device),
            card: attachment.map_or(NetworkCard::DEFAULT, |a| a.card),
            attachment: attachment.map(|a| a.id.clone()),
            on_termination: attachment.map_or(OnTermination::Keep, |a| a.on_termination),
            phase,
            service: Service::Open,
            known_since: now,
            changed_at: BootTime::default(),
            idle_since: now,
            missing_since: None,
            ec2_op: None,
            kernel_op: None,
            not_before: BootTime::default(),
            refusals: 0,
            last_refusal: None,
            next_look: None,
            looks: 0,
            backing: Backing::Sure,
            blocks: BTreeMap::new(),
        }
    }

    /// A copy without its addresses, for plans that read them not.
    pub(crate) fn outline(&self) -> Self {
        Self {
            id: self.id.clone(),
            mac: self.mac,
            subnet: self.subnet.clone(),
            primary_address: self.primary_address,
            role: self.role,
            groups: self.groups.clone(),
            device: self.device,
            card: self.card,
            attachment: self.attachment.clone(),
            on_termination: self.on_termination,
            phase: self.phase,
            service: self.service,
            known_since: self.known_since,
            changed_at: self.changed_at,
            idle_since: self.idle_since,
            missing_since: self.missing_since,
            ec2_op: self.ec2_op,
            kernel_op: self.kernel_op,
            not_before: self.not_before,
            refusals: self.refusals,
            last_refusal: self.last_refusal,
            next_look: self.next_look,
            looks: self.looks,
            backing: self.backing,
            blocks: BTreeMap::new(),
        }
    }

    /// Table with its routes.
    pub fn table(&self) -> RouteTableId {
        RouteTableId::for_eni(self.card, self.device)
    }

    /// All its pod addresses and what they are doing.
    pub fn addresses(&self) -> impl Iterator<Item = (Ipv4Addr, &AddressState)> {
        self.blocks.values().flatten().map(|(address, state)| (*address, state))
    }

    /// Its allocations: addresses and prefixes, each taking one slot.
    pub fn allocations(&self) -> impl Iterator<Item = Allocation> {
        self.blocks.keys().copied()
    }

    /// Number of slots in use.
    pub fn slots_used(&self) -> u16 {
        u16::try_from(self.blocks.len()).unwrap_or(u16::MAX)
    }

    /// State of one address.
    pub fn address(&self, address: Ipv4Addr) -> Option<&AddressState> {
        let single = self.blocks.get(&Allocation::Ip(address));
        let block = single.or_else(|| self.blocks.get(&prefix_of(address)))?;
        block.get(&address)
    }

    pub(crate) fn address_mut(&mut self, address: Ipv4Addr) -> Option<&mut AddressState> {
        let single = Allocation::Ip(address);
        let at = if self.blocks.contains_key(&single) {
            single
        } else {
            prefix_of(address)
        };
        self.blocks.get_mut(&at)?.get_mut(&address)
    }

    pub(crate) fn addresses_mut(&mut self) -> impl Iterator<Item = (Ipv4Addr, &mut AddressState)> {
        self.blocks
            .values_mut()
            .flatten()
            .map(|(address, state)| (*address, state))
    }

    /// Adds an allocation that a file names, with all its addresses in one state; keeps what is there.
    pub(crate) fn restore(&mut self, allocation: Allocation, state: &AddressState) {
        self.blocks.entry(allocation).or_insert_with(|| {
            let addresses = allocation.addresses();
            addresses.map(|address| (address, state.clone())).collect()
        });
    }

    /// Puts every address of these allocations into one state.
    pub(crate) fn mark(&mut self, allocations: &BTreeSet<Allocation>, to: &AddressState) {
        for (_, block) in self
            .blocks
            .iter_mut()
            .filter(|(allocation, _)| allocations.contains(allocation))
        {
            block.values_mut().for_each(|state| *state = to.clone());
        }
    }

    /// Allocations of the other kind that have addresses in common with this one. EC2 has no such pair: one of them is of
    /// another time.
    pub(crate) fn overlapping(&self, allocation: Allocation) -> Vec<Allocation> {
        let has = |one: &Allocation| self.blocks.contains_key(one);
        match allocation {
            Allocation::Ip(address) => Some(prefix_of(address)).filter(has).into_iter().collect(),
            Allocation::Prefix(_) => allocation.addresses().map(Allocation::Ip).filter(has).collect(),
        }
    }

    /// Leases on it.
    pub fn leased(&self) -> usize {
        self.tallies().map(|tally| tally.leased as usize).sum()
    }

    /// Sums of its allocations.
    pub(crate) fn tallies(&self) -> impl Iterator<Item = Tally> {
        self.blocks.values().map(Block::tally)
    }

    /// Whether it is on its way into service, as far as can be seen. One whose device or set-up keeps failing is not counted
    /// on: growth must not wait for it.
    pub(crate) fn is_arriving(&self) -> bool {
        const REFUSALS: u32 = 3;
        let is_coming = matches!(self.phase, EniPhase::Available | EniPhase::Attached);
        (is_coming || self.awaits_view()) && self.looks == 0 && self.refusals < REFUSALS
    }

    /// Whether a view did not show it, or an address of it, and no second one has agreed or disagreed.
    pub(crate) fn is_doubtful(&self) -> bool {
        let is_missing = |(_, state): (Ipv4Addr, &AddressState)| matches!(state, AddressState::Missing { .. });
        self.missing_since.is_some() || self.awaits_view() || self.addresses().any(is_missing)
    }

    /// Whether only a view stands between it and grants.
    pub(crate) fn awaits_view(&self) -> bool {
        let is_there = matches!(self.phase, EniPhase::Attached | EniPhase::Ready);
        self.backing == Backing::HearsayOnly && is_there && self.role.has_pods()
    }

    /// Whether coming pods may use it, once it is ready.
    pub fn is_open(&self) -> bool {
        self.role.has_pods() && self.service == Service::Open
    }

    /// Whether a grant may come from it.
    pub fn serves(&self) -> bool {
        let is_known = self.missing_since.is_none() && self.backing == Backing::Sure;
        self.phase == EniPhase::Ready && is_known && self.is_open()
    }

    /// From when on views show what our last operation on it did. One that this run never changed needs no settling.
    pub(crate) fn changed_settled_at(&self, settle: std::time::Duration) -> BootTime {
        if self.changed_at == BootTime::default() {
            self.changed_at
        } else {
            self.changed_at.after(settle)
        }
    }

    /// Whether a view that started at `started_at` can be believed about it.
    pub(crate) fn settled(&self, started_at: BootTime, settle: std::time::Duration) -> bool {
        self.ec2_op.is_none() && started_at >= self.changed_settled_at(settle)
    }
}

/// The prefix that would hold this address.
fn prefix_of(address: Ipv4Addr) -> Allocation {
    let net = ipnet::Ipv4Net::new(address, 28).expect("28 is a prefix length").trunc();
    Allocation::Prefix(Prefix28::new(net).expect("a truncated /28 is a prefix"))
}
