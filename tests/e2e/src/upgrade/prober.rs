//! Opens new connections all the time, one after the other in each direction: each must come about and answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::connections::Plan;
use crate::wait;

/// Whoever gets no answer by then has failed: a lost SYN is sent again after 1 s, then after 2 s.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two connections.
const PAUSE: Duration = Duration::from_millis(30);

/// All probers.
#[derive(Debug)]
pub(super) struct Probers {
    stop: Arc<AtomicBool>,
    all: Vec<(&'static str, Arc<Counts>, JoinHandle<()>)>,
}

#[derive(Debug, Default)]
struct Counts {
    good: AtomicU64,
    longest: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Probers {
    /// One for each plan.
    pub(super) fn start(plans: Vec<Plan>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |plan: Plan| {
            let (stop, counts) = (Arc::clone(&stop), Arc::new(Counts::default()));
            let (kind, mine) = (plan.kind, Arc::clone(&counts));
            (kind, counts, std::thread::spawn(move || probe(&plan, &stop, &mine)))
        };
        let all = plans.into_iter().map(start).collect();
        Self { stop, all }
    }

    /// From here on the longest are counted anew.
    pub(super) fn begin(&self) {
        self.all
            .iter()
            .for_each(|(_, counts, _)| counts.longest.store(0, Ordering::Relaxed));
    }

    /// Since the last [`Probers::begin`].
    pub(super) fn longest(&self) -> Duration {
        let each = self
            .all
            .iter()
            .map(|(_, counts, _)| counts.longest.load(Ordering::Relaxed));
        Duration::from_micros(each.max().unwrap_or(0))
    }

    /// Fails if any connection has failed.
    pub(super) fn check(&self) -> Result<()> {
        self.all.iter().try_for_each(|(kind, counts, _)| counts.check(kind))
    }

    /// How many connections there were; none may have failed, and no direction may be without.
    pub(super) fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = 0;
        for (kind, counts, thread) in self.all {
            thread.join().map_err(|_| anyhow::anyhow!("a prober panicked"))?;
            counts.check(kind)?;
            let good = counts.good.load(Ordering::Relaxed);
            ensure!(good > 10, "{kind}: only {good} connections");
            sum += good;
        }
        Ok(sum)
    }
}

impl Counts {
    fn check(&self, kind: &str) -> Result<()> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(failures.is_empty(), "new connections, {kind}: {failures:?}");
        Ok(())
    }
}

fn probe(plan: &Plan, stop: &AtomicBool, counts: &Counts) {
    let fail = |error: String| {
        let mut failures = counts.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push(error);
    };
    if let Err(error) = plan.from.enter() {
        fail(error.to_string());
    }
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        match connect(plan) {
            Ok(()) => counts.good.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                fail(format!("{} after {:?}: {error}", plan.to, started.elapsed()));
                0
            }
        };
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counts.longest.fetch_max(took, Ordering::Relaxed);
        wait::pause(PAUSE);
    }
}

fn connect(plan: &Plan) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(plan.to), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"probe")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)
}
