//! A subnet and its IPv4 allocator.
//!
//! Owns which addresses of one subnet are taken: one bit per address, one `u16` per /28 block, so "is there a free
//! prefix" is "is there a zero word". Does not know who took an address. Invariants: the first four addresses and the
//! last are never handed out; `available` is the number of zero bits; a request takes all it asks for or nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use fastrand::Rng;
use ipnet::{Ipv4Net, Ipv6Net};
use vpc_types::{Allocation, Prefix28, SubnetId, VpcId};

use super::request::Ipv4Request;
use super::{AllocationPolicy, Ec2Error, ErrorCode};

/// Addresses at the start of a subnet that EC2 keeps: network, router, DNS, future use.
const RESERVED_FIRST: u32 = 4;
/// Addresses in a /28, the unit of prefixes and of the bit map.
const BLOCK: u32 = 16;
/// Random draws before the allocator scans from a random place instead.
const DRAWS: usize = 16;

/// A subnet as the API shows it, with its allocator.
#[derive(Debug, Clone)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// The VPC it is part of.
    pub vpc: VpcId,
    /// Availability zone, for instance `us-east-1a`.
    pub zone: String,
    /// IPv4 range, /16 to /28.
    pub cidr: Ipv4Net,
    /// IPv6 range, always a /64.
    pub ipv6_cidr: Option<Ipv6Net>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// How free addresses are chosen.
    pub policy: AllocationPolicy,
    blocks: Vec<u16>,
    available: u32,
}

impl Subnet {
    /// An empty subnet. The caller has checked the range (see [`Subnet::is_legal_range`]).
    pub(super) fn new(id: SubnetId, vpc: VpcId, zone: String, cidr: Ipv4Net, policy: AllocationPolicy) -> Self {
        let size = 1_u32 << (32 - u32::from(cidr.prefix_len()));
        let mut subnet = Self {
            id,
            vpc,
            zone,
            cidr,
            ipv6_cidr: None,
            tags: BTreeMap::new(),
            policy,
            blocks: vec![0; (size / BLOCK) as usize],
            available: size,
        };
        for offset in (0..RESERVED_FIRST).chain([size - 1]) {
            subnet.set(offset);
        }
        subnet
    }

    /// EC2 takes /16 to /28 without host bits.
    pub fn is_legal_range(cidr: Ipv4Net) -> bool {
        (16..=28).contains(&cidr.prefix_len()) && cidr.trunc() == cidr
    }

    /// Free addresses, as `availableIpAddressCount` shows them.
    pub fn available(&self) -> u32 {
        self.available
    }

