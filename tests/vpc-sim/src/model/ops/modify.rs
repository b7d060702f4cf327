//! `ModifyNetworkInterfaceAttribute` and `CreateTags`.

use std::time::Duration;

use vpc_types::{EniId, InstanceId, SubnetId};

use super::super::change::Change;
use super::super::request::{CreateTags, EniAttribute, ModifyNetworkInterfaceAttribute};
use super::super::{Action, Ec2Error, ErrorCode, World};
use super::Operation;
use super::create::check_groups;

impl Operation for ModifyNetworkInterfaceAttribute {
    type Output = ();
    const ACTION: Action = Action::ModifyNetworkInterfaceAttribute;

    fn execute(&self, world: &mut World, now: Duration) -> Result<(), Ec2Error> {
        let eni = world.get_eni(&self.eni, now)?;
        match &self.attribute {
            EniAttribute::OnTermination(attachment, on_termination) => {
                if eni.attachment.as_ref().is_none_or(|tie| tie.id != *attachment) {
                    let text = format!("The interface attachment '{attachment}' does not exist");
                    return Err(Ec2Error::new(ErrorCode::InvalidAttachmentNotFound, text));
                }
                world.update_eni(now, &eni.id, |eni| {
                    if let Some(tie) = &mut eni.attachment {
                        tie.on_termination = *on_termination;
                    }
                });
            }
            EniAttribute::Groups(groups) => {
                let groups = check_groups(world, &eni.vpc, groups)?;
                world.update_eni(now, &eni.id, |eni| eni.groups = groups);
            }
            EniAttribute::SourceDestCheck(check) => {
                let eni = world.update_eni(now, &eni.id, |eni| eni.source_dest_check = *check);
                world.report(&eni, |eni| Change::SourceDestCheck { eni, check: *check });
            }
            EniAttribute::Description(text) => {
                world.update_eni(now, &eni.id, |eni| eni.description.clone_from(text));
            }
        }
        Ok(())
    }
}

enum Resource {
    Eni(EniId),
    Instance(InstanceId),
    Subnet(SubnetId),
}

impl Operation for CreateTags {
    type Output = ();
    const ACTION: Action = Action::CreateTags;

    fn execute(&self, world: &mut World, now: Duration) -> Result<(), Ec2Error> {
        let found = self
            .resources
            .iter()
            .map(|id| find(world, id, now))
            .collect::<Result<Vec<_>, _>>()?;
        for resource in found {
            let tags = self.tags.clone();
            match resource {
                Resource::Eni(id) => {
                    world.update_eni(now, &id, |eni| eni.tags.extend(tags));
                }
                Resource::Instance(id) => {
                    world.instances.get_mut(&id).expect("found above").tags.extend(tags);
                }
                Resource::Subnet(id) => world.subnets.get_mut(&id).expect("found above").tags.extend(tags),
            }
        }
        Ok(())
    }
}

fn find(world: &mut World, id: &str, now: Duration) -> Result<Resource, Ec2Error> {
    if let Ok(eni) = EniId::parse(id) {
        return world.get_eni(&eni, now).map(|_| Resource::Eni(eni));
    }
    if let Ok(instance) = InstanceId::parse(id) {
        return world
            .get_instance(&instance)
            .map(|_| Resource::Instance(instance.clone()));
    }
    if let Ok(subnet) = SubnetId::parse(id) {
        return world.get_subnet(&subnet).map(|_| Resource::Subnet(subnet.clone()));
    }
    Err(Ec2Error::new(
        ErrorCode::InvalidId,
        format!("The ID '{id}' is not valid"),
    ))
}
