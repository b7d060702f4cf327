//! The shell around the core, as faithful to the real daemon as the core can notice: one event at a time, actions in
//! order, a checkpoint taken at the moment of `Persist`, death at any point.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ipam_core::{
    Action, BootKind, BootTime, Checkpoint, Core, CoreConfig, Event, KernelView, NodeFacts, Note, Now, OpId, OpOutcome,
    Outcome, Owner, Refusal, RestoreError, Restored, StoredFiles, Work,
};
use vpc_types::VethPrefix;

use crate::dice::Dice;
use crate::fault::Fault;
use crate::names;
use crate::outage::Outage;
use crate::queue::{Happening, PluginStep};
use crate::world::World;

impl World {
    fn config(&mut self) -> CoreConfig {
        let settings = self.settings.clone();
        CoreConfig {
            target: settings.target,
            mode: settings.mode,
            provisioning: settings.provisioning,
            subnets: settings.subnets,
            leak_sweep: settings.leak_sweep,
            start: settings.start,
            cluster: self.scenario.cluster.map(str::to_owned),
            timers: self.scenario.timers,
            node: NodeFacts {
                instance: self.instance.clone(),
                primary_mac: self.primary_mac,
                subnet: self.subnet.clone(),
                max_enis: self.scenario.max_enis,
                slots_per_eni: self.scenario.slots_per_eni,
                groups: self.primary_groups(),
                trunk: self.scenario.trunk,
                max_pods: settings.max_pods,
                cluster_nodes: self.scenario.cluster_nodes,
                boot: BootKind::Later,
            },
            veth_prefix: VethPrefix::default(),
            max_waiting: self.scenario.max_waiting,
            boot_id: format!("boot-{}", self.boots),
            nonce: self.nonce(),
        }
    }

