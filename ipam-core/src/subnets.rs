//! Subnets: which may hold new ENIs, in which order, and what may be asked of each right now.
//!
//! Owns the readings of DescribeSubnets, which are few: before a new ENI when the last one is old or showed little, after a
//! refusal for lack of addresses, and now and then while a subnet in use is nearly empty. A reading that fails costs nothing
//! but choice: the primary subnet is there without it. Growth asks here before it asks EC2.

use std::collections::BTreeMap;
use std::time::Duration;

use vpc_types::SubnetId;

use crate::BootTime;
use crate::action::{Want, Work};
use crate::backoff::Need;
use crate::config::{AllocationMode, Provisioning, SubnetChoice};
use crate::core::Core;
use crate::eni::{Eni, Service};
use crate::event::{EniRole, Life, Placement, Refusal, Scheduling, Scope, SubnetFact, SubnetsView};
use crate::mutant::defective;
pub(crate) use crate::scarcity::Ask;
use crate::scarcity::Scarcity;

/// Says whether a subnet is for pods.
const TAG_ROLE: &str = "kubernetes.io/role/cni";
/// Followed by a cluster's name: a subnet with such tags is for these clusters only.
const TAG_CLUSTER: &str = "cni.networking.k8s.aws/cluster/";

/// A reading much older than this says little about a subnet that hundreds of nodes share.
const READING_LIFE: Duration = Duration::from_secs(900);
/// The same where only one subnet can be used, and it had plenty.
const READING_LIFE_OF_ONE: Duration = Duration::from_secs(6 * 3600);
/// As long as that, a reading of a nearly empty subnet need not be repeated.
const READING_FRESH: Duration = Duration::from_secs(60);
/// A pod that waits does not wait longer than this for a reading.
const READING_WAIT: Duration = Duration::from_secs(3);
/// Free addresses, in hundredths of all, below which a subnet is watched.
const WATCHED_PERCENT: u64 = 30;

/// Free addresses, in hundredths of all, below which nodes begin to hold less, and at which they hold nothing in reserve.
const SLACK_PERCENT: (u32, u32) = (20, 5);
/// The whole of what may be held in reserve.
pub(crate) const ALL_SLACK: u32 = 1_000;

/// What is known of the subnets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subnets {
    reading: Option<SubnetsView>,
    /// Why the last reading failed, and when; until one succeeds.
    failed: Option<(Refusal, BootTime)>,
    /// When a reading was first asked for that growth waits for.
    asked_at: Option<BootTime>,
    /// When the next reading of a nearly empty subnet is due.
    next_watch: Option<BootTime>,
    scarcity: BTreeMap<SubnetId, Scarcity>,
    /// The one that refused last, until any gives.
    short: Option<SubnetId>,
    /// Whether the run before this one knew the tags.
    read_before: bool,
}

impl Subnets {
    /// Whether the ENIs' service is what tags said, now or in the run before.
    pub(crate) fn were_read(&self) -> bool {
        self.reading.is_some() || self.read_before
    }
}

/// One subnet of the zone, as the last reading showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetStatus {
    /// Its id.
    pub id: SubnetId,
    /// Addresses that nobody had.
    pub free: u32,
    /// Whether new ENIs may go there.
    pub access: SubnetAccess,
}

/// Whether a subnet is for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubnetAccess {
    /// Yes.
    ForPods,
    /// Its tags say no.
    Closed,
}

impl Subnets {
    fn fact(&self, subnet: &SubnetId) -> Option<&SubnetFact> {
        self.reading.as_ref()?.subnets.iter().find(|fact| fact.id == *subnet)
    }

    fn age(&self, now: BootTime) -> Option<Duration> {
        Some(now.since(self.reading.as_ref()?.started_at))
    }

    /// Free addresses by a reading that is fresh.
    fn fresh_free(&self, subnet: &SubnetId, now: BootTime) -> Option<u32> {
        let is_fresh = self.age(now).is_some_and(|age| age <= READING_FRESH);
        self.fact(subnet).filter(|_| is_fresh).map(|fact| fact.free)
    }
}

impl SubnetFact {
    fn is_nearly_empty(&self) -> bool {
        u64::from(self.free) * 100 < u64::from(self.size) * WATCHED_PERCENT
    }

