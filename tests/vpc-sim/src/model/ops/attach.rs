//! `AttachNetworkInterface`, `DetachNetworkInterface`, `DeleteNetworkInterface`.

use std::time::Duration;

use vpc_types::{AttachmentId, EniId, NetworkCard};

use super::super::record::{Attachment, AttachmentStatus, Eni, Instance, InstanceState, OnTermination};
use super::super::request::{AttachNetworkInterface, DeleteNetworkInterface, DetachMode, DetachNetworkInterface};
use super::super::world::Transition;
use super::super::{Action, Ec2Error, ErrorCode, World};
use super::{Operation, check_ipv4_slots};

/// The new attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Needed to detach.
    pub attachment: AttachmentId,
    /// The card it landed on.
    pub card: NetworkCard,
}

impl Operation for AttachNetworkInterface {
    type Output = Attached;
    const ACTION: Action = Action::AttachNetworkInterface;

    fn execute(&self, world: &mut World, now: Duration) -> Result<Attached, Ec2Error> {
        let eni = world.get_eni(&self.eni, now)?;
        let instance = world.get_instance(&self.instance)?;
        if eni.attachment.is_some() {
            let text = format!("Interface: [{}] in use.", eni.id);
            return Err(Ec2Error::new(ErrorCode::InvalidEniInUse, text));
        }
        let card = self.card.unwrap_or(instance.limits.default_card);
        check_instance(instance, &eni)?;
        check_slot(world, instance, card, self)?;
        check_ipv4_slots(Some(&instance.limits), eni.ipv4_slots())?;
        let attachment = Attachment {
            id: world
                .new_id("eni-attach-")
                .parse()
                .expect("generated ids are well formed"),
            instance: self.instance.clone(),
            device: self.device,
            card,
            status: AttachmentStatus::Attaching,
            attached_at: now,
            // An ENI attached through the API outlives its instance until a modify call says otherwise.
            on_termination: OnTermination::Keep,
        };
        let id = attachment.id.clone();
        tie(world, now, &self.eni, attachment);
        let delay = world.settings.attach;
        let at = now + world.sample(delay);
        world.schedule(at, Transition::Plugged(id.clone()));
        Ok(Attached { attachment: id, card })
    }
}

/// Records the attachment on both sides.
pub(in super::super) fn tie(world: &mut World, now: Duration, eni: &EniId, attachment: Attachment) {
    world.attachments.insert(attachment.id.clone(), eni.clone());
    let instance = world
        .instances
        .get_mut(&attachment.instance)
        .expect("the caller has looked the instance up");
    instance.enis.insert(eni.clone());
    world.update_eni(now, eni, |eni| eni.attachment = Some(attachment));
}

fn check_instance(instance: &Instance, eni: &Eni) -> Result<(), Ec2Error> {
    if instance.state == InstanceState::Terminated {
        let text = format!("Instance '{}' is not 'running' or 'stopped'.", instance.id);
        return Err(Ec2Error::new(ErrorCode::IncorrectInstanceState, text));
    }
    if instance.zone != eni.zone {
        let text =
            "You may not attach a network interface to an instance if they are not in the same availability zone";
        return Err(Ec2Error::combination(text));
    }
    Ok(())
}

fn check_slot(
    world: &World,
    instance: &Instance,
    card: NetworkCard,
    wanted: &AttachNetworkInterface,
) -> Result<(), Ec2Error> {
    let Some(most) = instance.limits.enis_per_card.get(usize::from(card.0)) else {
        return Err(Ec2Error::value(format!(
            "The network card index {card:?} is invalid for {}",
            instance.instance_type
        )));
    };
    let ties = || {
        instance
            .enis
            .iter()
            .filter_map(|id| world.find_eni(id))
            .filter_map(|eni| eni.attachment.as_ref())
    };
    if ties().any(|tie| tie.card == card && tie.device == wanted.device) {
        let text = format!(
            "Instance '{}' already has an interface attached at device index '{}'.",
            instance.id, wanted.device
        );
        return Err(Ec2Error::value(text));
    }
    let count = ties().filter(|tie| tie.card == card).count() + 1;
    if count > usize::from(*most) {
        let text = format!(
            "Interface count {count} exceeds the limit for {}",
            instance.instance_type
        );
        return Err(Ec2Error::new(ErrorCode::AttachmentLimitExceeded, text));
    }
    Ok(())
}

impl Operation for DetachNetworkInterface {
    type Output = ();
    const ACTION: Action = Action::DetachNetworkInterface;

    fn execute(&self, world: &mut World, now: Duration) -> Result<(), Ec2Error> {
        let missing = || {
            let text = format!("The interface attachment '{}' does not exist", self.attachment);
            Ec2Error::new(ErrorCode::InvalidAttachmentNotFound, text)
        };
        let id = world.attachments.get(&self.attachment).ok_or_else(missing)?.clone();
        let eni = world.find_eni(&id).expect("an attachment belongs to an ENI").clone();
        let tie = eni.attachment.as_ref().ok_or_else(missing)?;
        if tie.is_primary() {
            let text = "The network interface at device index 0 and networkCard index 0 cannot be detached.";
            return Err(Ec2Error::new(ErrorCode::OperationNotPermitted, text));
        }
        if tie.status == AttachmentStatus::Detaching && self.mode == DetachMode::Orderly {
            let text = format!(
                "The attachment '{}' is in an incorrect state: detaching",
                self.attachment
            );
            return Err(Ec2Error::new(ErrorCode::IncorrectState, text));
        }
        world.update_eni(now, &id, |eni| {
            if let Some(tie) = &mut eni.attachment {
                tie.status = AttachmentStatus::Detaching;
            }
        });
        let (unplug, detach) = (world.settings.unplug, world.settings.detach);
        let (gone, available) = match self.mode {
            DetachMode::Orderly => (world.sample(unplug), world.sample(detach)),
            DetachMode::Force => (Duration::ZERO, Duration::ZERO),
        };
        world.schedule(now + gone, Transition::Unplugged(self.attachment.clone()));
        world.schedule(now + gone.max(available), Transition::Detached(self.attachment.clone()));
        Ok(())
    }
}

impl Operation for DeleteNetworkInterface {
    type Output = ();
    const ACTION: Action = Action::DeleteNetworkInterface;

    fn execute(&self, world: &mut World, now: Duration) -> Result<(), Ec2Error> {
        let eni = world.get_eni(&self.eni, now)?;
        if eni.attachment.is_some() {
            return Err(Ec2Error::value(format!(
                "Network interface '{}' is currently in use.",
                eni.id
            )));
        }
        world.remove_eni(now, &eni);
        Ok(())
    }
}
