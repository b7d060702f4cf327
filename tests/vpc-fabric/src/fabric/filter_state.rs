//! The filter as it changes: ports, public addresses, and the reading of its counters.
//!
//! Invariant: what the kernel's maps hold is exactly `ports` and `public`; each change is one transaction.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use nft::{CommitError, Element, ElementValue, NftSocket, Transaction, key};
use vpc_types::EniId;

use super::filter::{self, PRIVATE, PUBLIC, REASONS, ROUTE_TABLES, UNCHECKED, name_of, port_key, table_id};
use super::messages::{PortIndex, mark_of};
use super::record::{self, Flow};
use super::{DropCount, DropReason, FabricError, RouteTable, SourceDestCheck};

/// See the module's description.
#[derive(Debug)]
pub(super) struct Filter {
    socket: NftSocket,
    /// All ports that ever were, by their device's name: drops outlive an ENI's attachment.
    enis: BTreeMap<Vec<u8>, EniId>,
    ports: BTreeMap<PortIndex, (RouteTable, SourceDestCheck)>,
    public: BTreeMap<Ipv4Addr, Ipv4Addr>,
}

impl Filter {
    /// Loads the ruleset into the calling thread's namespace.
    pub(super) fn load() -> Result<Self, FabricError> {
        let socket = NftSocket::open().map_err(|source| FabricError::Socket {
            operation: "open nf_tables",
            source,
        })?;
        let mut filter = Self {
            socket,
            enis: BTreeMap::new(),
            ports: BTreeMap::new(),
            public: BTreeMap::new(),
        };
        filter.commit("load", Transaction::new().replace_table(&filter::ruleset()))?;
        Ok(filter)
    }

    /// Lets a port's packets be routed and checked; before that they have no route out of the VPC.
    pub(super) fn add_port(
        &mut self,
        port: PortIndex,
        eni: &EniId,
        check: SourceDestCheck,
        table: RouteTable,
    ) -> Result<(), FabricError> {
        let mut changes = Transaction::new();
        changes.add_elements(&table_id(), ROUTE_TABLES, &[route_table_entry(port, table)]);
        if check == SourceDestCheck::Off {
            changes.add_elements(&table_id(), UNCHECKED, &[unchecked_member(port)]);
        }
        self.commit("add port", &changes)?;
        self.enis.insert(port_key(port), eni.clone());
        self.ports.insert(port, (table, check));
        Ok(())
    }

    /// Undoes `add_port`; the recorded drops stay.
    pub(super) fn remove_port(&mut self, port: PortIndex) -> Result<(), FabricError> {
        let Some((table, check)) = self.ports.get(&port).copied() else {
            return Ok(());
        };
        let mut changes = Transaction::new();
        changes.delete_elements(&table_id(), ROUTE_TABLES, &[route_table_entry(port, table)]);
        if check == SourceDestCheck::Off {
            changes.delete_elements(&table_id(), UNCHECKED, &[unchecked_member(port)]);
        }
        self.commit("remove port", &changes)?;
        self.ports.remove(&port);
        Ok(())
    }

    pub(super) fn set_check(&mut self, port: PortIndex, check: SourceDestCheck) -> Result<(), FabricError> {
        let Some((table, before)) = self.ports.get(&port).copied() else {
            return Ok(());
        };
        if before == check {
            return Ok(());
        }
        let mut changes = Transaction::new();
        match check {
            SourceDestCheck::On => changes.delete_elements(&table_id(), UNCHECKED, &[unchecked_member(port)]),
            SourceDestCheck::Off => changes.add_elements(&table_id(), UNCHECKED, &[unchecked_member(port)]),
        };
        self.commit("set source/destination check", &changes)?;
        self.ports.insert(port, (table, check));
        Ok(())
    }

