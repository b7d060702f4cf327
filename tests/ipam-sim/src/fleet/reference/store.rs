//! What a reference node knows of its ENIs and addresses: which are assigned, which rest.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use vpc_types::{Allocation, AttachmentId, EniId};

use super::formulas::{Formulas, Others, Sums};

/// Rest of an address.
const COOLING: Duration = Duration::from_secs(30);
/// Age below which an ENI stays.
const MINIMUM_LIFE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Assigned,
    Rests(Duration),
}

#[derive(Debug, Clone)]
struct Block {
    allocation: Allocation,
    /// Addresses that were used and are not free again.
    used: BTreeMap<Ipv4Addr, Use>,
}

impl Block {
    fn size(&self) -> u32 {
        match self.allocation {
            Allocation::Ip(_) => 1,
            Allocation::Prefix(_) => 16,
        }
    }

    fn assigned(&self) -> u32 {
        let assigned = self.used.values().filter(|one| **one == Use::Assigned).count();
        u32::try_from(assigned).expect("a block has at most 16 addresses")
    }

    fn take(&mut self, now: Duration) -> Option<Ipv4Addr> {
        self.used.retain(|_, one| match one {
            Use::Assigned => true,
            Use::Rests(until) => *until > now,
        });
        let free = self
            .allocation
            .addresses()
            .find(|address| !self.used.contains_key(address))?;
        self.used.insert(free, Use::Assigned);
        Some(free)
    }
}

/// One ENI.
#[derive(Debug, Clone)]
pub(crate) struct Eni {
    pub(crate) id: EniId,
    /// Absent on the primary.
    pub(crate) attachment: Option<AttachmentId>,
    added_at: Duration,
    blocks: Vec<Block>,
}

impl Eni {
    fn assigned(&self) -> u32 {
        self.blocks.iter().map(Block::assigned).sum()
    }

    pub(crate) fn slots_used(&self) -> u32 {
        u32::try_from(self.blocks.len()).expect("an ENI has at most 64 slots")
    }
}

/// All of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) enis: Vec<Eni>,
}

impl Store {
    pub(crate) fn add_eni(&mut self, now: Duration, id: EniId, attachment: Option<AttachmentId>) {
        self.enis.push(Eni {
            id,
            attachment,
            added_at: now,
            blocks: Vec::new(),
        });
    }

    pub(crate) fn add(&mut self, eni: &EniId, allocations: &[Allocation]) {
        if let Some(eni) = self.enis.iter_mut().find(|one| one.id == *eni) {
            eni.blocks.extend(allocations.iter().map(|allocation| Block {
                allocation: *allocation,
                used: BTreeMap::new(),
            }));
        }
    }

    pub(crate) fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for eni in &self.enis {
            sums.idle_eni |= eni.attachment.is_some() && eni.assigned() == 0;
            for block in &eni.blocks {
                let assigned = block.assigned();
                sums.total += block.size();
                sums.assigned += assigned;
                if matches!(block.allocation, Allocation::Prefix(_)) {
                    sums.prefixes += 1;
                    sums.free_prefixes += u32::from(assigned == 0);
                }
            }
        }
        sums
    }

    /// A free address of a random block of a random ENI, the lowest there.
    pub(crate) fn assign(&mut self, now: Duration, rng: &mut fastrand::Rng) -> Option<Ipv4Addr> {
        let mut order: Vec<(usize, usize)> = self
            .enis
            .iter()
            .enumerate()
            .flat_map(|(eni, one)| (0..one.blocks.len()).map(move |block| (eni, block)))
            .collect();
        // ENI by ENI in one random order, within an ENI in another: shuffling all and sorting by a random rank of the ENI.
        let ranks: Vec<u32> = self.enis.iter().map(|_| rng.u32(..)).collect();
        rng.shuffle(&mut order);
        order.sort_by_key(|(eni, _)| ranks[*eni]);
        order
            .into_iter()
            .find_map(|(eni, block)| self.enis[eni].blocks[block].take(now))
    }

    /// Begins the rest of an address; when it is over.
    pub(crate) fn unassign(&mut self, now: Duration, address: Ipv4Addr) -> Option<Duration> {
        let blocks = self.enis.iter_mut().flat_map(|eni| &mut eni.blocks);
        for block in blocks {
            if let Some(one) = block.used.get_mut(&address) {
                *one = Use::Rests(now + COOLING);
                return Some(now + COOLING);
            }
        }
        None
    }

    /// An ENI with a free slot.
    pub(crate) fn allocatable(&self, slots: u32, rng: &mut fastrand::Rng) -> Vec<EniId> {
        let mut enis: Vec<EniId> = self
            .enis
            .iter()
            .filter(|eni| eni.slots_used() < slots)
            .map(|eni| eni.id.clone())
            .collect();
        rng.shuffle(&mut enis);
        enis
    }

    pub(crate) fn slots_used(&self, eni: &EniId) -> u32 {
        self.enis.iter().find(|one| one.id == *eni).map_or(0, Eni::slots_used)
    }

    /// Takes up to `count` blocks without assigned address out of the store, resting or not.
    pub(crate) fn take_freeable(&mut self, count: u32, wants_prefix: bool) -> Vec<(EniId, Vec<Allocation>)> {
        let mut left = count;
        let mut taken = Vec::new();
        for eni in &mut self.enis {
            let mut lot = Vec::new();
            eni.blocks.retain(|block| {
                let fits = matches!(block.allocation, Allocation::Prefix(_)) == wants_prefix;
                let goes = left > 0 && fits && block.assigned() == 0;
                if goes {
                    left -= 1;
                    lot.push(block.allocation);
                }
                !goes
            });
            if !lot.is_empty() {
                taken.push((eni.id.clone(), lot));
            }
        }
        taken
    }

    /// Takes an ENI out that nobody needs, if there is one.
    pub(crate) fn take_deletable(
        &mut self,
        now: Duration,
        formulas: &Formulas,
        rng: &mut fastrand::Rng,
    ) -> Option<Eni> {
        let mut order: Vec<usize> = (0..self.enis.len()).collect();
        rng.shuffle(&mut order);
        let found = order.into_iter().find(|index| {
            let eni = &self.enis[*index];
            let rests = |block: &Block| {
                let resting = |one: &Use| matches!(one, Use::Rests(until) if *until > now);
                block.used.values().any(resting)
            };
            eni.attachment.is_some()
                && now >= eni.added_at + MINIMUM_LIFE
                && eni.assigned() == 0
                && !eni.blocks.iter().any(rests)
                && formulas.can_spare(self.others(*index))
        })?;
        Some(self.enis.remove(found))
    }

    fn others(&self, without: usize) -> Others {
        let mut others = Others::default();
        let rest = self.enis.iter().enumerate().filter(|(index, _)| *index != without);
        for block in rest.flat_map(|(_, eni)| &eni.blocks) {
            let assigned = block.assigned();
            others.total += block.size();
            others.free += block.size() - assigned;
            others.free_prefixes += u32::from(assigned == 0);
        }
        others
    }
}
