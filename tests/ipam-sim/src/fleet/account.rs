//! The account that all nodes share: the model of EC2 with its request buckets, and how long calls take.
//!
//! Latencies are log-normal around the medians that the reference was measured with; they are assumptions, not
//! measurements of AWS. A refused request answers as fast as a describe.

use std::collections::BTreeMap;
use std::time::Duration;

use ipam_core::SubnetFact;
use vpc_sim::model::request::{AttachNetworkInterface, CreateNetworkInterface, DescribeSubnets, Ipv4Request, Query};
use vpc_sim::model::{
    Action, AllocationPolicy, Delay, Ec2Error, ErrorCode, InstanceSpec, Model, Operation, Settings, SubnetSpec,
    Throttle,
};
use vpc_types::{InstanceId, MacAddress, SubnetId};

use super::plan::{Launch, Plan};

/// From the answer to Attach to the device on the instance.
const DEVICE_LAG: Duration = Duration::from_millis(1_500);
/// Deviation of the logarithm of latencies: one call in a hundred takes twice the median.
const DEVIATION: f64 = 0.3;

/// The zone of all nodes.
const ZONE: &str = "us-east-1a";
/// Lets a subnet hold ENIs of nodes that started in another one.
const ROLE_TAG: &str = "kubernetes.io/role/cni";

/// Accepted and throttled calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// By action.
    pub accepted: BTreeMap<&'static str, u64>,
    /// Refused for the request limit, by action.
    pub throttled: BTreeMap<&'static str, u64>,
    /// Refused for other reasons.
    pub refused: u64,
}

impl Calls {
    /// All that had an effect.
    pub fn all_accepted(&self) -> u64 {
        self.accepted.values().sum()
    }

    /// All that ran into the request limit.
    pub fn all_throttled(&self) -> u64 {
        self.throttled.values().sum()
    }

    /// What came since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let less = |now: &BTreeMap<&'static str, u64>, then: &BTreeMap<&'static str, u64>| {
            now.iter()
                .map(|(name, count)| (*name, count - then.get(name).copied().unwrap_or(0)))
                .filter(|(_, count)| *count > 0)
                .collect()
        };
        Self {
            accepted: less(&self.accepted, &earlier.accepted),
            throttled: less(&self.throttled, &earlier.throttled),
            refused: self.refused - earlier.refused,
        }
    }
}

/// EC2 for one region.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) model: Model,
    pub(crate) subnets: Vec<SubnetId>,
    rng: fastrand::Rng,
}

fn median(action: Action) -> Duration {
    let millis = [
        (Action::CreateNetworkInterface, 600),
        (Action::AttachNetworkInterface, 1_500),
        (Action::AssignPrivateIpAddresses, 500),
        (Action::UnassignPrivateIpAddresses, 300),
        (Action::ModifyNetworkInterfaceAttribute, 200),
        (Action::CreateTags, 200),
        (Action::DetachNetworkInterface, 500),
        (Action::DeleteNetworkInterface, 300),
    ];
    let found = millis.iter().find(|(known, _)| *known == action);
    Duration::from_millis(found.map_or(100, |(_, millis)| *millis))
}

