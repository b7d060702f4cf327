//! Writing the state to two files and reading it back.
//!
//! `ipam.json` holds the leases; the side file holds the rest and names the `ipam.json` it belongs to. When the two do not
//! match (the reference daemon ran in between, or a crash fell between the two writes), the leases come from `ipam.json`,
//! every address without a lease rests once, and the journal is verified against EC2.

use std::time::Duration;

use sha1::{Digest, Sha1};

use crate::address::AddressState;
use crate::config::{BootKind, CoreConfig};
use crate::core::{Core, OpHistory, OpRecord, OpState};
use crate::eni::{Backing, EniPhase};
use crate::event::{EniRole, Placement, Scope};
use crate::ipam_file::{self, Decoded, FileLease, RestoreError};
use crate::lease::{Lease, LeaseState};
use crate::mutant::{Defect, defective};
use crate::orphans::may_house;
use crate::outbox::Outbox;
use crate::side_file::{self, LeaseRow, SideSource, SideState};
use crate::{BootTime, Generation, Now};

/// Contents of both files for one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Generation of the state.
    pub generation: Generation,
    /// Contents of `ipam.json`; written first.
    pub ipam_json: Vec<u8>,
    /// Contents of the side file.
    pub side_file: Vec<u8>,
}

/// What was found at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredFiles {
    /// Contents of `ipam.json`, if there is one.
    pub ipam_json: Option<Vec<u8>>,
    /// Contents of the side file, if there is one.
    pub side_file: Option<Vec<u8>>,
}

/// How much of the stored state can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// No files: a fresh node.
    Nothing,
    /// Both files belong together: addresses without a lease may be granted at once.
    Everything,
    /// Leases only: other addresses rest once.
    Leases,
}