    /// Whether its tags let pods of this cluster use it.
    fn is_for_pods(&self, is_primary: bool, cluster: Option<&str>) -> bool {
        match self.tags.get(TAG_ROLE).map(String::as_str) {
            None | Some("") => is_primary,
            Some("0") => false,
            Some(_) => self.is_for_cluster(cluster),
        }
    }

    fn is_for_cluster(&self, cluster: Option<&str>) -> bool {
        let mut named = self
            .tags
            .keys()
            .filter_map(|key| key.strip_prefix(TAG_CLUSTER))
            .peekable();
        named.peek().is_none() || cluster.is_none_or(|own| named.any(|name| name == own))
    }
}

impl Core {
    /// What may be asked of `subnet` for those who need it.
    pub(crate) fn ask_of(&self, subnet: &SubnetId, need: Need) -> Ask {
        let mode = self.config.mode;
        let known = self.subnets.scarcity.get(subnet);
        let mut ask = known.map_or_else(|| Scarcity::default().ask(mode, need), |known| known.ask(mode, need));
        if defective!(self, NeverFallBack) {
            ask.kind = mode;
        }
        // A new ENI takes an address for itself.
        if let Some(free) = self.subnets.fresh_free(subnet, self.clock).filter(|free| *free <= 256) {
            let free = u16::try_from(free).unwrap_or(u16::MAX).saturating_sub(1);
            if free < 16 && !defective!(self, NeverFallBack) {
                ask.kind = AllocationMode::Addresses;
            }
            let slots = match ask.kind {
                AllocationMode::Addresses => free,
                AllocationMode::Prefixes => free / 16,
            };
            ask.at_most = Some(ask.at_most.unwrap_or(u16::MAX).min(slots.max(1)));
        }
        ask
    }

    /// Subnets for a new ENI, best first: those that may be asked now, with whole prefixes where those are wanted, and then by
    /// free addresses.
    pub(crate) fn subnets_for_new_eni(&self, need: Need) -> Vec<SubnetId> {
        let mut subnets = match &self.placement {
            Placement::Missing => return Vec::new(),
            Placement::Given { subnet, .. } => return vec![subnet.clone()],
            Placement::Discovered => self.discovered(),
        };
        subnets.sort_by_key(|subnet| {
            let ask = self.ask_of(subnet, need);
            let is_second_best = ask.kind != self.config.mode;
            let free = self.subnets.fact(subnet).map_or(0, |fact| fact.free);
            (ask.not_before, is_second_best, std::cmp::Reverse(free))
        });
        subnets
    }

    fn discovered(&self) -> Vec<SubnetId> {
        let primary = &self.config.node.subnet;
        let by_tag = self.config.subnets == SubnetChoice::ByTag;
        let closed = |fact: &SubnetFact| fact.tags.get(TAG_ROLE).is_some_and(|role| role == "0");
        match self.subnets.reading.as_ref().filter(|_| by_tag) {
            // Without discovery only what closes the subnet counts, if it happens to be known.
            None if self.subnets.fact(primary).is_some_and(closed) => Vec::new(),
            // A former run knew, and this one could not read.
            None if by_tag && self.is_primary_closed() => Vec::new(),
            None => vec![primary.clone()],
            Some(reading) => {
                let fits = |fact: &&SubnetFact| {
                    defective!(self, IgnoreSubnetTags)
                        || fact.is_for_pods(fact.id == *primary, self.config.cluster.as_deref())
                };
                let mut found: Vec<SubnetId> = reading
                    .subnets
                    .iter()
                    .filter(fits)
                    .map(|fact| fact.id.clone())
                    .collect();
                // One that is not in the list, in another account for instance, is not excluded either.
                if self.subnets.fact(primary).is_none() {
                    found.push(primary.clone());
                }
                found
            }
        }
    }

    fn is_primary_closed(&self) -> bool {
        let mut primaries = self.pool.enis().filter(|eni| eni.role == EniRole::Primary);
        primaries.any(|eni| eni.service == Service::Closed && eni.known_since < self.started_at)
    }

