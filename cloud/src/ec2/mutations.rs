//! Calls that change something. One attempt each; who calls decides what an unknown outcome needs.

use std::num::NonZeroU16;

use aws_sdk_ec2::types as sdk;
use vpc_types::{Allocation, AttachmentId, DeviceNumber, EniId, InstanceId, NetworkCard, SecurityGroupId};

use super::client::Ec2Client;
use super::convert;
use super::convert::Fields;
use super::eni::EniView;
use super::error::{Action, Ec2Error};
use super::request::{CreateEni, Want};
use super::traits::{EniAllocations, EniLifecycle};

impl EniLifecycle for Ec2Client {
    async fn create_eni(&self, request: &CreateEni) -> Result<EniView, Ec2Error> {
        let action = Action::CreateNetworkInterface;
        let groups: Vec<_> = request.groups.iter().map(ToString::to_string).collect();
        let (addresses, prefixes) = counts(request.initial);
        let call = self
            .mutations
            .create_network_interface()
            .subnet_id(request.subnet.as_str())
            .description(&request.description)
            .set_groups(Some(groups).filter(|groups| !groups.is_empty()))
            .set_tag_specifications(tag_specification(request).map(|tags| vec![tags]))
            .set_secondary_private_ip_address_count(addresses)
            .set_ipv4_prefix_count(prefixes)
            .client_token(request.client_token.as_str());
        self.call(
            action,
            |attempts| call.customize().interceptor(attempts).send(),
            |answer| {
                let created = answer.network_interface();
                convert::eni(action, Fields::of(action, None).need("networkInterface", created)?)
            },
        )
        .await
    }

    async fn attach_eni(
        &self,
        eni: &EniId,
        instance: &InstanceId,
        device: DeviceNumber,
        card: NetworkCard,
    ) -> Result<AttachmentId, Ec2Error> {
        let action = Action::AttachNetworkInterface;
        let call = self
            .mutations
            .attach_network_interface()
            .network_interface_id(eni.as_str())
            .instance_id(instance.as_str())
            .device_index(i32::from(device.0))
            // Without it EC2 may find the device number taken by an ENI of another card.
            .network_card_index(i32::from(card.0));
        self.call(
            action,
            |attempts| call.customize().interceptor(attempts).send(),
            |answer| Fields::of(action, Some(eni.as_str())).parse("attachmentId", answer.attachment_id()),
        )
        .await
    }

    async fn set_delete_on_termination(&self, eni: &EniId, attachment: &AttachmentId) -> Result<(), Ec2Error> {
        let changes = sdk::NetworkInterfaceAttachmentChanges::builder()
            .attachment_id(attachment.as_str())
            .delete_on_termination(true)
            .build();
        let call = self.mutations.modify_network_interface_attribute();
        let call = call.network_interface_id(eni.as_str()).attachment(changes);
        let send = |attempts| call.customize().interceptor(attempts).send();
        self.call(Action::ModifyNetworkInterfaceAttribute, send, |_| Ok(()))
            .await
    }

    async fn set_security_groups(&self, eni: &EniId, groups: &[SecurityGroupId]) -> Result<(), Ec2Error> {
        let groups = groups.iter().map(ToString::to_string).collect();
        let call = self.mutations.modify_network_interface_attribute();
        let call = call.network_interface_id(eni.as_str()).set_groups(Some(groups));
        let send = |attempts| call.customize().interceptor(attempts).send();
        self.call(Action::ModifyNetworkInterfaceAttribute, send, |_| Ok(()))
            .await
    }

    async fn detach_eni(&self, attachment: &AttachmentId) -> Result<(), Ec2Error> {
        let call = self
            .mutations
            .detach_network_interface()
            .attachment_id(attachment.as_str());
        let send = |attempts| call.customize().interceptor(attempts).send();
        self.call(Action::DetachNetworkInterface, send, |_| Ok(())).await
    }

    async fn delete_eni(&self, eni: &EniId) -> Result<(), Ec2Error> {
        let call = self
            .mutations
            .delete_network_interface()
            .network_interface_id(eni.as_str());
        let send = |attempts| call.customize().interceptor(attempts).send();
        self.call(Action::DeleteNetworkInterface, send, |_| Ok(())).await
    }
}

impl EniAllocations for Ec2Client {
    async fn assign(&self, eni: &EniId, want: Want) -> Result<Vec<Allocation>, Ec2Error> {
        let (addresses, prefixes) = counts(Some(want));
        let call = self
            .mutations
            .assign_private_ip_addresses()
            .network_interface_id(eni.as_str())
            .set_secondary_private_ip_address_count(addresses)
            .set_ipv4_prefix_count(prefixes);
        let send = |attempts| call.customize().interceptor(attempts).send();
        self.call(Action::AssignPrivateIpAddresses, send, |answer| {
            convert::assigned(&answer)
        })
        .await
    }

    async fn unassign(&self, eni: &EniId, allocations: &[Allocation]) -> Result<(), Ec2Error> {
        if allocations.is_empty() {
            return Ok(());
        }
        let mut call = self
            .mutations
            .unassign_private_ip_addresses()
            .network_interface_id(eni.as_str());
        for allocation in allocations {
            call = match allocation {
                Allocation::Ip(ip) => call.private_ip_addresses(ip.to_string()),
                Allocation::Prefix(prefix) => call.ipv4_prefixes(prefix.net().to_string()),
            };
        }
        let send = |attempts| call.customize().interceptor(attempts).send();
        self.call(Action::UnassignPrivateIpAddresses, send, |_| Ok(())).await
    }
}

/// Number of addresses, number of prefixes; at most one of them is sent.
fn counts(want: Option<Want>) -> (Option<i32>, Option<i32>) {
    let number = |count: NonZeroU16| Some(i32::from(count.get()));
    match want {
        Some(Want::Addresses(count)) => (number(count), None),
        Some(Want::Prefixes(count)) => (None, number(count)),
        None => (None, None),
    }
}

fn tag_specification(request: &CreateEni) -> Option<sdk::TagSpecification> {
    let tags = request
        .tags
        .iter()
        .map(|(key, value)| sdk::Tag::builder().key(key).value(value).build());
    let specification = || {
        sdk::TagSpecification::builder()
            .resource_type(sdk::ResourceType::NetworkInterface)
            .set_tags(Some(tags.collect()))
            .build()
    };
    (!request.tags.is_empty()).then(specification)
}
