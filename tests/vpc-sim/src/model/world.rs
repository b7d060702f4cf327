//! The state of the region: resources, their histories, transitions under way, and the changes not yet drained.
//!
//! Owns every resource and the rules that keep them consistent with each other; knows nothing of throttling, faults
//! or counts, which [`super::Model`] puts around it. Invariant: what a subnet counts as taken is exactly what the
//! ENIs in it hold (see [`super::audit`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use vpc_types::{AttachmentId, EniId, InstanceId, MacAddress, SecurityGroupId, SubnetId, VpcId};

use super::change::Change;
use super::history::{History, Version, Viewer};
use super::ops::Tokens;
use super::record::{AttachmentStatus, Eni, Instance, SecurityGroup, Vpc};
use super::subnet::Subnet;
use super::{Ec2Error, ErrorCode, FreshIds, Settings};

/// How often old versions are forgotten.
const SETTLING_PERIOD: Duration = Duration::from_secs(1);

/// Something that happens by itself when its time comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Transition {
    Plugged(AttachmentId),
    Unplugged(AttachmentId),
    Detached(AttachmentId),
}

/// The region. Operations get it to read and change; users of the model see it only through [`super::Model`].
#[derive(Debug, Clone)]
pub struct World {
    pub(super) settings: Settings,
    pub(super) vpcs: BTreeMap<VpcId, Vpc>,
    pub(super) subnets: BTreeMap<SubnetId, Subnet>,
    pub(super) groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    pub(super) instances: BTreeMap<InstanceId, Instance>,
    pub(super) enis: BTreeMap<EniId, History>,
    pub(super) attachments: BTreeMap<AttachmentId, EniId>,
    /// Attachments whose device is on the instance.
    pub(super) plugged: BTreeSet<AttachmentId>,
    pub(super) tokens: Tokens,
    /// ENIs whose next change IMDS will not see.
    pub(super) imds_stale: BTreeSet<EniId>,
    pub(super) picks: Rng,
    /// ENIs that some viewer may still see on an instance, so that nobody has to look at all.
    pub(super) seen_on: BTreeMap<InstanceId, BTreeSet<EniId>>,
    next_settling: Duration,
    /// MACs in use: one per ENI that exists.
    macs: BTreeSet<MacAddress>,
    unsettled: BTreeSet<EniId>,
    pending: BTreeMap<(Duration, u64), Transition>,
    scheduled: u64,
    changes: VecDeque<Change>,
    ids: Rng,
    delays: Rng,
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        let seed = settings.seed;
        Self {
            settings,
            vpcs: BTreeMap::new(),
            subnets: BTreeMap::new(),
            groups: BTreeMap::new(),
            instances: BTreeMap::new(),
            enis: BTreeMap::new(),
            attachments: BTreeMap::new(),
            plugged: BTreeSet::new(),
            tokens: Tokens::default(),
            imds_stale: BTreeSet::new(),
            // Streams of their own, so that another delay profile does not change ids and addresses.
            picks: Rng::with_seed(seed ^ 0x7069_636b),
            seen_on: BTreeMap::new(),
            next_settling: Duration::ZERO,
            macs: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            pending: BTreeMap::new(),
            scheduled: 0,
            changes: VecDeque::new(),
            ids: Rng::with_seed(seed ^ 0x6964_7300),
            delays: Rng::with_seed(seed ^ 0x6465_6c61),
        }
    }

    /// Seventeen hexadecimal digits, the first 0, as EC2 makes them.
    pub(super) fn new_id(&mut self, prefix: &str) -> String {
        let mut id = String::with_capacity(prefix.len() + 17);
        write!(id, "{prefix}0{:016x}", self.ids.u64(..)).expect("writing to a string cannot fail");
        id
    }

    pub(super) fn new_mac(&mut self) -> MacAddress {
        loop {
            let [a, b, c, d, e, ..] = self.ids.u64(..).to_be_bytes();
            // Locally administered unicast, as Nitro's are.
            let mac = MacAddress([0x02, a, b, c, d, e]);
            if !self.macs.contains(&mac) {
                return mac;
            }
        }
    }

    pub(super) fn sample(&mut self, delay: super::Delay) -> Duration {
        delay.sample(&mut self.delays)
    }

    /// How many ENIs exist, in truth.
    pub(super) fn eni_count(&self) -> usize {
        self.macs.len()
    }

    /// ENIs that exist, in truth.
    pub(super) fn live_enis(&self) -> impl Iterator<Item = &Arc<Eni>> {
        self.enis.values().filter_map(History::current)
    }

    pub(super) fn find_eni(&self, id: &EniId) -> Option<&Arc<Eni>> {
        self.enis.get(id).and_then(History::current)
    }

    /// The ENI a call names.
    pub(super) fn get_eni(&self, id: &EniId, now: Duration) -> Result<Arc<Eni>, Ec2Error> {
        let history = self.enis.get(id).ok_or_else(|| Ec2Error::eni_not_found(id))?;
        let hidden =
            self.settings.fresh_ids == FreshIds::UnknownUntilVisible && history.view(Viewer::Api, now).is_none();
        history
            .current()
            .filter(|_| !hidden)
            .cloned()
            .ok_or_else(|| Ec2Error::eni_not_found(id))
    }

    pub(super) fn get_subnet(&mut self, id: &SubnetId) -> Result<&mut Subnet, Ec2Error> {
        self.subnets.get_mut(id).ok_or_else(|| {
            Ec2Error::new(
                ErrorCode::InvalidSubnetNotFound,
                format!("The subnet ID '{id}' does not exist"),
            )
        })
    }

    /// The allocator of an ENI's own subnet, with the dice.
    pub(super) fn allocator(&mut self, eni: &Eni) -> (&mut Subnet, &mut Rng) {
        let subnet = self
            .subnets
            .get_mut(&eni.subnet)
            .expect("subnets are never deleted, so an ENI's exists");
        (subnet, &mut self.picks)
    }

    pub(super) fn get_instance(&self, id: &InstanceId) -> Result<&Instance, Ec2Error> {
        self.instances.get(id).ok_or_else(|| {
            Ec2Error::new(
                ErrorCode::InvalidInstanceNotFound,
                format!("The instance ID '{id}' does not exist"),
            )
        })
    }

    pub(super) fn view_enis(&self, viewer: Viewer, now: Duration) -> impl Iterator<Item = &Arc<Eni>> {
        self.enis.values().filter_map(move |history| history.view(viewer, now))
    }

    /// ENIs that this viewer sees on an instance.
    pub(super) fn view_enis_of<'a>(
        &'a self,
        viewer: Viewer,
        now: Duration,
        instance: &'a InstanceId,
    ) -> impl Iterator<Item = &'a Arc<Eni>> {
        let candidates = self.seen_on.get(instance).into_iter().flatten();
        let views = candidates.filter_map(move |id| self.enis.get(id)?.view(viewer, now));
        views.filter(move |eni| eni.attachment.as_ref().is_some_and(|tie| tie.instance == *instance))
    }

    pub(super) fn insert_eni(&mut self, now: Duration, eni: Eni) -> Arc<Eni> {
        self.macs.insert(eni.mac);
        let (id, eni) = (eni.id.clone(), Arc::new(eni));
        let version = self.version(now, &id, Some(Arc::clone(&eni)));
        self.enis.insert(id.clone(), History::new(version));
        self.unsettled.insert(id);
        eni
    }

    /// Changes an ENI that exists. All viewers learn of it in their own time.
    pub(super) fn update_eni(&mut self, now: Duration, id: &EniId, change: impl FnOnce(&mut Eni)) -> Arc<Eni> {
        let mut eni = self
            .find_eni(id)
            .expect("the caller has just looked the ENI up")
            .as_ref()
            .clone();
        change(&mut eni);
        let eni = Arc::new(eni);
        self.record(now, id, Some(Arc::clone(&eni)));
        eni
    }

    /// Deletes an ENI and frees what it held.
    pub(super) fn remove_eni(&mut self, now: Duration, eni: &Eni) {
        let (subnet, _) = self.allocator(eni);
        subnet.give_back(vpc_types::Allocation::Ip(eni.primary));
        eni.allocations().for_each(|allocation| subnet.give_back(allocation));
        self.macs.remove(&eni.mac);
        self.record(now, &eni.id, None);
    }

    fn record(&mut self, now: Duration, id: &EniId, eni: Option<Arc<Eni>>) {
        let version = self.version(now, id, eni);
        let history = self.enis.get_mut(id).expect("only existing ENIs are recorded");
        history.push(version);
        self.unsettled.insert(id.clone());
    }

    pub(super) fn reveal(&mut self, now: Duration, id: &EniId) {
        if let Some(history) = self.enis.get_mut(id) {
            history.reveal(now);
        }
    }

    fn version(&mut self, now: Duration, id: &EniId, eni: Option<Arc<Eni>>) -> Version {
        if let Some(tie) = eni.as_ref().and_then(|eni| eni.attachment.as_ref()) {
            self.seen_on.entry(tie.instance.clone()).or_default().insert(id.clone());
        }
        let (api_lag, imds_lag) = (self.settings.describe_lag, self.settings.imds_lag);
        let api_at = now + self.sample(api_lag);
        let imds_at = if self.imds_stale.remove(id) {
            Duration::MAX
        } else {
            now + self.sample(imds_lag)
        };
        Version { eni, api_at, imds_at }
    }

    /// Reports a change, if the ENI's device is on an instance.
    pub(super) fn report(&mut self, eni: &Eni, change: impl FnOnce(EniId) -> Change) {
        if eni
            .attachment
            .as_ref()
            .is_some_and(|attachment| self.plugged.contains(&attachment.id))
        {
            self.changes.push_back(change(eni.id.clone()));
        }
    }

    pub(super) fn push_change(&mut self, change: Change) {
        self.changes.push_back(change);
    }

    pub(super) fn drain_changes(&mut self) -> Vec<Change> {
        self.changes.drain(..).collect()
    }

    pub(super) fn schedule(&mut self, at: Duration, transition: Transition) {
        self.scheduled += 1;
        self.pending.insert((at, self.scheduled), transition);
    }

    pub(super) fn next_transition(&self) -> Option<Duration> {
        self.pending.keys().next().map(|(at, _)| *at)
    }

    /// Runs what is due, each at its own time, then forgets what nobody can see any more.
    pub(super) fn advance(&mut self, now: Duration) {
        while let Some(entry) = self.pending.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), transition) = entry.remove_entry();
            match transition {
                Transition::Plugged(attachment) => self.plug(at, &attachment),
                Transition::Unplugged(attachment) => self.unplug(&attachment),
                Transition::Detached(attachment) => self.finish_detach(at, &attachment),
            }
        }
        self.settle(now);
    }

    /// Forgets old versions. Views do not depend on it, so it need not happen at every call.
    fn settle(&mut self, now: Duration) {
        if now < self.next_settling {
            return;
        }
        self.next_settling = now + SETTLING_PERIOD;
        let (enis, seen_on) = (&mut self.enis, &mut self.seen_on);
        self.unsettled.retain(|id| {
            let Some(history) = enis.get_mut(id) else { return false };
            let before = history.instances();
            history.prune(now);
            for gone in before.difference(&history.instances()) {
                if let Some(seen) = seen_on.get_mut(gone) {
                    seen.remove(id);
                }
            }
            if history.is_forgotten(now) {
                enis.remove(id);
                return false;
            }
            !history.is_settled() || history.current().is_none()
        });
    }

    fn attached_eni(&self, attachment: &AttachmentId) -> Option<&Arc<Eni>> {
        self.attachments.get(attachment).and_then(|eni| self.find_eni(eni))
    }

    /// The device appears. A detach that came in between has already taken the state further.
    pub(super) fn plug(&mut self, at: Duration, attachment: &AttachmentId) {
        let Some(eni) = self.attached_eni(attachment).map(|eni| eni.id.clone()) else {
            return;
        };
        let mut was_attaching = false;
        let eni = self.update_eni(at, &eni, |eni| {
            if let Some(tie) = eni
                .attachment
                .as_mut()
                .filter(|tie| tie.status == AttachmentStatus::Attaching)
            {
                tie.status = AttachmentStatus::Attached;
                was_attaching = true;
            }
        });
        if let Some(tie) = eni.attachment.clone().filter(|_| was_attaching) {
            self.plugged.insert(tie.id);
            self.push_change(Change::Attached {
                eni,
                instance: tie.instance,
                device: tie.device,
                card: tie.card,
            });
        }
    }

    /// The device disappears.
    pub(super) fn unplug(&mut self, attachment: &AttachmentId) {
        if !self.plugged.remove(attachment) {
            return;
        }
        let eni = self
            .attached_eni(attachment)
            .expect("a plugged device belongs to an ENI")
            .clone();
        let instance = eni
            .attachment
            .as_ref()
            .expect("a plugged ENI has its attachment")
            .instance
            .clone();
        self.push_change(Change::Detached {
            eni: eni.id.clone(),
            instance,
        });
    }

    /// The ENI becomes available.
    pub(super) fn finish_detach(&mut self, at: Duration, attachment: &AttachmentId) {
        self.unplug(attachment);
        let Some(id) = self.attachments.remove(attachment) else {
            return;
        };
        let eni = self.find_eni(&id).expect("an attachment belongs to an ENI").clone();
        if let Some(tie) = &eni.attachment
            && let Some(instance) = self.instances.get_mut(&tie.instance)
        {
            instance.enis.remove(&id);
        }
        self.update_eni(at, &id, |eni| eni.attachment = None);
    }
}