    /// Whether new ENIs may be asked for now: enough is known about the subnets, or asking took too long.
    pub(crate) fn may_ask_for_eni(&mut self, now: BootTime) -> bool {
        let by_tag = self.config.subnets == SubnetChoice::ByTag && self.placement == Placement::Discovered;
        if !by_tag || self.is_reading_enough() || self.is_reading_failing(now) {
            self.subnets.asked_at = None;
            return true;
        }
        let subnets = self.subnets_for_new_eni(self.need());
        let best = subnets
            .first()
            .map(|subnet| self.ask_of(subnet, self.need()).not_before);
        let call_at = best.unwrap_or(now).max(self.backoffs.create.next_try(self.need()));
        if call_at > now {
            // No call could follow the reading: the caller finds out how long to wait.
            return true;
        }
        let asked_at = *self.subnets.asked_at.get_or_insert(now);
        if !self.wish(Scope::Subnets).is_open() {
            self.wish(Scope::Subnets).want(now);
        }
        let limit = asked_at.after(READING_WAIT);
        self.need() == Need::Starving && self.due(limit, now)
    }

    fn is_reading_enough(&self) -> bool {
        let Some(age) = self.subnets.age(self.clock) else {
            return false;
        };
        let subnets = self.subnets_for_new_eni(self.need());
        let is_low = |id: &SubnetId| self.subnets.fact(id).is_none_or(SubnetFact::is_nearly_empty);
        age <= match &subnets[..] {
            // A refill can go by what the watch of such a subnet read last.
            [best, ..] if is_low(best) && self.need() == Need::Starving => READING_FRESH,
            // There is nothing to choose: only tags could have changed.
            [only] if !is_low(only) => READING_LIFE_OF_ONE,
            // Only somebody who waits wants to know whether that has changed.
            [] if self.need() == Need::Refill => return true,
            [] | [_, ..] => READING_LIFE * 5 / 4,
        }
    }

    fn is_reading_failing(&self, now: BootTime) -> bool {
        let failed = self.subnets.failed;
        failed.is_some_and(|(_, at)| now.since(at) <= READING_LIFE)
    }

    /// Whether the tags of the subnets are about to be known for the first time: until then what was found on ENIs waits, since
    /// a subnet may be closed to pods.
    pub(crate) fn is_learning_subnets(&self) -> bool {
        let subnets = &self.subnets;
        let wish = self.describe.get(&Scope::Subnets).copied().unwrap_or_default();
        self.config.subnets == SubnetChoice::ByTag
            && subnets.reading.is_none()
            && subnets.failed.is_none()
            && wish.is_open()
            && self.clock < self.started_at.after(READING_WAIT)
    }

    /// The subnets of the zone; none before the first reading.
    pub(crate) fn subnet_statuses(&self) -> Vec<SubnetStatus> {
        let allowed = self.discovered();
        let facts = self.subnets.reading.iter().flat_map(|reading| &reading.subnets);
        facts
            .map(|fact| SubnetStatus {
                id: fact.id.clone(),
                free: fact.free,
                access: if allowed.contains(&fact.id) {
                    SubnetAccess::ForPods
                } else {
                    SubnetAccess::Closed
                },
            })
            .collect()
    }

    /// Whether tags close the ENI's subnet to pods.
    pub fn is_excluded(&self, eni: &Eni) -> bool {
        let by_tag = self.config.subnets == SubnetChoice::ByTag && self.placement == Placement::Discovered;
        let is_primary = eni.subnet == self.config.node.subnet;
        let fact = self.subnets.fact(&eni.subnet).filter(|_| by_tag);
        fact.is_some_and(|fact| !fact.is_for_pods(is_primary, self.config.cluster.as_deref()))
    }

    /// Time goes on: pauses end, and every ENI learns whether coming pods may use it. Runs before anything is granted.
    pub(crate) fn pass_subnets(&mut self) {
        let now = self.clock;
        self.subnets.scarcity.values_mut().for_each(|known| known.pass(now));
        let learning = self.is_learning_subnets();
        if learning {
            self.wake_at(self.started_at.after(READING_WAIT));
        }
        let services: Vec<_> = self.pool.enis().map(|eni| self.service(eni, learning)).collect();
        for (eni, service) in self.pool.enis.values_mut().zip(services) {
            eni.service = service;
        }
    }

