//! The model with a real clock, and its servers.
//!
//! Owns the one model of a running simulator, behind a lock that is held for the length of one call and never across
//! an await. Callers on any task see the effects of calls in one order. The data plane driver is told after every
//! call and whenever something happens by itself, see [`Simulator::next_changes`].

mod attempts;
mod connection;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use vpc_types::InstanceId;

pub use attempts::{AttemptCount, Attempts};
pub(crate) use connection::http_connection;

use crate::config::Built;
use crate::imds::{ImdsOptions, Tokens};
use crate::kube::Kube;
use crate::model::{Action, Change, Model};

/// Connections served at once per endpoint; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;

/// What a caller sees of an answer that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LostAnswers {
    /// The connection closes without an answer.
    #[default]
    Close,
    /// Nothing until the caller's patience ends.
    Hang,
}

/// Who asks IMDS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// The instance whose device has the peer's address; unknown peers get 404.
    ByAddress,
    /// Always this one: for endpoints without a data plane.
    Fixed(InstanceId),
}

/// A running simulator. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Simulator(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    model: Mutex<Model>,
    started: Instant,
    epoch: OffsetDateTime,
    changed: Notify,
    attempts: Mutex<Attempts>,
    lost_answers: Mutex<LostAnswers>,
    request_ids: Mutex<fastrand::Rng>,
    imds: Mutex<ImdsOptions>,
    pub(crate) tokens: Mutex<Tokens>,
    kube: Kube,
}

/// A panic while the lock was held has already failed the call it belongs to.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Calls the model at the current time, and tells whoever waits for changes.
    pub(crate) fn with_model<R>(&self, work: impl FnOnce(&mut Model, Duration) -> R) -> R {
        let result = {
            let mut model = lock(&self.model);
            // Sampled under the lock: the model's time must not go backwards.
            let now = self.started.elapsed();
            work(&mut model, now)
        };
        self.changed.notify_one();
        result
    }

    pub(crate) fn epoch(&self) -> OffsetDateTime {
        self.epoch
    }

    pub(crate) fn imds_options(&self) -> ImdsOptions {
        *lock(&self.imds)
    }

    pub(crate) fn lost_answers(&self) -> LostAnswers {
        *lock(&self.lost_answers)
    }

    pub(crate) fn count_attempt(&self, action: Action, is_retry: bool) {
        lock(&self.attempts).count(action, is_retry);
    }

    /// A version-4 UUID.
    pub(crate) fn new_request_id(&self) -> String {
        let bits = lock(&self.request_ids).u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        let hex = format!("{bits:032x}");
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

impl Simulator {
    /// Starts the clock. The model's time zero is now.
    pub fn new(model: Model, imds: ImdsOptions) -> Self {
        let seed = model.settings().seed;
        Self(Arc::new(Shared {
            model: Mutex::new(model),
            started: Instant::now(),
            epoch: OffsetDateTime::now_utc(),
            changed: Notify::new(),
            attempts: Mutex::default(),
            lost_answers: Mutex::default(),
            request_ids: Mutex::new(fastrand::Rng::with_seed(seed ^ 0x7265_7100)),
            imds: Mutex::new(imds),
            tokens: Mutex::default(),
            kube: Kube::new(seed),
        }))
    }

    /// Starts what a configuration describes: the model, and a cluster that holds its objects.
    pub fn of(built: Built) -> Self {
        let simulator = Self::new(built.model, built.imds);
        for object in built.objects {
            simulator
                .kube()
                .apply(object)
                .expect("they were applied to a cluster before");
        }
        simulator
    }

    /// Looks into the model, or calls it, at the current time.
    pub fn with_model<R>(&self, work: impl FnOnce(&mut Model, Duration) -> R) -> R {
        self.0.with_model(work)
    }

    /// The cluster's API server.
    pub fn kube(&self) -> &Kube {
        &self.0.kube
    }

    /// HTTP requests per action since the start or the last reset: retries of an SDK apart from calls.
    pub fn attempts(&self) -> Attempts {
        lock(&self.0.attempts).clone()
    }

    /// Forgets all counts, of requests and of the model.
    pub fn reset_counts(&self) {
        *lock(&self.0.attempts) = Attempts::default();
        self.with_model(|model, _| model.counters_mut().reset());
    }

    /// How IMDS behaves on all instances from here on.
    pub fn set_imds_options(&self, options: ImdsOptions) {
        *lock(&self.0.imds) = options;
    }

    /// What callers see of answers that faults make disappear.
    pub fn set_lost_answers(&self, lost: LostAnswers) {
        *lock(&self.0.lost_answers) = lost;
    }

    /// Waits until the data plane has something to follow. One waiter at a time.
    pub async fn next_changes(&self) -> Vec<Change> {
        loop {
            let (changes, due) = {
                let mut model = lock(&self.0.model);
                model.advance(self.0.started.elapsed());
                (model.drain_changes(), model.next_transition())
            };
            if !changes.is_empty() {
                return changes;
            }
            let wait = due.map(|due| due.saturating_sub(self.0.started.elapsed()));
            tokio::select! {
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Serves the EC2 API until dropped.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve_ec2(&self, listener: TcpListener) -> std::io::Result<()> {
        self.serve(listener, crate::ec2::serve_connection).await
    }

    /// Serves instance metadata until dropped.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve_imds(&self, listener: TcpListener, asker: Asker) -> std::io::Result<()> {
        self.serve(listener, move |shared, stream| {
            crate::imds::serve_connection(shared, stream, asker.clone())
        })
        .await
    }

    async fn serve<F>(
        &self,
        listener: TcpListener,
        connection: impl Fn(Arc<Shared>, TcpStream) -> F,
    ) -> std::io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let slot = Arc::clone(&slots)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // The peer was gone before it was accepted: no reason to end.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
                    Err(error) => return Err(error),
                },
                Some(_) = connections.join_next() => continue,
            };
            // Small answers in several writes would otherwise wait 40 ms for the peer's delayed ACK.
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            let work = connection(Arc::clone(&self.0), stream);
            connections.spawn(async move {
                work.await;
                drop(slot);
            });
        }
    }
}
