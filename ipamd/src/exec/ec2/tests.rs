use std::collections::BTreeSet;

use std::future::Future;
use std::sync::Mutex;

use cloud::{Action, AttachmentView, EniAllocations, EniLifecycle, EniStatus, ReadEc2, SourceDestCheck, SubnetView};
use vpc_types::{AttachmentId, EniId, InstanceLimits, SubnetId, VpcId};

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
        let own = tags
            .iter()
            .any(|tag| matches!(tag, TagFilter::Equals { key, .. } if key == TAG_INSTANCE));
        let views = if own { self.views.clone() } else { Vec::new() };
        async move { Ok(views) }
    }

    async fn describe_subnets(&self, _: &VpcId, _: &str) -> Result<Vec<SubnetView>, Ec2Error> {
        Ok(Vec::new())
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
    let primary = MacAddress([2, 0, 0, 0, 0, 1]);
    (Ec2Executor::new(canned, tags, primary, inbox), received)
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
    let all = vec![
        view(1, 0),
        view(2, 1),
        opted_out,
        trunk,
        efa,
        other_card,
        without_address,
    ];
    let (executor, mut received) = executor(all);
    executor.describe(Scope::Attached).await;
    let Event::Ec2Viewed(view) = event(&mut received).await else {
        panic!("a view was expected")
    };
    let roles: Vec<EniRole> = view.enis.iter().map(|fact| fact.role).collect();
    use EniRole::{Managed, Primary, Unmanaged};
    assert_eq!(roles, [Primary, Managed, Unmanaged, Unmanaged, Unmanaged, Unmanaged]);
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
    let allocate = Work::AllocateAddresses {
        eni,
        want: Want::Addresses(4),
    };
    for (work, refusal) in [(attach, Refusal::LimitReached), (allocate, Refusal::SubnetFull)] {
        executor.run(OpId(7), work).await;
        let outcome = OpOutcome::Refused(refusal);
        assert_eq!(event(&mut received).await, Event::OpDone { op: OpId(7), outcome });
    }
}
