//! One report per EC2 call, for metrics, logs and call counts.

use std::time::Duration;

use super::error::{Action, Ec2Error};

/// What happened in one call (of a describe: one page).
#[derive(Debug, Clone, Copy)]
pub struct CallReport<'a> {
    /// Which call.
    pub action: Action,
    /// `Err` also when the answer could not be read.
    pub outcome: Result<(), &'a Ec2Error>,
    /// From the first attempt to the outcome, waits between attempts included.
    pub took: Duration,
    /// Requests handed to the transport; 0 when credentials or the request were missing.
    pub attempts: u32,
}

/// Receives every report, on the task that called; it must not block.
pub trait CallObserver: Send + Sync {
    /// One call has ended.
    fn called(&self, report: &CallReport<'_>);
}

impl<F: Fn(&CallReport<'_>) + Send + Sync> CallObserver for F {
    fn called(&self, report: &CallReport<'_>) {
        self(report);
    }
}
