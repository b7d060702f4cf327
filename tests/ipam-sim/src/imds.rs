//! What the daemon reads from IMDS: as old as the service is, and at times short, reordered or wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use ipam_core::{BootTime, Ec2View, EniFact, Event, ImdsEni, ImdsView, Provisioning, Refusal, Scope, ViewSource};
use vpc_sim::model::{ImdsAnswer, ImdsFault};
use vpc_types::Allocation;

use crate::fault::Fault;
use crate::queue::Happening;
use crate::world::{Weather, World};

impl World {
    /// The daemon polls, and again a little later.
    pub(crate) fn poll_imds(&mut self) {
        let started_at = self.boot_time();
        if self.core.is_some()
            && let Some(enis) = self.read_imds()
        {
            let primary = enis.iter().find(|eni| eni.mac == self.primary_mac);
            let groups = primary.map(|eni| eni.groups.clone()).unwrap_or_default();
            let enis = enis.into_iter().map(|eni| ImdsEni {
                mac: eni.mac,
                allocations: eni.allocations,
            });
            self.coverage.hit("view", "ImdsViewed");
            self.polls += 1;
            self.tell(Event::ImdsViewed(ImdsView {
                started_at,
                groups,
                enis: enis.collect(),
            }));
        }
        let pause = match self.weather {
            Weather::Foul => self.rhythm.millis(20_000, 90_000),
            Weather::Fair => Duration::from_secs(300),
        };
        self.after(pause, Happening::PollImds);
    }

    /// The instance's ENIs as IMDS shows them now, if it answers.
    fn read_imds(&mut self) -> Option<Vec<EniFact>> {
        let instance = self.instance.clone();
        let ImdsAnswer::Enis(seen) = self.ec2.imds(self.now, &instance) else {
            return None;
        };
        let mut enis: Vec<EniFact> = seen
            .iter()
            .filter(|one| !one.is_half)
            .map(|one| crate::ec2::fact(&one.eni, &instance))
            .collect();
        if self.strikes(Fault::ImdsLies) {
            self.lie(&mut enis);
        }
        Some(enis)
    }

    /// Whether IMDS shows other ENIs or addresses than there are.
    pub(crate) fn imds_is_wrong(&self) -> bool {
        let ImdsAnswer::Enis(seen) = self.ec2.clone().imds(self.now, &self.instance) else {
            return false;
        };
        let shown: BTreeSet<_> = seen
            .iter()
            .map(|one| (one.eni.mac, one.is_half, one.eni.allocations().collect::<BTreeSet<_>>()))
            .collect();
        let there = self.ec2.enis_of(&self.instance);
        shown != there.map(|eni| (eni.mac, false, eni.allocations().collect())).collect()
    }

    fn lie(&mut self, enis: &mut Vec<EniFact>) {
        let what = self
            .luck
            .pick(&["short", "shorter", "less", "more", "reordered", "empty"]);
        self.coverage.hit("imds-lie", what);
        let chosen = self.luck.below(enis.len());
        match what {
            "short" => drop(enis.pop()),
            "shorter" if chosen < enis.len() => drop(enis.remove(chosen)),
            "less" => {
                if let Some(eni) = enis.get_mut(chosen) {
                    eni.allocations.pop_first();
                }
            }
            "more" => {
                let stranger = std::net::Ipv4Addr::from(0x0a00_0004 + self.luck.number(0, 250));
                if let Some(eni) = enis.get_mut(chosen) {
                    eni.allocations.insert(Allocation::Ip(stranger));
                }
            }
            "reordered" => enis.reverse(),
            _ => enis.iter_mut().for_each(|eni| eni.allocations = BTreeSet::new()),
        }
    }

    /// Whether the core sees nothing but an IMDS that is wrong.
    pub(crate) fn is_misled_by_imds(&self) -> bool {
        self.settings.provisioning == Provisioning::ImdsOnly && self.imds_is_wrong()
    }

    /// Where EC2 may not be asked, IMDS is read in its place.
    pub(crate) fn view_through_imds(&mut self, started_at: BootTime) -> Event {
        let view = |enis| Ec2View {
            started_at,
            scope: Scope::Attached,
            source: ViewSource::Imds,
            enis,
        };
        self.read_imds().map_or(
            Event::DescribeFailed {
                scope: Scope::Attached,
                refusal: Refusal::Unavailable,
            },
            |enis| Event::Ec2Viewed(view(enis)),
        )
    }

    /// Whether the daemon reads IMDS instead of asking EC2.
    pub(crate) fn sees_imds_only(&self, scope: Scope) -> bool {
        scope == Scope::Attached && self.settings.provisioning == Provisioning::ImdsOnly
    }

    /// Draws whether IMDS begins to be wrong.
    pub(crate) fn break_imds(&mut self) {
        if self.strikes(Fault::ImdsGone) {
            self.ec2.break_imds(ImdsFault::Gone(self.instance.clone()));
            let back = self.luck.millis(1_000, 300_000);
            self.after(back, Happening::ImdsHealed);
        }
        if self.strikes(Fault::ImdsStale) {
            let enis: Vec<_> = self.ec2.enis_of(&self.instance).map(|eni| eni.id.clone()).collect();
            let eni = enis[self.luck.below(enis.len())].clone();
            let fault = match self.luck.below(3) {
                0 => ImdsFault::HalfEntry(eni),
                1 => ImdsFault::NoSecondaries(eni),
                _ => ImdsFault::StaleForever(eni),
            };
            self.note(|| format!("{fault:?}"));
            self.ec2.break_imds(fault);
            let back = self.luck.millis(1_000, 300_000);
            self.after(back, Happening::ImdsHealed);
        }
    }
}