    fn service(&self, eni: &Eni, learning: bool) -> Service {
        let custom = self.placement != Placement::Discovered;
        match eni.role {
            EniRole::Primary if custom => Service::Elsewhere,
            EniRole::Unmanaged | EniRole::Trunk => Service::Open,
            EniRole::Primary | EniRole::Managed | EniRole::Efa => {
                let unread = self.config.subnets == SubnetChoice::ByTag && self.subnets.reading.is_none();
                if unread && !custom && eni.known_since < self.started_at {
                    // What the file says, as long as nobody says otherwise. What kept pods away for another reason does not.
                    match eni.service {
                        Service::Closed => Service::Closed,
                        Service::Open | Service::Elsewhere | Service::Unread => Service::Open,
                    }
                } else if learning {
                    Service::Unread
                } else if self.is_excluded(eni) {
                    Service::Closed
                } else {
                    Service::Open
                }
            }
        }
    }

    /// The one timer of an idle node: a subnet in use that is nearly empty is read again now and then.
    pub(crate) fn plan_subnets(&mut self, now: BootTime) {
        let idle = self.condition.scheduling == Scheduling::Cordoned || self.condition.life == Life::Leaving;
        let watches = self.config.subnets == SubnetChoice::ByTag && self.config.provisioning == Provisioning::Full;
        let is_watched = watches && !idle && self.subnets_in_use().any(SubnetFact::is_nearly_empty);
        if !is_watched {
            self.subnets.next_watch = None;
            return;
        }
        let read_at = self.subnets.reading.as_ref().map_or(now, |reading| reading.started_at);
        let tried_at = self.subnets.failed.map_or(read_at, |(_, at)| at.max(read_at));
        let at = match self.subnets.next_watch {
            Some(at) => at,
            None => tried_at.after(READING_LIFE + self.jitter.up_to(READING_LIFE / 4)),
        };
        self.subnets.next_watch = Some(at);
        if self.due(at, now) && !self.wish(Scope::Subnets).is_open() {
            self.subnets.next_watch = None;
            self.wish(Scope::Subnets).want(now);
        }
    }

    /// How much of a reserve the scarcest subnet in use allows, out of `ALL_SLACK`.
    pub(crate) fn slack(&self) -> u32 {
        let (from, to) = SLACK_PERCENT;
        let of = |fact: &SubnetFact| {
            let free = u64::from(fact.free) * u64::from(ALL_SLACK) / u64::from(fact.size.max(1));
            let free = u32::try_from(free).unwrap_or(ALL_SLACK);
            let floor = to * ALL_SLACK / 100;
            (free.saturating_sub(floor) * 100 / (from - to)).min(ALL_SLACK)
        };
        self.subnets_in_use().map(of).min().unwrap_or(ALL_SLACK)
    }

    fn subnets_in_use(&self) -> impl Iterator<Item = &SubnetFact> {
        let uses = |fact: &&SubnetFact| self.pool.enis().any(|eni| eni.is_open() && eni.subnet == fact.id);
        self.subnets
            .reading
            .iter()
            .flat_map(|reading| &reading.subnets)
            .filter(uses)
    }

    /// The files say which ENIs are closed to pods, so that a restart needs no reading.
    pub(crate) fn subnets_were_read(&mut self) {
        self.subnets.read_before = true;
        self.wish(Scope::Subnets).wanted_at = None;
    }

    /// The primary ENI's subnet counts again once nobody else says where pods' addresses come from.
    pub(crate) fn placement_changed(&mut self, placement: Placement, now: BootTime) {
        let is_back = placement == Placement::Discovered && self.placement != placement;
        self.placement = placement;
        if is_back {
            self.eni_of_unknown_subnet(now);
        }
    }

    /// An ENI that no file knows: its subnet may be closed to pods.
    pub(crate) fn eni_of_unknown_subnet(&mut self, now: BootTime) {
        let by_tag = self.config.subnets == SubnetChoice::ByTag && self.may_view(Scope::Subnets);
        if by_tag && self.subnets.reading.is_none() && !self.wish(Scope::Subnets).is_open() {
            self.wish(Scope::Subnets).want(now);
        }
    }