    fn primary_groups(&self) -> BTreeSet<vpc_types::SecurityGroupId> {
        let primary = self.ec2.enis_of(&self.instance).find(|eni| eni.mac == self.primary_mac);
        primary
            .map(|eni| eni.groups.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// The living daemon's.
    pub(crate) fn nonce(&self) -> u64 {
        Dice::of(self.fate.seed(), &format!("nonce {}", self.life.0)).u64()
    }

    pub(crate) fn start_daemon(&mut self) {
        if self.core.is_some() {
            return;
        }
        self.damage_files();
        if self.set_aside && self.disk.ipam_json.is_none() {
            self.disk.side_file.get_or_insert_default();
        }
        self.change_settings();
        let (config, now) = (self.config(), self.both_times());
        let disk = self.disk.clone();
        let restored = catch_unwind(AssertUnwindSafe(|| self.restore(config.clone(), &disk, now)));
        let Ok(restored) = restored else {
            return self.violate(format!("restore panicked: {}", crate::run::last_panic()));
        };
        let core = match restored {
            Ok((core, how)) => {
                self.coverage.hit(
                    "restore",
                    match how {
                        Restored::Nothing => "nothing",
                        Restored::Leases => "leases",
                        Restored::Everything => "everything",
                    },
                );
                core
            }
            Err(_) => {
                self.coverage.hit("restore", "damaged");
                self.disk.ipam_json = None;
                self.disk.side_file.get_or_insert_default();
                self.set_aside = true;
                self.memory_lost_at = Some(self.now);
                self.forget_leases();
                let fresh = self.restore(config, &self.disk, now);
                fresh.expect("without ipam.json nothing is refused").0
            }
        };
        let life = self.life;
        self.note(|| format!("daemon starts, life {}", life.0));
        self.core = Some(core);
        self.subnets_shown = false;
        self.introduce_node();
        self.deliver(Event::Tick);
    }

    #[cfg(feature = "mutants")]
    fn restore(&self, config: CoreConfig, files: &StoredFiles, now: Now) -> Result<(Core, Restored), RestoreError> {
        Core::restore_mutant(self.defect, config, files, now)
    }

    #[cfg(not(feature = "mutants"))]
    fn restore(&self, config: CoreConfig, files: &StoredFiles, now: Now) -> Result<(Core, Restored), RestoreError> {
        assert!(self.defect.is_none(), "there are no defects without the feature");
        Core::restore(config, files, now)
    }

    /// The process dies: what it had in memory is gone, what it had asked of EC2 is not.
    pub(crate) fn crash(&mut self) {
        if self.core.take().is_none() {
            return;
        }
        self.note(|| "daemon dies".to_owned());
        self.life.0 += 1;
        self.alarm = None;
        self.plugins_lose_connection();
        let pause = if self.strikes(Fault::ReferenceRan) {
            self.downgrade()
        } else if self.luck.chance(700) {
            self.luck.millis(50, 3_000)
        } else {
            self.luck.millis(3_000, 120_000)
        };
        self.after(pause, Happening::Start);
    }

    pub(crate) fn tick(&mut self) {
        self.deliver(Event::Tick);
    }

    pub(crate) fn deliver(&mut self, event: Event) {
        let now = self.both_times();
        if self.core.is_none() {
            return;
        }
        self.core_events += 1;
        self.look_at(&event);
        let core = self.core.as_mut().expect("it was there some lines ago");
        let shown = event.clone();
        let result = catch_unwind(AssertUnwindSafe(|| core.handle(event, now)));
        // Reads of IMDS would fill the log.
        if !matches!(shown, Event::ImdsViewed(_)) {
            self.note(|| format!("-> {shown:?}"));
        }
        let Ok(actions) = result else {
            self.core = None;
            return self.violate(format!("core panicked: {}", crate::run::last_panic()));
        };
        for action in actions {
            if self.strikes_rarely(Fault::CrashBetweenActions) {
                return self.crash();
            }
            self.act(action);
        }
    }

    /// What the daemon learns by an event, for the invariants.
    fn look_at(&mut self, event: &Event) {
        let hour = self.load.at(self.now);
        if let Event::OpDone {
            outcome: OpOutcome::Refused(Refusal::Throttled),
            ..
        }
        | Event::DescribeFailed {
            refusal: Refusal::Throttled,
            ..
        } = event
        {
            hour.throttled += 1;
        }
        if let Event::OpDone {
            outcome: OpOutcome::Applied(_),
            ..
        }
        | Event::Ec2Viewed(_)
        | Event::SubnetsViewed(_) = event
        {
            hour.done += 1;
        }
        if let Event::Ec2Viewed(view) = event {
            self.coverage.hit("source", names::of_source(view.source));
        }
        if let Event::KernelViewed(view) = event
            && view.macs.contains(&self.primary_mac)
        {
            self.last_dump = Some(self.moment(view.started_at));
        }
        self.subnets_shown |= matches!(event, Event::SubnetsViewed(_));
    }

    /// For faults that could strike at every action: a small part of the ordinary odds.
    pub(crate) fn strikes_rarely(&mut self, fault: Fault) -> bool {
        self.scenario.has(fault) && self.pace.chance(40) && self.strikes(fault)
    }

    fn act(&mut self, action: Action) {
        self.note(|| format!("   {action:?}"));
        let life = self.life;
        match action {
            Action::Persist { .. } => {
                self.coverage.hit("action", "Persist");
                self.count_states();
                let Some(core) = &self.core else { return };
                let checkpoint = Box::new(core.checkpoint());
                let delay = self.pace.millis(0, 3);
                self.after(delay, Happening::WriteIpam { life, checkpoint });
            }
            Action::Reply { req, outcome } => {
                self.coverage.hit("action", "Reply");
                self.reply(req, outcome);
            }
            Action::Describe { scope } => {
                self.coverage.hit("action", "Describe");
                self.coverage.hit("scope", names::of_scope(scope));
                self.send_describe(scope);
            }
            Action::ViewKernel => {
                self.coverage.hit("action", "ViewKernel");
                let started_at = self.boot_time();
                let delay = self.pace.millis(0, 4);
                self.after(delay, Happening::DumpLinks { life, started_at });
            }
            Action::WakeAt { at } => {
                self.coverage.hit("action", "WakeAt");
                self.alarm = Some(self.moment(at).max(self.now));
            }
            Action::Run { op, work } => {
                self.coverage.hit("action", "Run");
                self.coverage.hit("work", work.kind());
                if let Work::CreateEni { want, .. } | Work::AllocateAddresses { want, .. } = &work {
                    self.coverage.hit("want", names::of_want(*want));
                }
                self.run_work(op, work);
            }
            Action::Note(note) => self.noted(&note),
        }
    }

    /// What the pool holds at a checkpoint.
    fn count_states(&mut self) {
        let Some(core) = &self.core else { return };
        let enis: BTreeSet<_> = core.pool().enis().map(|eni| (eni.phase, eni.role)).collect();
        for (phase, role) in enis {
            self.coverage.hit("phase", names::of_phase(phase));
            self.coverage.hit("role", role.as_str());
        }
        let addresses = core.pool().enis().flat_map(ipam_core::Eni::addresses);
        let kinds: BTreeSet<_> = addresses.map(|(_, state)| state.kind()).collect();
        for kind in kinds {
            self.coverage.hit("address", names::of_address(kind));
        }
    }

    fn run_work(&mut self, op: OpId, work: Work) {
        let life = self.life;
        match &work {
            Work::SetupEni { .. } | Work::TeardownEni { .. } | Work::ClearPodState { .. } => {
                let delay = self.pace.millis(0, 8);
                self.after(delay, Happening::KernelWork { life, op, work });
            }
            Work::CreateEni { .. }
            | Work::Attach { .. }
            | Work::DeleteOnTermination { .. }
            | Work::AllocateAddresses { .. }
            | Work::SetGroups { .. }
            | Work::ReleaseAddresses { .. }
            | Work::Detach { .. }
            | Work::DeleteEni { .. } => self.send_work(op, work),
        }
    }

    fn reply(&mut self, req: ipam_core::ReqId, outcome: Outcome) {
        self.coverage.hit(
            "outcome",
            match &outcome {
                Outcome::Granted(_) => "Granted",
                Outcome::Refused(_) => "Refused",
                Outcome::Deleted(_) => "Deleted",
                Outcome::UnknownPod => "UnknownPod",
                Outcome::NotCleared { .. } => "NotCleared",
            },
        );
        let pid = self.open_requests.remove(&req);
        if let Outcome::Granted(grant) = &outcome {
            self.check_grant(pid, *grant);
        }
        if let Some(pid) = pid {
            let delay = self.pace.millis(0, 2);
            self.after(delay, Happening::Answered { pid, req, outcome });
        }
    }

    fn noted(&mut self, note: &Note) {
        self.coverage.hit("action", "Note");
        match note {
            Note::Lease { state, .. } => {
                self.coverage
                    .hit("lease", state.map_or("ended", ipam_core::LeaseState::as_str));
            }
            Note::Refused { cause, .. } => {
                self.coverage.hit("note", "Refused");
                self.coverage.hit("cause", cause.code.as_str());
            }
            Note::OpRefused { refusal, .. } => {
                self.coverage.hit("note", "OpRefused");
                self.coverage.hit("refusal", names::of_refusal(*refusal));
            }
            Note::OpUnknown { kind, .. } => {
                self.coverage.hit("note", "OpUnknown");
                self.coverage.hit("unknown", kind);
            }
            Note::Eni { eni, phase } => {
                self.coverage.hit("note", "Eni");
                let attached = self.ec2.eni(eni).is_some_and(|eni| eni.attachment.is_some());
                if *phase == "forgotten" && attached && self.foreign_edits == 0 && !self.is_misled_by_imds() {
                    self.violate(format!("I3: {eni} is forgotten and attached"));
                }
            }
            Note::UnexplainedLife { .. } => self.coverage.hit("note", "UnexplainedLife"),
            Note::CheckpointFailing => self.coverage.hit("note", "CheckpointFailing"),
            Note::MassDisappearance { .. } | Note::SafeMode | Note::ImdsDiffers => {}
        }
    }

    pub(crate) fn write_ipam(&mut self, checkpoint: Box<Checkpoint>) {
        let generation = checkpoint.generation;
        let life = self.life;
        if self.outages.contains(&Outage::Disk) && self.pace.chance(500) {
            self.coverage.hit("write", "failed-before-ipam");
            return self.tell(Event::CheckpointFailed { generation });
        }
        self.disk.ipam_json = Some(checkpoint.ipam_json.clone());
        if self.strikes(Fault::CrashBetweenFiles) {
            return self.crash();
        }
        let delay = self.pace.millis(0, 3);
        self.after(delay, Happening::WriteSide { life, checkpoint });
    }

    pub(crate) fn write_side(&mut self, checkpoint: Checkpoint) {
        let generation = checkpoint.generation;
        if self.outages.contains(&Outage::Disk) {
            self.coverage.hit("write", "failed-between-files");
            return self.tell(Event::CheckpointFailed { generation });
        }
        self.disk.side_file = Some(checkpoint.side_file);
        self.tell(Event::CheckpointDurable { generation });
    }

    pub(crate) fn dump_links(&mut self, started_at: BootTime) {
        let blind = self.outages.contains(&Outage::Dumps);
        if blind || self.strikes(Fault::KernelViewFailure) && self.luck.chance(500) {
            return self.tell(Event::KernelViewFailed);
        }
        let mut macs: BTreeSet<_> = self.kernel.links.values().copied().collect();
        macs.insert(self.primary_mac);
        if self.strikes(Fault::KernelViewFailure) {
            macs.remove(&self.primary_mac);
        }
        let veths = self.kernel.veths.clone();
        let view = Box::new(KernelView {
            started_at,
            macs,
            veths,
            signs: Default::default(),
        });
        let (delay, life) = (self.pace.millis(0, 4), self.life);
        self.after(delay, Happening::DumpRoutes { life, view });
    }

    pub(crate) fn dump_routes(&mut self, mut view: KernelView) {
        view.signs = self.kernel.signs();
        self.tell(Event::KernelViewed(view));
    }

    pub(crate) fn kernel_changed(&mut self) {
        if self.core.is_some() {
            self.tell(Event::KernelChanged);
        }
    }

    pub(crate) fn kernel_work(&mut self, op: OpId, work: &Work) {
        let refused = self.strikes(Fault::KernelRefusal);
        let outcome = match work {
            _ if refused => OpOutcome::Refused(Refusal::Kernel),
            Work::SetupEni { eni, .. } if self.kernel.links.contains_key(eni) => {
                self.kernel.tables.insert(eni.clone());
                OpOutcome::Applied(ipam_core::Applied::Done)
            }
            Work::SetupEni { .. } => OpOutcome::Refused(Refusal::LinkMissing),
            Work::TeardownEni { eni, .. } => {
                self.kernel.tables.remove(eni);
                OpOutcome::Applied(ipam_core::Applied::Done)
            }
            Work::ClearPodState { address, owner } => {
                self.clear(*address, owner.as_ref());
                self.kernel_changed();
                OpOutcome::Applied(ipam_core::Applied::Done)
            }
            Work::CreateEni { .. }
            | Work::Attach { .. }
            | Work::DeleteOnTermination { .. }
            | Work::AllocateAddresses { .. }
            | Work::SetGroups { .. }
            | Work::ReleaseAddresses { .. }
            | Work::Detach { .. }
            | Work::DeleteEni { .. } => unreachable!("EC2's work does not come here"),
        };
        self.tell(Event::OpDone { op, outcome });
    }

    /// Removes rules and route as an owner may, and remembers when whose life ended.
    pub(crate) fn clear(&mut self, address: std::net::Ipv4Addr, owner: Option<&Owner>) {
        let had_life = self.kernel.has_life(address);
        self.kernel.clear(address, owner);
        if had_life && !self.kernel.has_life(address) {
            let container = owner.map(|owner| owner.container_id.clone()).unwrap_or_default();
            self.cleared_at.insert(address, (self.now, container));
        }
    }

    pub(crate) fn plugins_lose_connection(&mut self) {
        for (_, pid) in std::mem::take(&mut self.open_requests) {
            let Some(plugin) = self.plugins.get_mut(&pid) else {
                continue;
            };
            plugin.req = None;
            let step = match plugin.verb {
                crate::plugin::Verb::Add => PluginStep::Connect,
                crate::plugin::Verb::Del => PluginStep::ClearItself,
            };
            self.coverage.hit("plugin", "reconnected");
            let delay = self.pace.millis(1, 300);
            self.after(delay, Happening::Plugin { pid, step });
        }
    }
}
