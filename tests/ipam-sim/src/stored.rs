//! What befalls the two files while the daemon is down: loss, damage, and the reference daemon, which knows only one of
//! them.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipam_core::{Owner, StoredFiles};
use serde_json::{Value, json};
use vpc_sim::model::request::{AssignPrivateIpAddresses, Ipv4Request, UnassignPrivateIpAddresses};
use vpc_types::{Allocation, EniId, IpamKey, PodName, Prefix28, VethPrefix, host_veth_name};

use crate::fault::Fault;
use crate::foreign::addresses_of;
use crate::queue::Happening;
use crate::sandbox::{Netns, Phase, Record, Sandbox};
use crate::world::World;

impl World {
    /// What may befall the files while the daemon is down.
    pub(crate) fn damage_files(&mut self) {
        if self.disk.side_file.is_some() && self.strikes(Fault::SideFileLost) {
            self.disk.side_file = None;
            self.lose_journal();
        }
        if self.disk.side_file.is_some() && self.strikes(Fault::SideFileDamaged) {
            let bytes = self.disk.side_file.take().unwrap_or_default();
            self.disk.side_file = Some(self.damaged_side_file(bytes));
            self.lose_journal();
        }
        if self.disk.ipam_json.is_some() && self.strikes(Fault::FilesDamaged) {
            let bytes = self.disk.ipam_json.take().unwrap_or_default();
            self.disk.ipam_json = Some(self.damaged_ipam_json(&bytes));
        }
    }

    fn lose_journal(&mut self) {
        self.memory_lost_at = Some(self.now);
        self.tokens_of.clear();
    }

    fn damaged_side_file(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let what = self.luck.pick(&["side-empty", "side-truncated", "side-future"]);
        self.coverage.hit("damage", what);
        match what {
            "side-empty" => bytes.clear(),
            "side-truncated" => bytes.truncate(self.luck.below(bytes.len())),
            _ => bytes = String::from_utf8_lossy(&bytes).replace("/1\"", "/9\"").into_bytes(),
        }
        bytes
    }

    fn damaged_ipam_json(&mut self, bytes: &[u8]) -> Vec<u8> {
        let what = self
            .luck
            .pick(&["empty", "truncated", "future", "duplicate", "repeated", "case"]);
        self.coverage.hit("damage", what);
        let mut file: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let leases = file["allocations"].as_array_mut();
        match (what, leases) {
            ("empty", _) => return Vec::new(),
            ("future", _) => file["version"] = json!("vpc-cni-ipam/2"),
            // Equal addresses under another key, or the same key twice.
            ("duplicate", Some(leases)) if !leases.is_empty() => {
                let mut twin = leases[0].clone();
                twin["containerID"] = json!("twin");
                leases.push(twin);
            }
            ("repeated", Some(leases)) if !leases.is_empty() => {
                let mut twin = leases[0].clone();
                twin["ipv4"] = json!("10.255.255.1");
                leases.push(twin);
            }
            // Legal: readers of this format match keys in any case.
            ("case", _) => {
                let text = String::from_utf8_lossy(bytes);
                let text = text.replace("containerID", "ContainerId").replace("ipv4", "IPV4");
                return text.replace("allocations", "Allocations").into_bytes();
            }
            _ => return bytes[..self.luck.below(bytes.len())].to_vec(),
        }
        file.to_string().into_bytes()
    }

    /// The daemon starts without knowing its leases.
    pub(crate) fn forget_leases(&mut self) {
        self.sandboxes
            .values_mut()
            .for_each(|sandbox| sandbox.record = Record::Lost);
    }

    /// The reference daemon goes. Meanwhile it dropped leases whose veth was gone, served new pods without regard to the
    /// rest of an address, and asked EC2 for more or less; it left its own form of the one file that it knows.
    pub(crate) fn end_of_reference(&mut self) {
        if !std::mem::take(&mut self.reference_runs) {
            return;
        }
        let Some(mut leases) = self.stored_leases() else { return };
        self.note(|| "the reference daemon goes".to_owned());
        self.coverage.hit("damage", "reference");
        let gone = |container: &str, world: &Self| {
            let sandbox = world.sandboxes.values().find(|one| one.key.container_id() == container);
            sandbox.is_none_or(|one| !world.kernel.veths.contains_key(&one.veth))
        };
        let (stale, kept): (Vec<Value>, Vec<Value>) = leases
            .drain(..)
            .partition(|lease| gone(lease["containerID"].as_str().unwrap_or_default(), self));
        for lease in stale {
            let address: Option<Ipv4Addr> = lease["ipv4"].as_str().and_then(|text| text.parse().ok());
            let owner = Owner {
                container_id: lease["containerID"].as_str().unwrap_or_default().to_owned(),
                host_veth: String::new(),
            };
            address
                .into_iter()
                .for_each(|address| self.clear(address, Some(&owner)));
        }
        leases = kept;
        for _ in 0..self.luck.below(4) {
            leases.extend(self.pod_of_reference(&leases));
        }
        if self.luck.chance(600) {
            self.resizing_by_reference(&leases);
        }
        let file = format!(
            "{{\"version\":\"vpc-cni-ipam/1\",\"allocations\":{}}}\n",
            Value::Array(leases)
        );
        self.disk.ipam_json = Some(file.into_bytes());
    }

