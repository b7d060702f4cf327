//! What must hold when real programs call plugin and daemon: each scenario in a VPC of its own, as in the suite beside it.

mod failures;
mod grpc;
mod libcni;
mod nodes;
mod podman;
mod pods;
mod restarts;
mod site;

use super::Scenario;

/// All of them; the longest first.
pub(super) fn all() -> Vec<Scenario> {
    [
        failures::SCENARIOS,
        restarts::SCENARIOS,
        pods::SCENARIOS,
        podman::SCENARIOS,
        libcni::SCENARIOS,
        grpc::SCENARIOS,
        nodes::SCENARIOS,
    ]
    .concat()
}