    pub(crate) fn subnets_viewed(&mut self, view: SubnetsView) {
        self.wish(Scope::Subnets).in_flight = false;
        self.backoffs.subnets.succeeded();
        for fact in &view.subnets {
            if let Some(known) = self.subnets.scarcity.get_mut(&fact.id) {
                known.read(fact.free, view.started_at);
            }
        }
        self.subnets.reading = Some(view);
        self.subnets.failed = None;
        self.subnets.asked_at = None;
        self.subnets.next_watch = None;
    }

    /// Nothing is asked again before something needs it.
    pub(crate) fn subnets_not_viewed(&mut self, refusal: Refusal, now: BootTime) {
        let timers = self.config.timers;
        self.backoffs.subnets.refused(refusal, now, &timers, &mut self.jitter);
        self.subnets.failed = Some((refusal, now));
        self.subnets.asked_at = None;
        self.subnets.next_watch = None;
    }

    /// A subnet gave what was asked.
    pub(crate) fn subnet_served(&mut self, work: &Work) {
        let (Some(subnet), Some(want)) = (self.subnet_of(work), work.want()) else {
            return;
        };
        if let Some(known) = self.subnets.scarcity.get_mut(&subnet) {
            known.served(want);
        }
        self.subnets.short = None;
    }

    /// A subnet lacks addresses: it rests, or is asked for less, and a reading tells what it has.
    pub(crate) fn subnet_refused(&mut self, work: &Work, refusal: Refusal, now: BootTime) {
        let (Some(subnet), Some(want)) = (self.subnet_of(work), work.want()) else {
            return;
        };
        let free = self.subnets.fresh_free(&subnet, now);
        let timers = self.config.timers;
        let known = self.subnets.scarcity.entry(subnet.clone()).or_default();
        // A new ENI takes an address for itself.
        let own = u32::from(matches!(work, Work::CreateEni { .. }));
        known.refused((want, own), refusal, free, now, &timers, &mut self.jitter);
        // What was known already needs no further reading.
        let explained = self
            .subnets
            .fact(&subnet)
            .is_some_and(|fact| fact.free < want.addresses() + own);
        let age = self.subnets.age(now);
        let explained = explained || (self.need() == Need::Refill && age.is_some_and(|age| age < READING_LIFE));
        self.subnets.short = Some(subnet);
        let readable = self.config.provisioning == Provisioning::Full && !self.is_reading_failing(now);
        if readable && !explained && !self.wish(Scope::Subnets).is_open() {
            self.wish(Scope::Subnets).want(now);
        }
    }

    /// EC2 refused prefixes for a reason of its own: perhaps the instance type takes none. Single addresses have to do.
    pub(crate) fn prefixes_refused(&mut self, work: &Work, now: BootTime) {
        let Some(subnet) = self
            .subnet_of(work)
            .filter(|_| matches!(work.want(), Some(Want::Prefixes(1..))))
        else {
            return;
        };
        let known = self.subnets.scarcity.entry(subnet).or_default();
        known.do_without_prefixes(now, &mut self.jitter);
    }

    fn subnet_of(&self, work: &Work) -> Option<SubnetId> {
        if let Work::CreateEni { subnet, .. } = work {
            return Some(subnet.clone());
        }
        Some(self.pool.enis.get(work.eni()?)?.subnet.clone())
    }

    /// The subnet that lacks addresses, why it was said to, and how many it has as far as is known.
    pub(crate) fn short_subnet(&self) -> Option<(&SubnetId, Refusal, Option<u32>)> {
        let subnet = self.subnets.short.as_ref()?;
        let shortage = self.subnets.scarcity.get(subnet)?.shortage()?;
        Some((
            subnet,
            shortage.refusal,
            self.subnets.fact(subnet).map(|fact| fact.free),
        ))
    }
}

impl Work {
    /// What it asks of a subnet.
    pub(crate) fn want(&self) -> Option<Want> {
        match self {
            Self::CreateEni { want, .. } | Self::AllocateAddresses { want, .. } => Some(*want),
            Self::Attach { .. }
            | Self::DeleteOnTermination { .. }
            | Self::SetGroups { .. }
            | Self::ReleaseAddresses { .. }
            | Self::Detach { .. }
            | Self::DeleteEni { .. }
            | Self::SetupEni { .. }
            | Self::TeardownEni { .. }
            | Self::ClearPodState { .. } => None,
        }
    }
}
