//! Doing what a request says.

use std::time::Duration;

use serde_json::{Value, json};
use vpc_types::{EniId, InstanceId, Prefix28, SubnetId};

use super::dump::{counts, state};
use super::{ImdsFaultKind, Lose, LostMode, NoticeKind, Request, Target};
use crate::model::request::{
    AssignPrivateIpAddresses, DetachMode, DetachNetworkInterface, Ipv4Request, UnassignPrivateIpAddresses,
};
use crate::model::{Action, Delay, Ec2Error, Effect, ErrorCode, Fault, ImdsFault, Notice, Occupancy, Throttle};
use crate::{LostAnswers, Simulator};

/// A request that cannot be done, for its sender to read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("there is no action {0:?}")]
    Action(String),
    #[error("there is no error code {0:?}; this EC2 has {known}", known = all_codes())]
    Code(String),
    #[error("say what goes wrong: a code, a lost answer, or a delay")]
    NoFault,
    #[error("{0}")]
    Id(#[from] vpc_types::IdError),
    #[error("{0:?} is neither an address nor a /28")]
    Address(String),
    #[error("{0}")]
    Refused(#[from] Ec2Error),
    #[error("{0}")]
    Setup(#[from] crate::model::SetupError),
    #[error("{0}")]
    Kube(#[from] crate::kube::KubeError),
    #[error("{0} is attached to nothing")]
    NotAttached(EniId),
    #[error("a factor must be greater than 0")]
    Factor,
    #[error("only the API runs here, without a data plane")]
    NoDataPlane,
    #[error("there is no node or internet host {0:?}")]
    Node(String),
    #[error("the fabric cannot be asked: {0}")]
    Fabric(String),
}

pub(super) fn apply(target: &Target, request: Request) -> Result<Value, ApplyError> {
    let simulator = &target.simulator;
    match request {
        Request::State => Ok(state(target)),
        Request::Counts { reset } => {
            let shown = counts(simulator);
            if reset {
                simulator.reset_counts();
            }
            Ok(shown)
        }
        Request::Drops => drops(target),
        Request::Address { node } => address(target, &node),
        Request::Fault {
            action,
            code,
            lose,
            delay_ms,
            calls,
        } => {
            let (action, fault) = (parse_action(&action)?, fault_of(code, lose, delay_ms)?);
            simulator.with_model(|model, _| model.faults_mut().inject(action, &fault, calls));
            Ok(Value::Null)
        }
        Request::ClearFaults => clear_faults(simulator),
        Request::ImdsFault { kind, id } => {
            let fault = imds_fault(kind, &id)?;
            simulator.with_model(|model, _| model.break_imds(fault));
            Ok(Value::Null)
        }
        Request::LostAnswers { mode } => {
            simulator.set_lost_answers(match mode {
                LostMode::Close => LostAnswers::Close,
                LostMode::Hang => LostAnswers::Hang,
            });
            Ok(Value::Null)
        }
        Request::Latency { action, ms } => {
            let action = parse_action(&action)?;
            simulator.with_model(|model, _| model.settings_mut().latency.insert(action, Delay::millis(ms)));
            Ok(Value::Null)
        }
        Request::Timing(timing) => {
            simulator.with_model(|model, _| timing.set(model.settings_mut()));
            Ok(Value::Null)
        }
        Request::Throttle { factor } => throttle(simulator, factor),
        Request::Assign { eni, count, prefixes } => assign(simulator, &eni, count, prefixes),
        Request::Unassign { eni, what } => unassign(simulator, &eni, &what),
        Request::Take {
            subnet,
            count,
            fragmented,
        } => take(simulator, &subnet, count, fragmented),
        Request::GiveBack { subnet } => give_back(simulator, &subnet),
        Request::Notice { instance, from } => announce(simulator, &instance, from),
        Request::Detach { eni } => detach(simulator, &eni),
        Request::Kube(request) => Ok(super::kube::apply(simulator.kube(), request)?),
        Request::Terminate { instance } => {
            let instance = InstanceId::parse(&instance)?;
            simulator.with_model(|model, now| model.terminate_instance(now, &instance))?;
            Ok(Value::Null)
        }
    }
}

fn clear_faults(simulator: &Simulator) -> Result<Value, ApplyError> {
    simulator.with_model(|model, _| {
        model.faults_mut().clear();
        model.heal_imds();
    });
    Ok(Value::Null)
}

fn give_back(simulator: &Simulator, subnet: &str) -> Result<Value, ApplyError> {
    let subnet = SubnetId::parse(subnet)?;
    let gone = simulator.with_model(|model, now| model.vacate(now, &subnet))?;
    Ok(json!({"enis": gone}))
}

fn announce(simulator: &Simulator, instance: &str, from: Option<NoticeKind>) -> Result<Value, ApplyError> {
    let instance = InstanceId::parse(instance)?;
    let notice = from.map(|from| match from {
        NoticeKind::Spot => Notice::Spot,
        NoticeKind::AutoScaling => Notice::AutoScaling,
    });
    simulator.with_model(|model, _| model.announce(&instance, notice));
    Ok(Value::Null)
}

fn all_codes() -> String {
    let names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    names.join(", ")
}

fn parse_action(name: &str) -> Result<Action, ApplyError> {
    Action::parse(name).ok_or_else(|| ApplyError::Action(name.to_owned()))
}

fn fault_of(code: Option<String>, lose: Option<Lose>, delay_ms: Option<u64>) -> Result<Fault, ApplyError> {
    match (code, lose, delay_ms) {
        (Some(code), _, _) => {
            let code = ErrorCode::parse(&code).ok_or(ApplyError::Code(code))?;
            Ok(Fault::Refuse(Ec2Error::stock(code)))
        }
        (None, Some(Lose::Applied), _) => Ok(Fault::LoseAnswer(Effect::Applied)),
        (None, Some(Lose::NotApplied), _) => Ok(Fault::LoseAnswer(Effect::NotApplied)),
        (None, None, Some(millis)) => Ok(Fault::Delay(Duration::from_millis(millis))),
        (None, None, None) => Err(ApplyError::NoFault),
    }
}

fn imds_fault(kind: ImdsFaultKind, id: &str) -> Result<ImdsFault, ApplyError> {
    Ok(match kind {
        ImdsFaultKind::Gone => ImdsFault::Gone(InstanceId::parse(id)?),
        ImdsFaultKind::Disabled => ImdsFault::Disabled(InstanceId::parse(id)?),
        ImdsFaultKind::HalfEntry => ImdsFault::HalfEntry(EniId::parse(id)?),
        ImdsFaultKind::NoSecondaries => ImdsFault::NoSecondaries(EniId::parse(id)?),
        ImdsFaultKind::StaleForever => ImdsFault::StaleForever(EniId::parse(id)?),
    })
}

fn throttle(simulator: &Simulator, factor: Option<f64>) -> Result<Value, ApplyError> {
    if factor.is_some_and(|factor| !(factor.is_finite() && factor > 0.0)) {
        return Err(ApplyError::Factor);
    }
    let throttle = factor.map_or(Throttle::Off, |factor| Throttle::Buckets { factor });
    simulator.with_model(|model, _| model.settings_mut().throttle = throttle);
    Ok(Value::Null)
}

fn assign(simulator: &Simulator, eni: &str, count: u32, prefixes: bool) -> Result<Value, ApplyError> {
    let wanted = if prefixes {
        Ipv4Request::PrefixCount(count)
    } else {
        Ipv4Request::Count(count)
    };
    let call = AssignPrivateIpAddresses::new(EniId::parse(eni)?, wanted);
    let got = simulator.with_model(|model, now| model.call_directly(now, &call))?;
    let prefixes: Vec<_> = got.prefixes.iter().map(|prefix| prefix.net()).collect();
    Ok(json!({"addresses": got.addresses, "prefixes": prefixes}))
}

fn unassign(simulator: &Simulator, eni: &str, what: &[String]) -> Result<Value, ApplyError> {
    let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
    for text in what {
        let prefix = || Prefix28::new(text.parse().ok()?).ok();
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => prefixes.push(prefix().ok_or_else(|| ApplyError::Address(text.clone()))?),
        }
    }
    let call = UnassignPrivateIpAddresses {
        eni: EniId::parse(eni)?,
        addresses,
        prefixes,
    };
    simulator.with_model(|model, now| model.call_directly(now, &call))?;
    Ok(Value::Null)
}

fn take(simulator: &Simulator, subnet: &str, count: u32, fragmented: bool) -> Result<Value, ApplyError> {
    let subnet = SubnetId::parse(subnet)?;
    let taken = simulator.with_model(|model, now| -> Result<u32, Ec2Error> {
        let blocks = if fragmented {
            model.occupy(now, &subnet, Occupancy::OneInEachBlock)?
        } else {
            0
        };
        Ok(blocks + model.occupy(now, &subnet, Occupancy::Addresses(count))?)
    })?;
    Ok(json!({"addresses": taken}))
}

fn detach(simulator: &Simulator, eni: &str) -> Result<Value, ApplyError> {
    let eni = EniId::parse(eni)?;
    let tie = simulator.with_model(|model, _| model.eni(&eni).and_then(|eni| eni.attachment.clone()));
    let attachment = tie.ok_or(ApplyError::NotAttached(eni))?.id;
    let call = DetachNetworkInterface {
        attachment,
        mode: DetachMode::Force,
    };
    simulator.with_model(|model, now| model.call_directly(now, &call))?;
    Ok(Value::Null)
}

fn drops(target: &Target) -> Result<Value, ApplyError> {
    let vpc = target.vpc.as_ref().ok_or(ApplyError::NoDataPlane)?;
    let drops = vpc.drops().map_err(|error| ApplyError::Fabric(error.to_string()))?;
    let rows: Vec<_> = drops
        .into_iter()
        .map(|drop| {
            json!({
                "eni": drop.eni.as_str(), "reason": crate::vpc::reason_name(drop.reason), "source": drop.source,
                "destination": drop.destination, "packets": drop.packets,
            })
        })
        .collect();
    Ok(Value::Array(rows))
}

fn address(target: &Target, node: &str) -> Result<Value, ApplyError> {
    let vpc = target.vpc.as_ref().ok_or(ApplyError::NoDataPlane)?;
    let pid = match node {
        "fabric" => None,
        name => Some(vpc.thread_in(name).ok_or_else(|| ApplyError::Node(name.to_owned()))?),
    };
    Ok(json!({"host_init_pid": vpc.host_init_pid(), "node_pid": pid}))
}
