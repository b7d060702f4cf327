//! Puts back what others remove from running pods, ENIs and the node, soon and not without end.
//!
//! Notices of the kernel become wishes; a wish waits a moment so that a burst costs one look, and longer while somebody keeps
//! removing things (`Limiter`). The owner then adds what is wired at that moment (`order`), and the kernel thread compares
//! and repairs. Owns wishes, pace and counts; what is missing is `datapath::repair`'s to find.
//!
//! Invariant: a repair is ordered by the owner, in the same queue as the clearing of addresses, so none can follow a clearing
//! with an older idea of who is wired.

mod limiter;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datapath::{Change, Fate, KernelChange, LinkState, NodeApplied, NodeError, RepairError, Repaired};
use tokio::sync::Notify;
use vpc_types::MacAddress;

pub(crate) use self::limiter::Limiter;
pub(crate) use self::wanted::{EniOfPods, RepairOrder, order, suspects};
use crate::exec::KernelExecutor;
use crate::observe::Chain;
use crate::owner::{Inbox, Input};

/// Removals come in bursts: a flush is thousands of notices within milliseconds.
const GATHER: Duration = Duration::from_millis(20);
/// A reload of a ruleset is often several transactions, and its writer may put our table back itself.
const GATHER_RULESET: Duration = Duration::from_millis(100);

/// What was removed or changed since the last look. Names objects, not their state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disturbance {
    /// Addresses whose route or rule it was, pods' and ENIs'.
    pub(crate) addresses: BTreeSet<Ipv4Addr>,
    /// Route tables.
    pub(crate) tables: BTreeSet<u32>,
    /// Aliases of devices that are down.
    pub(crate) aliases: BTreeSet<String>,
    /// Names of devices without an alias that are down.
    pub(crate) names: BTreeSet<String>,
    /// Devices that are down or have another MTU than ENIs should have.
    pub(crate) devices: BTreeSet<MacAddress>,
    /// The node's own objects, and whether anything may have been missed.
    pub(crate) reach: Reach,
}

/// How far a disturbance reaches beyond single addresses and devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Reach {
    /// Not at all.
    #[default]
    Named,
    /// To the node's own rules.
    Node,
    /// To anything: notices were lost.
    Everything,
}

impl Disturbance {
    /// Notices were lost.
    pub(crate) fn everything() -> Self {
        Self {
            reach: Reach::Everything,
            ..Self::default()
        }
    }

    /// Something of these addresses is not there.
    pub(crate) fn of_addresses(addresses: BTreeSet<Ipv4Addr>) -> Self {
        Self {
            addresses,
            ..Self::default()
        }
    }

    /// What a notice may mean for our objects; `mtu` is what ENIs should have.
    pub(crate) fn add(&mut self, change: &KernelChange, mtu: u16) {
        match change {
            KernelChange::RouteChanged { address } | KernelChange::AddressRemoved { address } => {
                self.addresses.insert(*address);
            }
            KernelChange::RuleChanged {
                address,
                fate: Fate::Removed,
            } => match address {
                Some(address) => drop(self.addresses.insert(*address)),
                None => self.widen(Reach::Node),
            },
            KernelChange::TableChanged { table } => drop(self.tables.insert(*table)),
            KernelChange::LinkAppeared {
                name,
                mac,
                alias,
                state,
                mtu: found,
                ..
            } => self.add_device(name, *mac, alias.as_ref(), *state, *found == u32::from(mtu)),
            KernelChange::Overrun => self.widen(Reach::Everything),
            // A device that is gone cannot be put back, and a rule that was made is none that is missing.
            KernelChange::LinkGone { .. } | KernelChange::RuleChanged { .. } => {}
        }
    }

    fn add_device(
        &mut self,
        name: &str,
        mac: Option<MacAddress>,
        alias: Option<&String>,
        state: LinkState,
        has_mtu: bool,
    ) {
        let is_down = state == LinkState::Down;
        match alias.filter(|alias| !alias.is_empty()) {
            Some(alias) if is_down => drop(self.aliases.insert(alias.clone())),
            Some(_) => {}
            None => {
                if is_down {
                    self.names.insert(name.to_owned());
                }
                self.devices.extend(mac.filter(|_| is_down || !has_mtu));
            }
        }
    }

    fn widen(&mut self, reach: Reach) {
        self.reach = self.reach.max(reach);
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn merge(&mut self, other: Self) {
        self.addresses.extend(other.addresses);
        self.tables.extend(other.tables);
        self.aliases.extend(other.aliases);
        self.names.extend(other.names);
        self.devices.extend(other.devices);
        self.widen(other.reach);
    }
}

/// Wishes, pace and counts, shared by those who notice, order and repair.
#[derive(Debug, Clone, Default)]
pub struct Repairs(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wished: Notify,
}

#[derive(Debug, Default)]
struct State {
    routing: Lane<Disturbance>,
    ruleset: Lane<()>,
    /// Who committed last, for the complaint about a writer that does not stop.
    writer: String,
    counts: BTreeMap<&'static str, u64>,
}

/// Wishes of one kind, and how fast they may be fulfilled.
#[derive(Debug, Default)]
struct Lane<T> {
    wish: Option<(Instant, T)>,
    limiter: Limiter,
}

impl<T: Default> Lane<T> {
    /// The first wish sets the time: later ones do not put it off.
    fn wish(&mut self, due: Instant) -> &mut T {
        &mut self.wish.get_or_insert_with(|| (due, T::default())).1
    }