    fn stored_leases(&self) -> Option<Vec<Value>> {
        let bytes = self.disk.ipam_json.as_ref()?;
        let file: Value = serde_json::from_slice(bytes).ok()?;
        file["allocations"].as_array().cloned()
    }

    /// Addresses on this instance without a pod, each with its ENI.
    fn addresses_without_pod(&self, leases: &[Value]) -> Vec<(EniId, Ipv4Addr)> {
        let leased = |address: &Ipv4Addr| leases.iter().any(|lease| lease["ipv4"] == *address.to_string());
        let set_up = |id: &EniId, primary: bool| primary || self.kernel.tables.contains(id);
        let enis = self.ec2.enis_of(&self.instance).filter(|eni| {
            let primary = eni.attachment.as_ref().is_some_and(|tie| tie.is_primary());
            set_up(&eni.id, primary) && !self.foreign_enis.contains(&eni.id)
        });
        enis.flat_map(|eni| addresses_of(eni).into_iter().map(|address| (eni.id.clone(), address)))
            .filter(|(_, address)| !leased(address) && !self.kernel.has_life(*address))
            .collect()
    }

    /// A pod that the reference daemon served. Its veth has no alias.
    fn pod_of_reference(&mut self, leases: &[Value]) -> Option<Value> {
        let free = self.addresses_without_pod(leases);
        let (_, address) = free.get(self.luck.below(free.len()))?.clone();
        let (number, salt) = (self.next_pod, self.luck.u64());
        self.next_pod += 1;
        let container = format!("{:032x}", u128::from(number) << 64 | u128::from(salt));
        let key = IpamKey::new("aws-cni", &container, "eth0").expect("no part is empty");
        let name = format!("pod-{number}");
        let pod = PodName::new("default", &name);
        let veth = host_veth_name(&VethPrefix::default(), pod.as_ref(), &key);
        self.kernel.veths.insert(veth.clone(), None);
        self.kernel.routes.insert(address, veth.clone());
        self.kernel.rules.insert(address, 2);
        let sandbox = Sandbox {
            key: key.clone(),
            pod,
            veth,
            netns: Netns::Alive,
            phase: Phase::Running(address),
            prev_result: Some(address),
            plugin: None,
            record: Record::Kept,
        };
        self.sandboxes.insert(key, sandbox);
        Some(json!({
            "networkName": "aws-cni", "containerID": container, "ifName": "eth0", "ipv4": address.to_string(),
            "allocationTimestamp": self.both_times().wall.as_nanos(),
            "metadata": {"k8sPodNamespace": "default", "k8sPodName": name, "interfacesCount": 1},
        }))
    }

    /// The reference daemon follows its own targets.
    fn resizing_by_reference(&mut self, leases: &[Value]) {
        let free = self.addresses_without_pod(leases);
        let Some((eni, _)) = free.get(self.luck.below(free.len())).cloned() else {
            return;
        };
        let now = self.now;
        if self.luck.chance(500) {
            let is_free = |address: &Ipv4Addr| free.iter().any(|(_, one)| one == address);
            let truth = self.ec2.eni(&eni).cloned();
            let (addresses, prefixes) = truth.map_or_else(Default::default, |eni| {
                let whole = |prefix: &Prefix28| Allocation::Prefix(*prefix).addresses().all(|one| is_free(&one));
                let addresses = eni.secondary.iter().copied().filter(is_free).collect();
                (addresses, eni.prefixes.iter().copied().filter(whole).collect())
            });
            let request = UnassignPrivateIpAddresses {
                eni,
                addresses,
                prefixes,
            };
            let done = self.ec2.call_directly(now, &request).is_ok();
            // It answers for their rest; EC2 may give them out again at once.
            let blocks = request.prefixes.iter().map(|prefix| Allocation::Prefix(*prefix));
            let singles = request.addresses.iter().map(|address| Allocation::Ip(*address));
            for address in blocks
                .chain(singles)
                .flat_map(|one| one.addresses().collect::<Vec<_>>())
            {
                self.cleared_at.remove(&address);
            }
            self.note(|| format!("the reference daemon released {request:?}: {done}"));
        } else {
            let count = self.luck.number(1, 5);
            let request = AssignPrivateIpAddresses::new(eni, Ipv4Request::Count(count));
            let done = self.ec2.call_directly(now, &request).is_ok();
            self.note(|| format!("the reference daemon asked for {count}: {done}"));
        }
    }

    /// The node is rolled back to the reference for a while.
    pub(crate) fn downgrade(&mut self) -> Duration {
        self.reference_runs = true;
        let span = self.luck.millis(80_000, 900_000);
        // EC2's views show its last call by the time that ours is back.
        self.after(span - Duration::from_secs(20), Happening::ReferenceEnds);
        span
    }

    /// The files of a node that has just booted.
    pub(crate) fn lose_files(&mut self) {
        self.reference_runs = false;
        self.disk = StoredFiles::default();
        self.lose_journal();
    }
}
