//! From outputs to the XML of EC2's answers, element names as in its public model.

mod describe;
mod eni;

use std::time::Duration;

use time::OffsetDateTime;
use time::macros::format_description;

use super::xml::Xml;
use crate::model::{AssignedIpv4, AssignedIpv6, Attached, Created, Model};

/// What encoders need beside the output itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// For names of groups and the account.
    pub(super) model: &'a Model,
    /// The wall clock's time at the model's time zero.
    pub(super) epoch: OffsetDateTime,
}

impl Context<'_> {
    fn account(&self) -> &str {
        &self.model.settings().account
    }

    /// EC2's form: UTC with milliseconds.
    fn time(&self, at: Duration) -> String {
        const FORM: &[time::format_description::BorrowedFormatItem<'_>] =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        (self.epoch + at)
            .format(FORM)
            .expect("a date in this millennium has this form")
    }
}

/// An output with its form in XML.
pub(super) trait Encode {
    /// Writes what stands beside the request id.
    fn encode(&self, context: &Context<'_>, xml: &mut Xml);
}

/// Calls that only succeed or fail.
impl Encode for () {
    fn encode(&self, _: &Context<'_>, xml: &mut Xml) {
        xml.text("return", true);
    }
}

impl Encode for Created {
    fn encode(&self, context: &Context<'_>, xml: &mut Xml) {
        xml.element("networkInterface", |xml| eni::encode_eni(&self.eni, context, xml));
        xml.maybe("clientToken", self.client_token.as_ref());
    }
}

impl Encode for Attached {
    fn encode(&self, _: &Context<'_>, xml: &mut Xml) {
        xml.text("attachmentId", &self.attachment);
        xml.text("networkCardIndex", self.card.0);
    }
}

impl Encode for AssignedIpv4 {
    fn encode(&self, _: &Context<'_>, xml: &mut Xml) {
        xml.text("networkInterfaceId", &self.eni);
        xml.set("assignedPrivateIpAddressesSet", &self.addresses, |xml, address| {
            xml.text("privateIpAddress", address);
        });
        xml.set("assignedIpv4PrefixSet", &self.prefixes, |xml, prefix| {
            xml.text("ipv4Prefix", prefix.net())
        });
        xml.text("return", true);
    }
}

/// What an IPv6 call added or took away; the two calls differ in the first word of two elements only.
pub(super) struct Ipv6Change<'a>(pub(super) &'static str, pub(super) &'a AssignedIpv6);

impl Encode for Ipv6Change<'_> {
    fn encode(&self, _: &Context<'_>, xml: &mut Xml) {
        let Self(word, change) = self;
        xml.text("networkInterfaceId", &change.eni);
        xml.scalars(&format!("{word}Ipv6Addresses"), &change.addresses);
        xml.scalars(&format!("{word}Ipv6PrefixSet"), &change.prefixes);
    }
}
