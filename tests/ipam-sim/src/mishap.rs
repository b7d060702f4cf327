//! Bad luck that is nobody's request: deaths, a full disk, a full subnet, missing permissions, strangers at our ENIs.

use std::net::Ipv4Addr;
use std::time::Duration;

use vpc_sim::model::request::{CreateNetworkInterface, DeleteNetworkInterface, Ipv4Request};
use vpc_types::EniId;

use crate::fault::Fault;
use crate::queue::Happening;
use crate::sandbox::{Netns, Phase};
use crate::world::{Weather, World};

/// Tag of the ENI that holds the addresses that others took.
const OTHERS: &str = "others";

impl World {
    /// One draw for each kind of misfortune, and the next draw later.
    pub(crate) fn mishap(&mut self) {
        if self.weather == Weather::Fair {
            return;
        }
        self.lose_sandbox();
        if self.core.is_some() && self.strikes(Fault::Crash) {
            self.crash();
        }
        self.begin_outages();
        self.break_imds();
        self.change_node();
        if self.strikes(Fault::ClockJump) {
            self.jump_clock();
        }
        if self.strikes(Fault::SubnetFull) {
            self.fill_subnet();
        }
        if self.strikes(Fault::SubnetFragmented) {
            self.fragment_subnet(OTHERS);
            let back = self.luck.millis(60_000, 1_800_000);
            self.after(back, Happening::SubnetFreed);
        }
        if self.strikes_rarely(Fault::Reboot) {
            self.reboot();
        }
        if self.strikes(Fault::ForeignEdit) {
            self.foreign_edit();
        }
        let pause = self.rhythm.millis(100, 8_000);
        self.after(pause, Happening::Mishap);
    }

    fn fill_subnet(&mut self) {
        let free = self
            .ec2
            .subnet(&self.subnet)
            .map_or(0, vpc_sim::model::Subnet::available);
        let Some(take) = free.checked_sub(1).filter(|take| *take > 0) else {
            return;
        };
        let mut request = CreateNetworkInterface::new(self.subnet.clone());
        request.description = OTHERS.to_owned();
        request.ipv4 = Some(Ipv4Request::Count(take));
        let done = self.ec2.call_directly(self.now, &request).is_ok();
        self.note(|| format!("others take {take} addresses: {done}"));
        let back = self.luck.millis(1_000, 120_000);
        self.after(back, Happening::SubnetFreed);
    }

    /// Others take one address of each block of sixteen: many are left, and none of them for a prefix.
    pub(crate) fn fragment_subnet(&mut self, whose: &str) {
        let Some(subnet) = self.ec2.subnet(&self.subnet) else {
            return;
        };
        let cidr = subnet.cidr;
        let blocks = cidr.subnets(28).expect("a subnet is not smaller than its blocks");
        let mut taken: Vec<Ipv4Addr> = Vec::new();
        for block in blocks {
            let first = u32::from(block.network());
            let address = Ipv4Addr::from(first + self.luck.number(0, 15));
            if subnet.is_free(address) {
                taken.push(address);
            }
        }
        let Some(primary) = taken.pop() else { return };
        let mut request = CreateNetworkInterface::new(self.subnet.clone());
        request.description = whose.to_owned();
        request.primary = Some(primary);
        request.ipv4 = (!taken.is_empty()).then_some(Ipv4Request::Addresses(taken));
        let done = self.ec2.call_directly(self.now, &request).is_ok();
        self.note(|| format!("{whose} take an address of each block: {done}"));
    }

    pub(crate) fn free_subnet(&mut self) {
        let theirs: Vec<EniId> = self
            .ec2
            .enis()
            .filter(|eni| eni.description == OTHERS)
            .map(|eni| eni.id.clone())
            .collect();
        for eni in theirs {
            let _ = self.ec2.call_directly(self.now, &DeleteNetworkInterface { eni });
        }
    }

    /// The node boots anew: kernel, files and pods are gone, ENIs are not.
    fn reboot(&mut self) {
        self.note(|| "reboot".to_owned());
        self.core = None;
        self.life.0 += 1;
        self.alarm = None;
        self.boots += 1;
        self.memory_lost_at = Some(self.now);
        self.booted_at = self.now;
        self.lose_files();
        self.set_aside = false;
        self.open_requests.clear();
        self.plugins.clear();
        self.cleared_at.clear();
        self.queue
            .retain(|happening| !matches!(happening, Happening::Runtime { .. } | Happening::Start));
        for sandbox in self.sandboxes.values_mut() {
            (sandbox.netns, sandbox.phase, sandbox.plugin) = (Netns::Dead, Phase::Deleted, None);
        }
        let links = std::mem::take(&mut self.kernel.links);
        self.kernel = crate::kernel::Kernel {
            links,
            ..Default::default()
        };
        self.after(Duration::from_secs(20), Happening::Start);
    }
}