    pub(super) fn set_public(&mut self, private: Ipv4Addr, public: Option<Ipv4Addr>) -> Result<(), FabricError> {
        let taken = self
            .public
            .iter()
            .find(|(owner, known)| Some(**known) == public && **owner != private);
        if let Some((owner, public)) = taken {
            return Err(FabricError::PublicTaken {
                public: *public,
                owner: *owner,
            });
        }
        let mut changes = Transaction::new();
        if let Some(old) = self.public.get(&private) {
            changes.delete_elements(&table_id(), PUBLIC, &[translation(private, *old)]);
            changes.delete_elements(&table_id(), PRIVATE, &[translation(*old, private)]);
        }
        if let Some(new) = public {
            changes.add_elements(&table_id(), PUBLIC, &[translation(private, new)]);
            changes.add_elements(&table_id(), PRIVATE, &[translation(new, private)]);
        }
        if !changes.is_empty() {
            self.commit("set public address", &changes)?;
        }
        match public {
            Some(new) => self.public.insert(private, new),
            None => self.public.remove(&private),
        };
        Ok(())
    }

    pub(super) fn drops(&mut self) -> Result<Vec<DropCount>, FabricError> {
        let mut drops = Vec::new();
        for reason in REASONS {
            let what = name_of(reason);
            let found = self.socket.elements(&table_id(), what);
            let found = found.map_err(|source| FabricError::FilterRead { what, source })?;
            drops.extend(found.iter().filter_map(|found| {
                let packets = found.counter?.packets;
                self.drop_count(reason, &found.element.key, packets)
            }));
        }
        drops.sort_unstable();
        Ok(drops)
    }

    /// The key is made in `filter::drop_chain`: name of the port, source, destination.
    fn drop_count(&self, reason: DropReason, key: &[u8], packets: u64) -> Option<DropCount> {
        let (port, addresses) = key.split_at_checked(key::IFNAME_LEN)?;
        let (source, destination) = addresses.split_first_chunk::<4>()?;
        Some(DropCount {
            eni: self.enis.get(port)?.clone(),
            reason,
            source: Ipv4Addr::from(*source),
            destination: Ipv4Addr::from(*destination.first_chunk::<4>()?),
            packets,
        })
    }

    pub(super) fn drop_totals(&mut self) -> Result<BTreeMap<DropReason, u64>, FabricError> {
        let what = "counters";
        let counters = self
            .socket
            .counters(&table_id())
            .map_err(|source| FabricError::FilterRead { what, source })?;
        let total = |reason| counters.get(name_of(reason)).map_or(0, |counter| counter.packets);
        Ok(REASONS.into_iter().map(|reason| (reason, total(reason))).collect())
    }

    /// Begins a record of what ports send; an earlier one is forgotten.
    pub(super) fn record_flows(&mut self) -> Result<(), FabricError> {
        self.commit("record flows", Transaction::new().replace_table(&record::table()))
    }

    /// The record so far; empty when none was begun.
    pub(super) fn flows(&mut self) -> Result<Vec<Flow>, FabricError> {
        let what = record::FLOWS;
        let found = self.socket.elements(&record::table_id(), what);
        let found = found.map_err(|source| FabricError::FilterRead { what, source })?;
        if found.len() >= usize::try_from(record::FLOWS_MAX).unwrap_or(usize::MAX) {
            return Err(FabricError::RecordFull);
        }
        let flows = found.iter().filter_map(|found| {
            let packets = found.counter?.packets;
            record::flow_of(&found.element.key, packets, |device| self.enis.get(device).cloned())
        });
        Ok(flows.collect())
    }

    fn commit(&mut self, operation: &'static str, changes: &Transaction) -> Result<(), FabricError> {
        let result: Result<(), CommitError> = self.socket.commit(changes);
        result.map_err(|source| FabricError::Filter { operation, source })
    }
}

fn route_table_entry(port: PortIndex, table: RouteTable) -> Element {
    Element::entry(port_key(port), ElementValue::Data(key::host_u32(mark_of(table))))
}

fn unchecked_member(port: PortIndex) -> Element {
    Element::member(port_key(port))
}

fn translation(from: Ipv4Addr, to: Ipv4Addr) -> Element {
    Element::entry(key::ipv4(from), ElementValue::Data(key::ipv4(to)))
}
