//! EC2 as a run finds it: the model with its delays, the subnet, and the instance.

use std::collections::BTreeMap;
use std::time::Duration;

use vpc_sim::model::{InstanceSpec, Model, Settings, SubnetSpec};
use vpc_types::{InstanceId, MacAddress, SubnetId};

use crate::scenario::Scenario;

/// The model, and who is who in it.
pub(crate) struct Region {
    pub(crate) ec2: Model,
    pub(crate) instance: InstanceId,
    pub(crate) subnet: SubnetId,
    pub(crate) primary_mac: MacAddress,
}

impl Region {
    pub(crate) fn new(seed: u64, scenario: &Scenario) -> Self {
        let mut settings = Settings::aws(seed);
        settings.describe_lag = scenario.describe_lag;
        settings.attach = scenario.attach;
        settings.throttle = scenario.throttle;
        settings.fresh_ids = scenario.fresh_ids;
        let mut ec2 = Model::new(settings);
        let net = |text: &str| text.parse().expect("a valid range");
        let vpc = ec2.add_vpc(&[net("10.0.0.0/16")], &[]).expect("a legal VPC");
        let subnet = ec2
            .add_subnet(SubnetSpec {
                vpc,
                zone: "us-east-1a".into(),
                cidr: net(&format!("10.0.0.0/{}", scenario.subnet_prefix)),
                ipv6_cidr: None,
                policy: scenario.policy,
                tags: BTreeMap::new(),
            })
            .expect("a legal subnet");
        let spec = InstanceSpec::new(scenario.instance_type, subnet.clone());
        let instance = ec2.run_instance(Duration::ZERO, spec).expect("a legal instance");
        let mut enis = ec2.enis_of(&instance);
        let primary_mac = enis.next().expect("an instance has its primary ENI").mac;
        drop(enis);
        Self {
            ec2,
            instance,
            subnet,
            primary_mac,
        }
    }
}
