//! Waiting for a condition with a deadline: never for a time alone.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` finds something, or fails with what was waited for.
pub fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("waited {:.1} s in vain until {what}", deadline.as_secs_f64());
        }
        pause(PAUSE);
    }
}

/// A pause between two looks at something that cannot be waited for.
pub fn pause(duration: Duration) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(duration);
}
