//! Behaviour of the whole model: life cycle, limits, idempotency, views, faults; and, over random sequences of calls,
//! that the audit finds nothing.

mod lifecycle;
mod random;
mod views;

use std::time::Duration;

use vpc_types::{DeviceNumber, EniId, InstanceId, SubnetId};

use super::request::{AttachNetworkInterface, CreateNetworkInterface};
use super::{AllocationPolicy, Attached, Ec2Error, ErrorCode, InstanceSpec, Model, Settings, SubnetSpec};

/// A region with one VPC, one subnet and one instance.
struct Region {
    model: Model,
    subnet: SubnetId,
    instance: InstanceId,
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn region_with(settings: Settings, instance_type: &str, cidr: &str) -> Region {
    let mut model = Model::new(settings);
    let vpc = model.add_vpc(&["10.0.0.0/16".parse().unwrap()], &[]).unwrap();
    let subnet = model
        .add_subnet(SubnetSpec {
            vpc,
            zone: "us-east-1a".into(),
            cidr: cidr.parse().unwrap(),
            ipv6_cidr: Some("2001:db8::/64".parse().unwrap()),
            policy: AllocationPolicy::Random,
            tags: [("Name".to_owned(), "a".to_owned())].into(),
        })
        .unwrap();
    let instance = model
        .run_instance(Duration::ZERO, InstanceSpec::new(instance_type, subnet.clone()))
        .unwrap();
    model.drain_changes();
    Region {
        model,
        subnet,
        instance,
    }
}

fn region(instance_type: &str) -> Region {
    region_with(Settings::instant(1), instance_type, "10.0.1.0/24")
}

impl Region {
    fn create(&mut self, now: Duration) -> EniId {
        let request = CreateNetworkInterface::new(self.subnet.clone());
        self.model.call(now, &request).done().unwrap().eni.id.clone()
    }

    fn attach(&mut self, now: Duration, eni: &EniId, device: u16) -> Result<Attached, Ec2Error> {
        let request = AttachNetworkInterface {
            eni: eni.clone(),
            instance: self.instance.clone(),
            device: DeviceNumber(device),
            card: None,
        };
        self.model.call(now, &request).done()
    }
}

fn code<T>(result: Result<T, Ec2Error>) -> Option<ErrorCode> {
    result.err().map(|refusal| refusal.code)
}
