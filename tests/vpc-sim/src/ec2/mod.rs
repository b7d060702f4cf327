//! The EC2 Query API: form parameters in, XML out.
//!
//! Owns the wire format only; what a call does is the model's. Signatures are not checked. This crate shares no code
//! with the product's EC2 client, so that one misreading of the format cannot pass on both sides.
//! Invariant: the body depends on the parameters, the model and the request id alone, so it can be compared byte by byte.

mod decode;
mod encode;
#[cfg(test)]
mod golden;
mod params;
mod server;
#[cfg(test)]
mod tests;
mod xml;

use std::time::Duration;

use time::OffsetDateTime;

use crate::model::request::{
    AssignIpv6Addresses, AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface, CreateTags,
    DeleteNetworkInterface, DescribeInstanceTypes, DescribeInstances, DescribeNetworkInterfaces,
    DescribeSecurityGroups, DescribeSubnets, DescribeVpcs, DetachNetworkInterface, ModifyNetworkInterfaceAttribute,
    UnassignIpv6Addresses, UnassignPrivateIpAddresses,
};
use crate::model::{Action, AssignedIpv6, Ec2Error, ErrorCode, Model, Outcome};
use decode::Decode;
use encode::{Context, Encode, Ipv6Change};
use params::Params;
pub(crate) use server::serve_connection;
use xml::Xml;

/// The version of the API that all current SDKs send.
const VERSION: &str = "2016-11-15";

/// Moment and identity of one request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The model's time.
    pub(crate) now: Duration,
    /// The wall clock's time at the model's time zero.
    pub(crate) epoch: OffsetDateTime,
    /// Goes into header and body of the answer.
    pub(crate) request_id: String,
}

/// What goes back over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A body with its HTTP status, due after the latency.
    Answer {
        /// HTTP status.
        status: u16,
        /// XML.
        body: Vec<u8>,
        /// Time until it is sent.
        latency: Duration,
    },
    /// Nothing, ever.
    Lost,
}

/// Answers one request. `form` is the body of a POST or the query of a GET.
pub(crate) fn answer(model: &mut Model, call: &Call, form: &[u8]) -> Reply {
    let mut params = Params::decode(form);
    match action_of(&mut params) {
        Ok(action) => dispatch(model, call, action, params),
        Err(refusal) => refuse(call, &refusal, Duration::ZERO),
    }
}

/// The action a request names, for counts.
pub(crate) fn peek_action(form: &[u8]) -> Option<Action> {
    Action::parse(&Params::decode(form).take("Action")?)
}

fn action_of(params: &mut Params) -> Result<Action, Ec2Error> {
    // Parameters of query-string authentication, which old tools use.
    params.ignore(&[
        "AWSAccessKeyId",
        "Signature",
        "SignatureMethod",
        "SignatureVersion",
        "Timestamp",
        "SecurityToken",
    ]);
    let name = params.require("Action")?;
    if let Some(version) = params.take("Version").filter(|version| version != VERSION) {
        let text = format!("The version {version} is not supported here; use {VERSION}");
        return Err(Ec2Error::new(ErrorCode::InvalidParameter, text));
    }
    Action::parse(&name).ok_or_else(|| {
        let text = format!("The action {name} is not valid for this web service.");
        Ec2Error::new(ErrorCode::InvalidAction, text)
    })
}

fn dispatch(model: &mut Model, call: &Call, action: Action, params: Params) -> Reply {
    match action {
        Action::DescribeNetworkInterfaces => run::<DescribeNetworkInterfaces>(model, call, params),
        Action::DescribeInstances => run::<DescribeInstances>(model, call, params),
        Action::DescribeInstanceTypes => run::<DescribeInstanceTypes>(model, call, params),
        Action::DescribeSubnets => run::<DescribeSubnets>(model, call, params),
        Action::DescribeVpcs => run::<DescribeVpcs>(model, call, params),
        Action::DescribeSecurityGroups => run::<DescribeSecurityGroups>(model, call, params),
        Action::CreateNetworkInterface => run::<CreateNetworkInterface>(model, call, params),
        Action::AttachNetworkInterface => run::<AttachNetworkInterface>(model, call, params),
        Action::DetachNetworkInterface => run::<DetachNetworkInterface>(model, call, params),
        Action::DeleteNetworkInterface => run::<DeleteNetworkInterface>(model, call, params),
        Action::ModifyNetworkInterfaceAttribute => run::<ModifyNetworkInterfaceAttribute>(model, call, params),
        Action::AssignPrivateIpAddresses => run::<AssignPrivateIpAddresses>(model, call, params),
        Action::UnassignPrivateIpAddresses => run::<UnassignPrivateIpAddresses>(model, call, params),
        Action::AssignIpv6Addresses => run_with::<AssignIpv6Addresses>(model, call, params, |got, context, xml| {
            ipv6("assigned", got, context, xml);
        }),
        Action::UnassignIpv6Addresses => run_with::<UnassignIpv6Addresses>(model, call, params, |got, context, xml| {
            ipv6("unassigned", got, context, xml);
        }),
        Action::CreateTags => run::<CreateTags>(model, call, params),
    }
}

fn ipv6(word: &'static str, change: &AssignedIpv6, context: &Context<'_>, xml: &mut Xml) {
    Ipv6Change(word, change).encode(context, xml);
}

fn run<O: Decode<Output: Encode>>(model: &mut Model, call: &Call, params: Params) -> Reply {
    run_with::<O>(model, call, params, Encode::encode)
}

fn run_with<O: Decode>(
    model: &mut Model,
    call: &Call,
    mut params: Params,
    encode: impl Fn(&O::Output, &Context<'_>, &mut Xml),
) -> Reply {
    let request = match decode::<O>(&mut params).and_then(|request| params.finish().map(|()| request)) {
        Ok(request) => request,
        Err(refusal) => return refuse(call, &refusal, Duration::ZERO),
    };
    let answer = model.call(call.now, &request);
    match answer.outcome {
        Outcome::Lost => Reply::Lost,
        Outcome::Refused(refusal) => refuse(call, &refusal, answer.latency),
        Outcome::Done(output) => {
            let mut xml = Xml::document();
            let context = Context {
                model,
                epoch: call.epoch,
            };
            xml.root(&format!("{}Response", O::ACTION), |xml| {
                xml.text("requestId", &call.request_id);
                encode(&output, &context, xml);
            });
            Reply::Answer {
                status: 200,
                body: xml.finish(),
                latency: answer.latency,
            }
        }
    }
}

fn decode<O: Decode>(params: &mut Params) -> Result<O, Ec2Error> {
    let dry_run = params.take_flag("DryRun")? == Some(true);
    let request = O::decode(params)?;
    if dry_run {
        return Err(Ec2Error::stock(ErrorCode::DryRunOperation));
    }
    Ok(request)
}

fn refuse(call: &Call, refusal: &Ec2Error, latency: Duration) -> Reply {
    let mut xml = Xml::document();
    xml.element("Response", |xml| {
        xml.element("Errors", |xml| {
            xml.element("Error", |xml| {
                xml.text("Code", refusal.code);
                xml.text("Message", &refusal.message);
            });
        });
        xml.text("RequestID", &call.request_id);
    });
    Reply::Answer {
        status: refusal.code.http_status(),
        body: xml.finish(),
        latency,
    }
}