    fn due(&self) -> Option<Instant> {
        let (due, _) = self.wish.as_ref()?;
        Some(self.limiter.not_before().map_or(*due, |pace| pace.max(*due)))
    }

    fn take_due(&mut self, now: Instant) -> Option<T> {
        self.due().filter(|due| *due <= now)?;
        self.wish.take().map(|(_, wish)| wish)
    }
}

impl Repairs {
    /// Something of ours may be gone.
    pub(crate) fn wish(&self, disturbance: Disturbance) {
        if !disturbance.is_empty() {
            self.state().routing.wish(Instant::now() + GATHER).merge(disturbance);
            self.0.wished.notify_one();
        }
    }

    /// Somebody changed a ruleset.
    pub(crate) fn wish_ruleset(&self, writer: String) {
        let mut state = self.state();
        state.writer = writer;
        state.ruleset.wish(Instant::now() + GATHER_RULESET);
        drop(state);
        self.0.wished.notify_one();
    }

    /// Objects put back since the start, by kind.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// Hands over wishes as they fall due, for as long as the daemon runs.
    pub async fn run(self, inbox: Inbox, kernel: KernelExecutor) {
        loop {
            let next = self.next_due().map(tokio::time::Instant::from_std);
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.wished.notified() => {}
                () = due => {}
            }
            let now = Instant::now();
            let routing = self.state().routing.take_due(now);
            if let Some(disturbance) = routing
                && !inbox.send(Input::Repair(disturbance)).await
            {
                return;
            }
            if self.state().ruleset.take_due(now).is_some() {
                kernel.repair_ruleset();
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let state = self.state();
        [state.routing.due(), state.ruleset.due()].into_iter().flatten().min()
    }

    /// Counts and tells what a look at pods and ENIs put back.
    pub(crate) fn done(&self, repaired: &Repaired, took: Duration) {
        let Repaired {
            links,
            routes,
            rules,
            enis,
            ..
        } = *repaired;
        for kept in &repaired.kept {
            let (address, device) = (kept.address, kept.device.as_str());
            tracing::error!(%address, device, "somebody keeps the route of a running pod for this device: left to them, the pod is cut off");
        }
        for error in &repaired.refused {
            tracing::warn!(%error, "not put back");
        }
        for error in &repaired.failed_enis {
            tracing::warn!(error, "ENI not put right");
        }
        if repaired.total() > 0 {
            tracing::warn!(
                links,
                routes,
                rules,
                enis,
                ?took,
                "put back what somebody removed from running pods and ENIs"
            );
            let counts = [
                ("podLinks", links),
                ("podRoutes", routes),
                ("podRules", rules),
                ("enis", enis),
            ];
            self.count_routing(counts.into_iter().collect());
        }
    }

    /// A look gave nothing. The pace of repairs is also that of the tries.
    pub(crate) fn failed(&self, error: &RepairError) {
        tracing::warn!(error = %Chain(error), "pods and ENIs not compared; trying again");
        self.state().routing.limiter.spend(Instant::now());
        self.wish(Disturbance::everything());
    }

    /// The same for the nf_tables table.
    pub(crate) fn failed_ruleset(&self, error: &NodeError) {
        tracing::warn!(error = %Chain(error), "nf_tables table not in line; trying again");
        let mut state = self.state();
        state.ruleset.limiter.spend(Instant::now());
        let writer = state.writer.clone();
        drop(state);
        self.wish_ruleset(writer);
    }

    /// Counts and tells what a look at the node put back.
    pub(crate) fn done_node(&self, applied: &NodeApplied) {
        let rules =
            u32::from(applied.mark_rule == Change::Changed) + u32::from(applied.service_rules == Change::Changed);
        let mtu = u32::from(applied.mtu == Change::Changed);
        if rules + mtu > 0 {
            tracing::warn!(rules, mtu, "put back what somebody changed on the node");
            self.count_routing(BTreeMap::from([("nodeRules", rules), ("nodeMtu", mtu)]));
        }
        if let Some(difference) = &applied.table {
            self.done_ruleset(difference);
        }
    }

    /// Counts and tells that the nf_tables table was loaded again.
    pub(crate) fn done_ruleset(&self, difference: &datapath::Difference) {
        let mut state = self.state();
        let writer = state.writer.clone();
        tracing::warn!(%difference, writer, "loaded the nf_tables table that somebody changed");
        *state.counts.entry("nftables").or_default() += 1;
        if let Some(pause) = state.ruleset.limiter.spend(Instant::now()) {
            tracing::warn!(
                ?pause,
                writer,
                "somebody keeps changing our nf_tables table: looked at more rarely"
            );
        }
    }

    fn count_routing(&self, objects: BTreeMap<&'static str, u32>) {
        let mut state = self.state();
        for (kind, count) in objects.into_iter().filter(|(_, count)| *count > 0) {
            *state.counts.entry(kind).or_default() += u64::from(count);
        }
        if let Some(pause) = state.routing.limiter.spend(Instant::now()) {
            tracing::warn!(
                ?pause,
                "somebody keeps removing our routes or rules (systemd-networkd and cloud-init do, where they are left to \
                 manage foreign routes and rules): looked at more rarely"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
