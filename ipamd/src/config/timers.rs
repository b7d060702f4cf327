//! `VPC_CNI_TIMERS`: shorter or longer durations for demonstrations and tests, by name.

use std::time::Duration;

use ipam_core::Timers;

use super::parse::Reader;
use super::{AllTimers, ImdsTimers};

/// Longest wait of an AddNetwork: the plugin gives up after 35 s and must still get the reason.
const ADD_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn parse(reader: &mut Reader<'_>) -> AllTimers {
    let mut timers = AllTimers {
        pool: Timers::default(),
        add_deadline: ADD_DEADLINE,
        imds: ImdsTimers::default(),
    };
    let text = reader.text("VPC_CNI_TIMERS");
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let parsed = item
            .split_once('=')
            .and_then(|(name, seconds)| Some((name, duration(seconds)?)));
        let slot = parsed.and_then(|(name, value)| Some((slot(&mut timers, name)?, value)));
        match slot {
            Some((slot, value)) => *slot = value,
            None => reader.error(format!(
                "VPC_CNI_TIMERS: {item:?} is no timer: expected name=seconds with a known name"
            )),
        }
    }
    timers
}

fn duration(text: &str) -> Option<Duration> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

fn slot<'a>(timers: &'a mut AllTimers, name: &str) -> Option<&'a mut Duration> {
    let pool = &mut timers.pool;
    Some(match name {
        "cooldown" => &mut pool.cooldown,
        "minimum_hold" => &mut pool.minimum_hold,
        "coalesce" => &mut pool.coalesce,
        "coalesce_prefixes" => &mut pool.coalesce_prefixes,
        "refill_delay" => &mut pool.refill_delay,
        "release_window" => &mut pool.release_window,
        "start_grace" => &mut pool.start_grace,
        "eni_idle" => &mut pool.eni_idle,
        "eni_minimum_life" => &mut pool.eni_minimum_life,
        "settle" => &mut pool.settle,
        "call_life" => &mut pool.call_life,
        "imds_lag" => &mut pool.imds_lag,
        "confirm_gap" => &mut pool.confirm_gap,
        "sweep_grace" => &mut pool.sweep_grace,
        "sweep_gap" => &mut pool.sweep_gap,
        "kernel_view_gap" => &mut pool.kernel_view_gap,
        "backoff_start" => &mut pool.backoff_start,
        "backoff_max" => &mut pool.backoff_max,
        "subnet_retry_starving" => &mut pool.subnet_retry_starving,
        "subnet_retry_refill" => &mut pool.subnet_retry_refill,
        "half_made_after" => &mut pool.half_made_after,
        "half_made_age" => &mut pool.half_made_age,
        "add_deadline" => &mut timers.add_deadline,
        "imds_notices" => &mut timers.imds.notices,
        "imds_enis" => &mut timers.imds.enis,
        _ => return None,
    })
}
