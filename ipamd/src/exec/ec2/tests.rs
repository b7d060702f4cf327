use std::collections::BTreeSet;

use std::future::Future;
use std::sync::Mutex;

use cloud::{Action, AttachmentView, CloudConfig, EniAllocations, EniLifecycle, EniStatus, ReadEc2, SourceDestCheck};
use vpc_types::{EniId, InstanceLimits, SubnetId};

use super::*;
use crate::owner::queue;

/// EC2 that answers one describe and one create, and keeps what it was asked.
struct Canned {
    views: Vec<EniView>,
    created: Mutex<Vec<CreateEni>>,
}

fn refused(action: Action, code: ErrorCode) -> Ec2Error {
    let (message, request_id) = (String::new(), None);
    Ec2Error::Refused {
        action,
        code,
        message,
        status: 400,
        request_id,
    }
}

impl ReadEc2 for Canned {
    async fn describe_instance_enis(&self, _: &InstanceId) -> Result<Vec<EniView>, Ec2Error> {
        Ok(self.views.clone())
    }

    async fn describe_eni(&self, _: &EniId) -> Result<Option<EniView>, Ec2Error> {
        Ok(None)
    }

    fn describe_available_enis(
        &self,
        tags: &[TagFilter],
    ) -> impl Future<Output = Result<Vec<EniView>, Ec2Error>> + Send {
        let own = tags.iter().any(|tag| match tag {
            TagFilter::Equals { key, .. } | TagFilter::Present(key) => key == TAG_INSTANCE,
        });
        let views = if own { self.views.clone() } else { Vec::new() };
        async move { Ok(views) }
    }

    async fn describe_subnets(&self, vpc: &VpcId, zone: &str) -> Result<Vec<SubnetView>, Ec2Error> {
        let subnet = |name: &str, cidr: Option<&str>| SubnetView {
            id: SubnetId::parse(name).unwrap(),
            vpc: vpc.clone(),
            az: zone.to_owned(),
            cidr: cidr.map(|cidr| cidr.parse().unwrap()),
            available_addresses: 7,
            tags: BTreeMap::from([("kubernetes.io/role/cni".to_owned(), "1".to_owned())]),
        };
        Ok(vec![subnet("subnet-1", Some("10.0.0.0/24")), subnet("subnet-6", None)])
    }

    async fn describe_subnet(&self, _: &SubnetId) -> Result<Option<SubnetView>, Ec2Error> {
        Ok(None)
    }

    async fn describe_instance_type(&self, _: &str) -> Result<InstanceLimits, Ec2Error> {
        Err(refused(Action::DescribeInstanceTypes, ErrorCode::InvalidInstanceType))
    }
}

impl EniLifecycle for Canned {
    async fn create_eni(&self, request: &CreateEni) -> Result<EniView, Ec2Error> {
        self.created.lock().unwrap().push(request.clone());
        Ok(self.views[0].clone())
    }

    async fn attach_eni(
        &self,
        _: &EniId,
        _: &InstanceId,
        _: DeviceNumber,
        _: NetworkCard,
    ) -> Result<AttachmentId, Ec2Error> {
        Err(refused(
            Action::AttachNetworkInterface,
            ErrorCode::AttachmentLimitExceeded,
        ))
    }

    async fn set_delete_on_termination(&self, _: &EniId, _: &AttachmentId) -> Result<(), Ec2Error> {
        Ok(())
    }

    async fn set_security_groups(&self, _: &EniId, _: &[SecurityGroupId]) -> Result<(), Ec2Error> {
        Ok(())
    }

    async fn detach_eni(&self, _: &AttachmentId) -> Result<(), Ec2Error> {
        Ok(())
    }

    async fn delete_eni(&self, _: &EniId) -> Result<(), Ec2Error> {
        Ok(())
    }
}

impl EniAllocations for Canned {
    async fn assign(&self, _: &EniId, _: cloud::Want) -> Result<Vec<Allocation>, Ec2Error> {
        Err(refused(
            Action::AssignPrivateIpAddresses,
            ErrorCode::InsufficientFreeAddressesInSubnet,
        ))
    }

    async fn unassign(&self, _: &EniId, _: &[Allocation]) -> Result<(), Ec2Error> {
        Ok(())
    }
}