    /// The router every instance sends to: the first address after the network's own.
    pub fn router(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// The resolver: the second address after the network's own.
    pub fn resolver(&self) -> Ipv4Addr {
        self.address(2)
    }

    /// Whether a request that names the address could have it.
    pub fn is_free(&self, address: Ipv4Addr) -> bool {
        self.check_named(Allocation::Ip(address)).is_ok()
    }

    /// Takes what is asked for, all or nothing.
    pub(super) fn take(&mut self, request: &Ipv4Request, rng: &mut Rng) -> Result<Vec<Allocation>, Ec2Error> {
        match request {
            Ipv4Request::Count(count) => self.take_singles(*count, rng),
            Ipv4Request::PrefixCount(count) => self.take_prefixes(*count, rng),
            Ipv4Request::Addresses(addresses) => {
                self.take_named(addresses.iter().map(|address| Allocation::Ip(*address)))
            }
            Ipv4Request::Prefixes(prefixes) => {
                self.take_named(prefixes.iter().map(|prefix| Allocation::Prefix(*prefix)))
            }
        }
    }

    /// Puts an allocation back. It was taken from this subnet.
    pub(super) fn give_back(&mut self, allocation: Allocation) {
        for address in allocation.addresses() {
            let offset = self
                .offset(address)
                .expect("an allocation lies in the subnet it was taken from");
            let (block, bit) = place(offset);
            assert!(
                self.blocks[block] & bit != 0,
                "{address} of {} was given back twice",
                self.id
            );
            self.blocks[block] &= !bit;
            self.available += 1;
        }
    }

    /// Taken addresses beyond the five that EC2 keeps, counted from the bits. For checks.
    pub(super) fn count_taken(&self) -> u32 {
        self.blocks.iter().map(|block| block.count_ones()).sum::<u32>() - RESERVED_FIRST - 1
    }

    pub(super) fn is_taken(&self, address: Ipv4Addr) -> bool {
        self.offset(address).is_some_and(|offset| self.is_set(offset))
    }

    fn take_singles(&mut self, count: u32, rng: &mut Rng) -> Result<Vec<Allocation>, Ec2Error> {
        if count > self.available {
            return Err(Ec2Error::stock(ErrorCode::InsufficientFreeAddressesInSubnet));
        }
        let mut taken = Vec::new();
        for _ in 0..count {
            let offset = self.choose_single(rng);
            self.set(offset);
            taken.push(Allocation::Ip(self.address(offset)));
        }
        Ok(taken)
    }

    fn take_prefixes(&mut self, count: u32, rng: &mut Rng) -> Result<Vec<Allocation>, Ec2Error> {
        if u64::from(count) * u64::from(BLOCK) > u64::from(self.available) {
            return Err(Ec2Error::value(
                "There aren't sufficient free Ipv4 addresses or prefixes",
            ));
        }
        let free = self.blocks.iter().filter(|block| **block == 0).count();
        if count as usize > free {
            return Err(Ec2Error::stock(ErrorCode::InsufficientCidrBlocks));
        }
        let mut taken = Vec::new();
        for _ in 0..count {
            let block = self.choose_block(rng, |mask| mask == 0);
            self.blocks[block] = u16::MAX;
            self.available -= BLOCK;
            taken.push(Allocation::Prefix(self.prefix(block)));
        }
        Ok(taken)
    }

    fn take_named(&mut self, wanted: impl Iterator<Item = Allocation>) -> Result<Vec<Allocation>, Ec2Error> {
        let mut taken = Vec::new();
        for allocation in wanted {
            if let Err(refusal) = self.check_named(allocation) {
                taken.into_iter().for_each(|allocation| self.give_back(allocation));
                return Err(refusal);
            }
            for address in allocation.addresses() {
                let offset = self.offset(address).expect("checked above to lie in the subnet");
                self.set(offset);
            }
            taken.push(allocation);
        }
        Ok(taken)
    }

    fn check_named(&self, allocation: Allocation) -> Result<(), Ec2Error> {
        for address in allocation.addresses() {
            let offset = self.offset(address).ok_or_else(|| {
                Ec2Error::value(format!(
                    "Address {allocation} does not fall within the subnet's address range"
                ))
            })?;
            if offset < RESERVED_FIRST || offset == self.size() - 1 {
                return Err(Ec2Error::value(format!(
                    "Address {allocation} is in subnet's reserved address range"
                )));
            }
            if self.is_set(offset) {
                return Err(Ec2Error::new(
                    ErrorCode::InvalidIpAddressInUse,
                    format!("Address {allocation} is in use."),
                ));
            }
        }
        Ok(())
    }

    /// The caller made sure that one is free.
    fn choose_single(&self, rng: &mut Rng) -> u32 {
        if self.policy == AllocationPolicy::Random {
            let draw = (0..DRAWS)
                .map(|_| rng.u32(0..self.size()))
                .find(|offset| !self.is_set(*offset));
            if let Some(offset) = draw {
                return offset;
            }
        }
        let block = match self.policy {
            AllocationPolicy::Worst => self.emptiest_block(),
            AllocationPolicy::Random | AllocationPolicy::Lowest => self.choose_block(rng, |mask| mask != u16::MAX),
        };
        let in_block = self.blocks[block].trailing_ones();
        self.block_start(block) + in_block
    }

    /// A block that `wanted` accepts, lowest first or from a random place on. The caller made sure there is one.
    fn choose_block(&self, rng: &mut Rng, wanted: impl Fn(u16) -> bool) -> usize {
        let start = match self.policy {
            AllocationPolicy::Random => rng.usize(0..self.blocks.len()),
            AllocationPolicy::Lowest | AllocationPolicy::Worst => 0,
        };
        (start..self.blocks.len())
            .chain(0..start)
            .find(|block| wanted(self.blocks[*block]))
            .expect("the caller counted at least one such block")
    }

    fn emptiest_block(&self) -> usize {
        (0..self.blocks.len())
            .min_by_key(|block| self.blocks[*block].count_ones())
            .expect("a subnet has at least one block")
    }

    fn size(&self) -> u32 {
        self.block_start(self.blocks.len())
    }

    fn block_start(&self, block: usize) -> u32 {
        u32::try_from(block).expect("a subnet has at most 4096 blocks") * BLOCK
    }

    fn prefix(&self, block: usize) -> Prefix28 {
        let net = Ipv4Net::new(self.address(self.block_start(block)), 28).expect("28 is a prefix length");
        Prefix28::new(net).expect("blocks start at multiples of 16")
    }

    fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()) + offset)
    }

    fn offset(&self, address: Ipv4Addr) -> Option<u32> {
        self.cidr
            .contains(&address)
            .then(|| u32::from(address) - u32::from(self.cidr.network()))
    }

    fn is_set(&self, offset: u32) -> bool {
        let (block, bit) = place(offset);
        self.blocks[block] & bit != 0
    }

    fn set(&mut self, offset: u32) {
        let (block, bit) = place(offset);
        assert!(
            self.blocks[block] & bit == 0,
            "offset {offset} of {} was taken twice",
            self.id
        );
        self.blocks[block] |= bit;
        self.available -= 1;
    }
}