impl Account {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut settings = Settings::instant(plan.seed);
        settings.throttle = Throttle::Buckets { factor: 1.0 };
        settings.unplug = Delay::millis(1_000);
        settings.detach = Delay::millis(1_500);
        // The quota of ENIs is a matter of the account, not of the policy.
        settings.eni_quota = 200_000;
        let mut model = Model::new(settings);
        let ranges: Vec<ipnet::Ipv4Net> = (0..plan.subnets.count)
            .map(|n| ipnet::Ipv4Net::new([10, n, 0, 0].into(), 16).expect("16 is a prefix length"))
            .collect();
        let vpc = model.add_vpc(&ranges, &[]).expect("the ranges are EC2's");
        let subnets = ranges
            .iter()
            .map(|range| SubnetSpec {
                vpc: vpc.clone(),
                zone: ZONE.to_owned(),
                cidr: ipnet::Ipv4Net::new(range.network(), plan.subnets.prefix).expect("a plan's prefix is legal"),
                ipv6_cidr: None,
                policy: AllocationPolicy::Random,
                tags: [(ROLE_TAG.to_owned(), "1".to_owned())].into(),
            })
            .map(|spec| model.add_subnet(spec).expect("one subnet per range"))
            .collect();
        let rng = fastrand::Rng::with_seed(plan.seed ^ 0x6163_636f);
        let mut account = Self { model, subnets, rng };
        account.take_at_random(plan.subnets.taken);
        account
    }

    /// Others hold a share of each subnet's addresses, here and there.
    fn take_at_random(&mut self, share: f64) {
        for id in self.subnets.clone() {
            let subnet = self.model.subnet(&id).expect("made above");
            let hosts: Vec<_> = subnet.cidr.hosts().filter(|address| subnet.is_free(*address)).collect();
            let taken: Vec<_> = hosts.into_iter().filter(|_| self.rng.f64() < share).collect();
            if taken.is_empty() {
                continue;
            }
            let mut request = CreateNetworkInterface::new(id);
            request.primary = taken.first().copied();
            request.ipv4 = (taken.len() > 1).then(|| Ipv4Request::Addresses(taken.iter().skip(1).copied().collect()));
            self.model
                .call_directly(Duration::ZERO, &request)
                .expect("an ENI on no instance has no limit");
        }
    }

    /// Starts an instance in one of the subnets, in turn.
    pub(crate) fn launch(&mut self, plan: &Plan, number: usize) -> (InstanceId, SubnetId, MacAddress) {
        let subnet = self.subnets[number % self.subnets.len()].clone();
        let mut spec = InstanceSpec::new(plan.instance_type, subnet.clone());
        if let Launch::Prefixes(count) = plan.launch {
            spec.ipv4 = Some(Ipv4Request::PrefixCount(count));
        }
        let instance = self
            .model
            .run_instance(Duration::ZERO, spec)
            .expect("the subnets have room for every node");
        let primary = self.model.enis_of(&instance).next().expect("it has its primary ENI");
        let mac = primary.mac;
        (instance, subnet, mac)
    }

    fn latency(&mut self, action: Action) -> Duration {
        let radius = (-2.0 * (1.0 - self.rng.f64()).ln()).sqrt();
        let normal = (radius * (std::f64::consts::TAU * self.rng.f64()).cos()).clamp(-3.0, 3.0);
        median(action).mul_f64((DEVIATION * normal).exp())
    }

    /// One call: how long it takes and how it ends.
    pub(crate) fn call<O: Operation>(
        &mut self,
        now: Duration,
        operation: &O,
    ) -> (Duration, Result<O::Output, Ec2Error>) {
        let latency = self.latency(O::ACTION);
        let result = self.model.call(now, operation).done();
        let throttled = matches!(&result, Err(error) if error.code == ErrorCode::RequestLimitExceeded);
        (
            if throttled {
                latency.min(median(Action::DescribeSubnets))
            } else {
                latency
            },
            result,
        )
    }

    /// Attach, whose device appears some time after its answer.
    pub(crate) fn attach(
        &mut self,
        now: Duration,
        request: &AttachNetworkInterface,
    ) -> (Duration, Result<vpc_types::AttachmentId, Ec2Error>) {
        let latency = self.latency(Action::AttachNetworkInterface);
        self.model.settings_mut().attach = Delay::Fixed(latency + DEVICE_LAG);
        let result = self.model.call(now, request).done().map(|done| done.attachment);
        (latency, result)
    }

    /// Calls that had an effect, since the start.
    pub(crate) fn accepted(&self) -> u64 {
        self.model.counters().iter().map(|(_, count)| count.accepted).sum()
    }

    /// The subnets of the nodes' zone: id, free addresses, tags.
    pub(crate) fn subnets_of_zone(&mut self, now: Duration) -> (Duration, Result<Vec<SubnetFact>, Ec2Error>) {
        let request = DescribeSubnets::from(Query::filtered("availability-zone", ZONE));
        let (latency, result) = self.call(now, &request);
        let readings = result.map(|page| {
            let subnets = page.items.into_iter();
            subnets
                .map(|subnet| SubnetFact {
                    id: subnet.id.clone(),
                    free: subnet.available(),
                    size: (1 << (32 - u32::from(subnet.cidr.prefix_len()))) - 5,
                    tags: subnet.tags.clone(),
                })
                .collect()
        });
        (latency, readings)
    }

    /// Counts since the start.
    pub(crate) fn calls(&self) -> Calls {
        let mut calls = Calls::default();
        for (action, count) in self.model.counters().iter() {
            let throttled = count
                .refused
                .get(&ErrorCode::RequestLimitExceeded)
                .copied()
                .unwrap_or(0);
            calls.accepted.insert(action.name(), count.accepted);
            calls.throttled.insert(action.name(), throttled);
            calls.refused += count.refused.values().sum::<u64>() - throttled;
        }
        calls
    }

    /// Addresses that an instance holds: primaries and whole prefixes included; and its ENIs.
    pub(crate) fn held(&self, instance: &InstanceId) -> (usize, usize) {
        self.model.enis_of(instance).fold((0, 0), |(held, enis), eni| {
            (held + 1 + eni.secondary.len() + 16 * eni.prefixes.len(), enis + 1)
        })
    }
}