fn view(number: u8, device: u16) -> EniView {
    EniView {
        id: EniId::parse(&format!("eni-{number}")).unwrap(),
        mac: MacAddress([2, 0, 0, 0, 0, number]),
        subnet: SubnetId::parse("subnet-1").unwrap(),
        vpc: VpcId::parse("vpc-1").unwrap(),
        az: None,
        status: EniStatus::InUse,
        kind: EniKind::Interface,
        description: String::new(),
        source_dest_check: SourceDestCheck::On,
        primary: Some([10, 0, 0, number].into()),
        secondaries: Vec::new(),
        prefixes: Vec::new(),
        groups: BTreeSet::new(),
        tags: BTreeMap::new(),
        attachment: Some(AttachmentView {
            id: AttachmentId::parse("eni-attach-1").unwrap(),
            instance: None,
            device: DeviceNumber(device),
            card: NetworkCard::DEFAULT,
            status: AttachmentStatus::Attached,
            delete_on_termination: cloud::DeleteOnTermination::No,
        }),
    }
}

fn executor(views: Vec<EniView>) -> (Ec2Executor<Canned>, tokio::sync::mpsc::Receiver<Input>) {
    let (inbox, received) = queue();
    let tags = EniTags {
        instance: InstanceId::parse("i-1").unwrap(),
        cluster: Some("demo".to_owned()),
        additional: BTreeMap::from([("team".to_owned(), "net".to_owned())]),
    };
    let canned = Canned {
        views,
        created: Mutex::default(),
    };
    let scope = Ec2Scope {
        primary_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        vpc: VpcId::parse("vpc-1").unwrap(),
        zone: "us-east-1a".to_owned(),
        untagged: UntaggedEnis::Managed,
        source: ViewSource::Ec2,
    };
    let imds = ImdsClient::new(&CloudConfig::default()).unwrap();
    (Ec2Executor::new(canned, imds, tags, scope, inbox), received)
}