fn fingerprint(bytes: &[u8]) -> String {
    let digest = Sha1::digest(bytes);
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

impl Core {
    /// The files for the state of this moment.
    pub fn checkpoint(&self) -> Checkpoint {
        let generation = self.outbox.generation();
        let stamp = format!("{:016x}-{}", self.config.nonce, generation.0);
        let ipam_json = ipam_file::encode(self.pool.leases.values(), &self.others, &stamp);
        let source = SideSource {
            boot_id: &self.config.boot_id,
            // While addresses of unknown past still have to rest, the next run must not take them for known either.
            fingerprint: if self.rest_unknown.is_some() {
                String::new()
            } else {
                fingerprint(&ipam_json)
            },
            generation: generation.0,
            next_op: self.next_op,
            max_enis: self.slots_doubted_until.map_or(u16::MAX, |_| self.max_enis),
            budgets: self.backoffs.rows(),
            resting_elsewhere: self.resting_elsewhere.iter().map(|(a, until)| (*a, *until)).collect(),
            look_for_half_made: self
                .describe
                .get(&Scope::OwnAvailable)
                .is_some_and(|wish| wish.is_open()),
            rest_unknown: self.rest_unknown,
            // The primary ENI may be closed for another reason then.
            subnets_read: self.subnets.were_read() && self.placement == Placement::Discovered,
        };
        let side_file = side_file::encode(
            source,
            self.pool.enis.values(),
            self.pool.leases.values(),
            self.ops.iter(),
        );
        Checkpoint {
            generation,
            ipam_json,
            side_file,
        }
    }

    /// A core that goes on where the files end. A side file that contradicts itself counts as unreadable.
    ///
    /// After an error set `ipam.json` aside and start with the side file alone: the kernel then tells which addresses have live
    /// pods, and the journal is kept. Where there is no side file pass an empty one: it says that files existed, so that
    /// addresses of unknown past rest once. Entries that make no sense are no error: see [`Self::file_faults`].
    pub fn restore(config: CoreConfig, files: &StoredFiles, now: Now) -> Result<(Self, Restored), RestoreError> {
        Self::restore_as(Defect::None, config, files, now)
    }

    /// The same with a defect that is there from the first moment.
    #[cfg(feature = "mutants")]
    pub fn restore_mutant(
        mutant: Option<crate::Mutant>,
        config: CoreConfig,
        files: &StoredFiles,
        now: Now,
    ) -> Result<(Self, Restored), RestoreError> {
        let defect = mutant.map_or(Defect::None, Defect::Built);
        let (mut core, restored) = Self::restore_as(defect, config, files, now)?;
        if let Some(mutant) = mutant {
            core.mutate(mutant);
        }
        Ok((core, restored))
    }

    fn restore_as(
        defect: Defect,
        config: CoreConfig,
        files: &StoredFiles,
        now: Now,
    ) -> Result<(Self, Restored), RestoreError> {
        let restored = Self::restore_from(defect, config.clone(), files, now)?;
        if restored.0.check().is_ok() {
            return Ok(restored);
        }
        let unreadable = StoredFiles {
            ipam_json: files.ipam_json.clone(),
            side_file: Some(Vec::new()),
        };
        Self::restore_from(defect, config, &unreadable, now)
    }

    fn restore_from(
        defect: Defect,
        config: CoreConfig,
        files: &StoredFiles,
        now: Now,
    ) -> Result<(Self, Restored), RestoreError> {
        let mut core = Self::new(config, now);
        core.defect = defect;
        let side = files.side_file.as_deref().and_then(side_file::decode);
        if files.ipam_json.is_none() && files.side_file.is_none() {
            if core.config.node.boot == BootKind::Later {
                let half_made = now.boot.after(core.config.timers.half_made_after);
                core.wish(Scope::OwnAvailable).want(half_made);
            }
            return Ok((core, Restored::Nothing));
        }
        // A side file alone still has the journal: without it a creation under way would be lost.
        let ipam_json = files.ipam_json.as_deref().unwrap_or_default();
        let decoded = files
            .ipam_json
            .as_deref()
            .map_or_else(|| Ok(Decoded::default()), ipam_file::decode)?;
        (core.others, core.file_faults) = (decoded.others, decoded.faults);
        let timers = &core.config.timers;
        let mut rest = if files.ipam_json.is_some() {
            timers.hold()
        } else {
            timers.hold_unknown()
        };
        let mut rows = Vec::new();
        let restored = match side {
            Some((file, mut state)) => {
                let same_boot = file.boot_id == core.config.boot_id;
                core.outbox = Outbox::starting_at(Generation(file.generation));
                core.next_op = file.next_op;
                if file.look_for_half_made {
                    let half_made = now.boot.after(core.config.timers.half_made_after);
                    core.wish(Scope::OwnAvailable).want(half_made);
                }
                core.doubt_slots(file.max_enis, now.boot);
                if same_boot {
                    core.backoffs.restore(&file.budgets, now.boot);
                }
                let ours = file.fingerprint == fingerprint(ipam_json) || defective!(core, TrustOldFiles);
                let vouched = same_boot && ours && core.file_faults.is_empty();
                if vouched {
                    rows = std::mem::take(&mut state.leases);
                }
                // A second restart must not cut short what the first one began.
                rest = rest.max(Duration::from_millis(file.rest_unknown.unwrap_or(0)));
                if !same_boot {
                    state.forget_times();
                }
                core.restore_side(state, (!vouched).then_some(rest), now.boot);
                if vouched && file.subnets_read {
                    core.subnets_were_read();
                }
                if vouched {
                    Restored::Everything
                } else {
                    Restored::Leases
                }
            }
            None => {
                let half_made = now.boot.after(core.config.timers.half_made_after);
                core.wish(Scope::OwnAvailable).want(half_made);
                Restored::Leases
            }
        };
        core.rest_unknown = (restored == Restored::Leases).then_some(rest);
        core.unknown_until = core
            .rest_unknown
            .map_or_else(BootTime::default, |rest| now.boot.after(rest));
        core.restore_leases(decoded.leases, &rows, now);
        core.outbox.bump();
        Ok((core, restored))
    }

    /// With a rest, nothing vouches for the file: every address in it rests once.
    fn restore_side(&mut self, state: SideState, rest: Option<Duration>, now: BootTime) {
        for mut eni in state.enis {
            if eni.phase == EniPhase::Ready && eni.role != EniRole::Primary {
                // Its table and rule are checked again before it serves.
                eni.phase = EniPhase::Attached;
            }
            if let Some(rest) = rest {
                let until = now.after(rest);
                eni.backing = Backing::HearsayOnly;
                (eni.idle_since, eni.known_since, eni.changed_at) = (now, now, now);
                let unblocked = |state: &&mut AddressState| !matches!(state, AddressState::Blocked { .. });
                eni.addresses_mut()
                    .map(|(_, state)| state)
                    .filter(unblocked)
                    .for_each(|state| {
                        let until = state.rests_until().map_or(until, |former| former.max(until));
                        *state = AddressState::Cooling { since: now, until };
                    });
            }
            self.pool.enis.insert(eni.id.clone(), eni);
        }
        self.resting_elsewhere = match rest {
            None => state.resting_elsewhere.into_iter().collect(),
            // A lease of this file that ipam.json no longer has ended a moment before the crash.
            Some(rest) => {
                let at_least = |former: BootTime| former.max(now.after(rest));
                let leased = state.leases.iter().map(|row| (row.address, now));
                let resting = leased.chain(state.resting_elsewhere);
                resting.map(|(address, until)| (address, at_least(until))).collect()
            }
        };
        for (op, work) in state.journal {
            if defective!(self, ForgetIntents) {
                continue;
            }
            if work.eni().is_some_and(|id| !self.pool.enis.contains_key(id)) {
                // Only a damaged file has such a row; what the call did is in the next view.
                continue;
            }
            if let Some(eni) = work.eni().and_then(|id| self.pool.enis.get_mut(id)) {
                eni.ec2_op = Some(op);
                if let crate::Work::ReleaseAddresses { allocations, .. } = &work {
                    eni.mark(allocations, &AddressState::Releasing(op));
                }
            }
            // It may have been sent the moment before that run's end.
            let since = now.after(self.config.timers.call_life);
            if !self.will_repeat(&work) {
                let at = since.after(self.config.timers.settle);
                self.wish(Scope::Attached).want(at);
            }
            self.next_op = self.next_op.max(op.0 + 1);
            self.ops.insert(
                op,
                OpRecord {
                    work,
                    state: OpState::Unresolved { since },
                    history: OpHistory::MayHaveTakenEffect,
                    called_at: now,
                },
            );
        }
    }

    fn restore_leases(&mut self, leases: Vec<FileLease>, rows: &[LeaseRow], now: Now) {
        let generation = self.outbox.generation();
        for lease in leases {
            let row = rows.iter().find(|row| row.address == lease.address);
            // The clock may have been set since the grant, so its age is not known: its plugin may still be at work.
            let since = row.map_or(now.boot, |row| row.since);
            let home = self.pool.find_home(lease.address).filter(|eni| may_house(eni));
            let home = home.map(|eni| (eni.id.clone(), eni.device, eni.table()));
            let draining = row.is_some_and(|row| row.state == LeaseState::Draining);
            let state = match home {
                _ if draining => LeaseState::Draining,
                Some(_) => LeaseState::Granted,
                None => LeaseState::Orphan,
            };
            if let Some((id, ..)) = &home {
                let state = self.pool.address_mut(lease.address).expect("its home was just found");
                *state = AddressState::Leased(lease.key.clone());
                self.keep_in_service(id);
            }
            let home = home.map(|(_, device, table)| (device, table));
            let (device, table) = home.unwrap_or((vpc_types::DeviceNumber::PRIMARY, vpc_types::RouteTableId::MAIN));
            let restored = Lease {
                key: lease.key.clone(),
                pod: lease.pod,
                address: lease.address,
                device,
                table,
                state,
                since,
                granted_at: lease.granted_at,
                interfaces: lease.interfaces,
                gone_since: None,
                generation,
                del_waiters: Vec::new(),
            };
            self.pool.leases.insert(lease.key, restored);
        }
    }
}
