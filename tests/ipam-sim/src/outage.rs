//! Conditions that last for a while: a disk that cannot be written, missing permissions, storms of throttling.

use std::time::Duration;

use ipam_core::Refusal;

use crate::fault::Fault;
use crate::queue::Happening;
use crate::world::{EPOCH, World};

/// Kinds of EC2 calls, as permissions and request limits tell them apart.
const CALLS: &[&str] = &[
    "CreateEni",
    "Attach",
    "DeleteOnTermination",
    "AllocateAddresses",
    "ReleaseAddresses",
    "Detach",
    "DeleteEni",
    DESCRIBE,
];

/// The describes, beside the kinds of work.
pub(crate) const DESCRIBE: &str = "Describe";

/// A condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outage {
    /// Checkpoints cannot be written.
    Disk,
    /// The kernel cannot be dumped.
    Dumps,
    /// No call is permitted.
    Denied,
    /// Calls of this kind are not permitted.
    DeniedCall(&'static str),
    /// Nearly all calls of this kind are over the account's limit.
    Storm(&'static str),
}

impl World {
    /// Draws what may begin to last now.
    pub(crate) fn begin_outages(&mut self) {
        let seconds = |low: u64, high: u64| (low * 1_000, high * 1_000);
        if self.strikes(Fault::WriteFailure) {
            self.lasts(Outage::Disk, (500, 20_000));
        }
        if self.strikes_rarely(Fault::DiskFull) {
            self.lasts(Outage::Disk, seconds(120, 2_400));
        }
        if self.strikes(Fault::KernelBlind) {
            self.lasts(Outage::Dumps, seconds(5, 180));
        }
        if self.strikes(Fault::Denied) {
            self.lasts(Outage::Denied, seconds(1, 60));
        }
        if self.strikes(Fault::DeniedCall) {
            let call = self.luck.pick(CALLS);
            self.lasts(Outage::DeniedCall(call), seconds(10, 900));
        }
        if self.strikes(Fault::ThrottleStorm) {
            let call = self.luck.pick(CALLS);
            self.lasts(Outage::Storm(call), seconds(5, 300));
        }
    }

    /// Begins an outage of some length between these milliseconds, if it is not there already.
    fn lasts(&mut self, outage: Outage, (low, high): (u64, u64)) {
        let span = self.luck.millis(low, high);
        if self.outages.insert(outage) {
            self.note(|| format!("{outage:?} for {span:?}"));
            self.after(span, Happening::OutageOver(outage));
        }
    }

    /// Why EC2 refuses every call of this kind now, if it does.
    pub(crate) fn outage_of(&mut self, call: &'static str) -> Option<Refusal> {
        if self.outages.contains(&Outage::Denied) || self.outages.contains(&Outage::DeniedCall(call)) {
            return Some(Refusal::Denied);
        }
        // A few get through: others' calls leave a token now and then.
        let stormy = self.outages.contains(&Outage::Storm(call)) && self.pace.chance(900);
        stormy.then_some(Refusal::Throttled)
    }

    /// The administrator, or a time server, sets the clock.
    pub(crate) fn jump_clock(&mut self) {
        let day = 86_400;
        let span = Duration::from_secs(self.luck.pick(&[2, 60, 3_600, day, 400 * day]));
        self.epoch = match self.luck.below(3) {
            0 => EPOCH,
            1 => EPOCH - span,
            _ => EPOCH + span,
        };
        let epoch = self.epoch;
        self.note(|| format!("the clock is set: the run began at {epoch:?}"));
    }
}