async fn event(received: &mut tokio::sync::mpsc::Receiver<Input>) -> Event {
    match received.recv().await {
        Some(Input::Event(event)) => event,
        other => panic!("an event was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn tags_kinds_and_slots_decide_who_may_use_an_eni() {
    let mut opted_out = view(3, 2);
    opted_out.tags.insert(TAG_NO_MANAGE.to_owned(), "true".to_owned());
    let mut trunk = view(4, 3);
    trunk.kind = EniKind::Trunk;
    let mut efa = view(7, 5);
    efa.kind = EniKind::Efa;
    let mut other_card = view(5, 1);
    other_card.attachment.as_mut().unwrap().card = NetworkCard(1);
    let mut without_address = view(6, 4);
    without_address.primary = None;
    let mut efa_only = without_address.clone();
    efa_only.kind = EniKind::EfaOnly;
    let all = vec![
        view(1, 0),
        view(2, 1),
        opted_out,
        trunk,
        efa,
        other_card,
        without_address,
        efa_only,
    ];
    let (executor, mut received) = executor(all);
    executor.describe(Scope::Attached).await;
    let Event::Ec2Viewed(view) = event(&mut received).await else {
        panic!("a view was expected")
    };
    let roles: Vec<EniRole> = view.enis.iter().map(|fact| fact.role).collect();
    use EniRole::{Efa, Managed, Primary, Trunk, Unmanaged};
    assert_eq!(roles, [Primary, Managed, Unmanaged, Trunk, Efa, Unmanaged, Unmanaged]);
}

#[tokio::test]
async fn the_operators_word_on_an_eni_beats_our_tag_and_that_beats_the_switch() {
    let tagged = |number, device, pairs: &[(&str, &str)]| {
        let mut view = view(number, device);
        view.tags = pairs
            .iter()
            .map(|(key, text)| ((*key).to_owned(), (*text).to_owned()))
            .collect();
        view
    };
    let all = vec![
        tagged(2, 1, &[(TAG_NO_MANAGE, "true"), (TAG_INSTANCE, "i-1")]),
        tagged(3, 2, &[(TAG_NO_MANAGE, "false")]),
        tagged(4, 3, &[(TAG_INSTANCE, "i-1")]),
        tagged(5, 4, &[(TAG_INSTANCE, "i-2")]),
        tagged(6, 5, &[]),
    ];
    use EniRole::{Managed, Unmanaged};
    for (untagged, last) in [(UntaggedEnis::Managed, Managed), (UntaggedEnis::LeftAlone, Unmanaged)] {
        let (mut executor, mut received) = executor(all.clone());
        executor.scope.untagged = untagged;
        executor.describe(Scope::Attached).await;
        let Event::Ec2Viewed(view) = event(&mut received).await else {
            panic!("a view was expected")
        };
        let roles: Vec<EniRole> = view.enis.iter().map(|fact| fact.role).collect();
        assert_eq!(roles, [Unmanaged, Managed, Managed, last, last], "{untagged:?}");
    }
}

#[tokio::test]
async fn only_enis_of_this_cluster_with_the_usual_description_are_left_over() {
    let left = |number, cluster: &str, description: &str| {
        let mut view = view(number, 1);
        (view.attachment, view.status) = (None, EniStatus::Available);
        view.description = description.to_owned();
        view.tags.insert(TAG_CLUSTER.to_owned(), cluster.to_owned());
        view
    };
    let all = vec![
        left(2, "demo", "aws-K8S-i-9"),
        left(3, "demos", "aws-K8S-i-9"),
        left(4, "demo", "a load balancer"),
    ];
    let (executor, mut received) = executor(all);
    executor.describe(Scope::Leaked).await;
    let Event::Ec2Viewed(view) = event(&mut received).await else {
        panic!("a view was expected")
    };
    let ids: Vec<&str> = view.enis.iter().map(|fact| fact.id.as_str()).collect();
    assert_eq!(ids, ["eni-2"]);
}

#[tokio::test]
async fn subnets_come_with_their_tags_and_those_without_ipv4_not_at_all() {
    let (executor, mut received) = executor(Vec::new());
    executor.describe(Scope::Subnets).await;
    let Event::SubnetsViewed(view) = event(&mut received).await else {
        panic!("subnets were expected")
    };
    assert_eq!(view.subnets.len(), 1);
    assert_eq!((view.subnets[0].id.as_str(), view.subnets[0].free), ("subnet-1", 7));
    assert!(view.subnets[0].tags.contains_key("kubernetes.io/role/cni"));
}

#[tokio::test]
async fn a_repeated_creation_asks_for_exactly_the_same() {
    let (executor, mut received) = executor(vec![view(2, 1)]);
    let work = Work::CreateEni {
        token: "i-1-0-1".to_owned(),
        subnet: SubnetId::parse("subnet-1").unwrap(),
        groups: BTreeSet::from([SecurityGroupId::parse("sg-1").unwrap()]),
        want: Want::Addresses(3),
        requested_at: WallTime(Duration::from_millis(1_700_000_000_999)),
    };
    for op in [OpId(1), OpId(1)] {
        executor.run(op, work.clone()).await;
        assert!(matches!(
            event(&mut received).await,
            Event::OpDone {
                outcome: OpOutcome::Applied(_),
                ..
            }
        ));
    }
    let asked = executor.ec2.created.lock().unwrap();
    assert_eq!(asked[0], asked[1]);
    let tag = |key: &str| asked[0].tags.get(key).map(String::as_str);
    assert_eq!(tag(TAG_CREATED), Some("2023-11-14T22:13:20Z"));
    assert_eq!(
        (tag(TAG_INSTANCE), tag(TAG_CLUSTER), tag("team")),
        (Some("i-1"), Some("demo"), Some("net"))
    );
    assert_eq!(asked[0].description, "aws-K8S-i-1");
}

#[tokio::test]
async fn refusals_arrive_as_the_classes_the_core_knows() {
    let (executor, mut received) = executor(Vec::new());
    let eni = EniId::parse("eni-2").unwrap();
    let attach = Work::Attach {
        eni: eni.clone(),
        device: DeviceNumber(1),
        card: NetworkCard::DEFAULT,
    };
    let allocate = |want| Work::AllocateAddresses { eni: eni.clone(), want };
    for (work, refusal) in [
        (attach, Refusal::LimitReached),
        (allocate(Want::Addresses(4)), Refusal::SubnetFull),
        // Whatever EC2 calls it: single addresses may be left.
        (allocate(Want::Prefixes(1)), Refusal::SubnetFragmented),
    ] {
        executor.run(OpId(7), work).await;
        let outcome = OpOutcome::Refused(refusal);
        assert_eq!(event(&mut received).await, Event::OpDone { op: OpId(7), outcome });
    }
}
