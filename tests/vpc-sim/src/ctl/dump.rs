//! The simulator's state as JSON, for people and tests.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Target;
use crate::Simulator;
use crate::model::{Action, Eni, Instance, Model};

/// Everything that exists.
pub(super) fn state(target: &Target) -> Value {
    let mut state = target.simulator.with_model(|model, now| {
        model.advance(now);
        let vpcs: Vec<_> = model
            .vpcs()
            .map(|vpc| json!({"id": vpc.id.as_str(), "cidrs": vpc.cidrs}))
            .collect();
        let subnets: Vec<_> = model
            .subnets()
            .map(|subnet| {
                json!({
                    "id": subnet.id.as_str(), "cidr": subnet.cidr, "zone": subnet.zone,
                    "available": subnet.available(), "tags": subnet.tags,
                })
            })
            .collect();
        let instances: Vec<_> = model
            .instances()
            .map(|instance| instance_value(model, instance))
            .collect();
        let loose = model.enis().filter(|eni| eni.attachment.is_none());
        json!({
            "seconds": now.as_secs_f64(), "vpcs": vpcs, "subnets": subnets, "instances": instances,
            "available_enis": loose.map(|eni| eni_value(model, eni)).collect::<Vec<_>>(),
        })
    });
    if let Some(vpc) = &target.vpc {
        state["nodes"] = vpc
            .nodes()
            .map(|(name, instance)| json!({"name": name, "instance": instance.as_str()}))
            .collect();
        let lost = vpc.lost_enis().unwrap_or_default();
        state["lost_enis"] = lost.iter().map(|eni| json!(eni.as_str())).collect();
        state["data_plane_errors"] = json!(vpc.errors());
    }
    state
}

fn instance_value(model: &Model, instance: &Instance) -> Value {
    let mut enis: Vec<_> = model.enis_of(&instance.id).collect();
    enis.sort_by_key(|eni| eni.attachment.as_ref().map(|tie| (tie.card, tie.device)));
    let enis: Vec<_> = enis.into_iter().map(|eni| eni_value(model, eni)).collect();
    json!({
        "id": instance.id.as_str(), "type": instance.instance_type, "state": instance.state.as_str(),
        "tags": instance.tags, "enis": enis,
    })
}

fn eni_value(model: &Model, eni: &Eni) -> Value {
    let prefixes: Vec<_> = eni.prefixes.iter().map(|prefix| prefix.net()).collect();
    let attachment = eni.attachment.as_ref().map(|tie| {
        json!({
            "id": tie.id.as_str(), "device": tie.device.0, "card": tie.card.0, "status": tie.status.as_str(),
            "delete_on_termination": tie.on_termination == crate::model::OnTermination::Delete,
        })
    });
    json!({
        "id": eni.id.as_str(), "subnet": eni.subnet.as_str(), "mac": eni.mac.to_string(),
        "status": eni.status().as_str(), "plugged": model.is_plugged(eni), "primary": eni.primary,
        "secondary": eni.secondary, "prefixes": prefixes, "ipv6": eni.ipv6, "ipv6_prefixes": eni.ipv6_prefixes,
        "description": eni.description, "tags": eni.tags, "attachment": attachment,
    })
}

/// Per action: calls and attempts over HTTP, and outcomes in the model.
pub(super) fn counts(simulator: &Simulator) -> Value {
    let attempts = simulator.attempts();
    let outcomes = simulator.with_model(|model, _| model.counters().clone());
    let mut actions = BTreeMap::new();
    for action in Action::ALL {
        let (http, outcome) = (attempts.of(*action), outcomes.of(*action));
        if http.attempts + outcome.total() > 0 {
            let refused: BTreeMap<_, _> = outcome
                .refused
                .iter()
                .map(|(code, count)| (code.as_str(), count))
                .collect();
            let row = json!({
                "calls": http.calls, "attempts": http.attempts, "accepted": outcome.accepted,
                "refused": refused, "lost": outcome.lost,
            });
            actions.insert(action.name(), row);
        }
    }
    let calls: u64 = attempts.iter().map(|(_, count)| count.calls).sum();
    json!({"total_calls": calls, "actions": actions})
}