fn place(offset: u32) -> (usize, u16) {
    ((offset / BLOCK) as usize, 1 << (offset % BLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(cidr: &str, policy: AllocationPolicy) -> Subnet {
        let (id, vpc) = (SubnetId::parse("subnet-1").unwrap(), VpcId::parse("vpc-1").unwrap());
        Subnet::new(id, vpc, "us-east-1a".into(), cidr.parse().unwrap(), policy)
    }

    fn ips(allocations: &[Allocation]) -> Vec<String> {
        allocations.iter().map(Allocation::to_string).collect()
    }

    #[test]
    fn five_addresses_are_never_available() {
        for (cidr, usable) in [("10.0.0.0/28", 11), ("10.0.0.0/24", 251), ("10.0.0.0/16", 65_531)] {
            assert_eq!(subnet(cidr, AllocationPolicy::Random).available(), usable);
        }
        let mut small = subnet("10.0.0.16/28", AllocationPolicy::Random);
        let mut all = ips(&small.take(&Ipv4Request::Count(11), &mut Rng::with_seed(1)).unwrap());
        all.sort();
        assert_eq!(
            (all[0].as_str(), all.last().unwrap().as_str(), small.available()),
            ("10.0.0.20", "10.0.0.30", 0)
        );
        let refusal = small.take(&Ipv4Request::Count(1), &mut Rng::with_seed(1)).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InsufficientFreeAddressesInSubnet);
    }

    #[test]
    fn a_slash_24_holds_fourteen_prefixes() {
        for policy in [
            AllocationPolicy::Random,
            AllocationPolicy::Lowest,
            AllocationPolicy::Worst,
        ] {
            let mut net = subnet("10.0.3.0/24", policy);
            let taken = net.take(&Ipv4Request::PrefixCount(14), &mut Rng::with_seed(3)).unwrap();
            assert!(
                !ips(&taken).contains(&"10.0.3.0/28".to_owned()) && !ips(&taken).contains(&"10.0.3.240/28".to_owned())
            );
            assert_eq!(net.available(), 251 - 14 * 16);
            let refusal = net
                .take(&Ipv4Request::PrefixCount(1), &mut Rng::with_seed(3))
                .unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InsufficientCidrBlocks);
            let refusal = net
                .take(&Ipv4Request::PrefixCount(9), &mut Rng::with_seed(3))
                .unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidParameterValue);
            taken.into_iter().for_each(|prefix| net.give_back(prefix));
            assert_eq!((net.available(), net.count_taken()), (251, 0));
        }
    }

    #[test]
    fn the_worst_policy_leaves_no_block_for_a_prefix() {
        let mut net = subnet("10.0.0.0/24", AllocationPolicy::Worst);
        net.take(&Ipv4Request::Count(16), &mut Rng::with_seed(1)).unwrap();
        let refusal = net
            .take(&Ipv4Request::PrefixCount(1), &mut Rng::with_seed(1))
            .unwrap_err();
        assert_eq!(refusal.code, ErrorCode::InsufficientCidrBlocks);
    }

    #[test]
    fn lowest_counts_up_from_the_fifth_address() {
        let mut net = subnet("10.0.0.0/24", AllocationPolicy::Lowest);
        let taken = net.take(&Ipv4Request::Count(3), &mut Rng::with_seed(1)).unwrap();
        assert_eq!(ips(&taken), ["10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    }

    #[test]
    fn named_addresses_are_taken_all_or_none() {
        let mut net = subnet("10.0.0.0/24", AllocationPolicy::Lowest);
        let mut take = |names: &[&str]| {
            let addresses = names.iter().map(|name| name.parse().unwrap()).collect();
            net.take(&Ipv4Request::Addresses(addresses), &mut Rng::with_seed(1))
                .map_err(|refusal| refusal.code)
        };
        assert!(take(&["10.0.0.9", "10.0.0.10"]).is_ok());
        assert_eq!(take(&["10.0.0.11", "10.0.0.9"]), Err(ErrorCode::InvalidIpAddressInUse));
        assert_eq!(take(&["10.0.0.11", "10.0.1.9"]), Err(ErrorCode::InvalidParameterValue));
        assert_eq!(take(&["10.0.0.11", "10.0.0.3"]), Err(ErrorCode::InvalidParameterValue));
        assert!(take(&["10.0.0.11"]).is_ok());
        assert_eq!(net.count_taken(), 3);
    }

    #[test]
    fn a_full_subnet_is_filled_by_random_draws_too() {
        let mut net = subnet("10.0.0.0/26", AllocationPolicy::Random);
        let mut rng = Rng::with_seed(11);
        for left in (0..59).rev() {
            net.take(&Ipv4Request::Count(1), &mut rng).unwrap();
            assert_eq!(net.available(), left);
        }
    }
}
