//! A thousand connections that never rest: each sends numbered messages and compares what comes back.
//!
//! Sockets are made in the namespaces they belong to and driven by one thread. Invariant: a connection that breaks, or gets
//! other bytes than it sent, is never mended: it is reported.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Builder;
use vpc_fabric::NetnsRef;

use crate::wait;

/// Bytes of a message.
const MESSAGE: usize = 64;
/// Each connection sends so often.
const INTERVAL: Duration = Duration::from_millis(200);
/// A connection that takes longer to come about has failed.
const CONNECT: Duration = Duration::from_secs(10);

/// One connection to make.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Its direction, for the report.
    pub(super) kind: &'static str,
    pub(super) from: NetnsRef,
    pub(super) to: SocketAddrV4,
}

#[derive(Debug)]
struct Talk {
    kind: &'static str,
    to: SocketAddrV4,
    exchanges: AtomicU64,
    /// Longest exchange since the last [`Traffic::begin`], in microseconds.
    longest: AtomicU64,
    /// When the one that is under way began, in microseconds since the start; 0 for none.
    since: AtomicU64,
    broken: Mutex<Option<String>>,
}

/// Connections and servers.
#[derive(Debug)]
pub(super) struct Traffic {
    talks: Vec<Arc<Talk>>,
    stop: Arc<AtomicBool>,
    echoed: Arc<AtomicU64>,
    started: Instant,
    driver: JoinHandle<()>,
}

enum Order {
    Serve(TcpListener),
    Talk(TcpStream, Arc<Talk>),
}

impl Traffic {
    /// Starts servers at `port` in all namespaces and makes the connections.
    pub(super) fn start(servers: &[NetnsRef], port: u16, plans: &[Plan]) -> Result<Self> {
        let (orders, queue) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let echoed = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let driver = {
            let (stop, echoed) = (Arc::clone(&stop), Arc::clone(&echoed));
            std::thread::spawn(move || drive(&queue, &stop, &echoed, started))
        };
        for netns in servers {
            let listener = netns.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))??;
            listener.set_nonblocking(true)?;
            let _ = orders.send(Order::Serve(listener));
        }
        let mut talks = Vec::new();
        for plan in plans {
            let stream = connect(plan)?;
            let talk = Arc::new(Talk {
                kind: plan.kind,
                to: plan.to,
                exchanges: AtomicU64::new(0),
                longest: AtomicU64::new(0),
                since: AtomicU64::new(0),
                broken: Mutex::new(None),
            });
            let _ = orders.send(Order::Talk(stream, Arc::clone(&talk)));
            talks.push(talk);
        }
        Ok(Self {
            talks,
            stop,
            echoed,
            started,
            driver,
        })
    }

    /// From here on the longest exchanges are counted anew.
    pub(super) fn begin(&self) {
        self.talks
            .iter()
            .for_each(|talk| talk.longest.store(0, Ordering::Relaxed));
    }

    /// Waits until every connection has had `more` further answers, or one has broken.
    pub(super) fn wait_for_all(&self, more: u64, limit: Duration) -> Result<()> {
        let before: Vec<u64> = self
            .talks
            .iter()
            .map(|talk| talk.exchanges.load(Ordering::Relaxed))
            .collect();
        let has = |(talk, before): (&Arc<Talk>, &u64)| talk.exchanges.load(Ordering::Relaxed) >= before + more;
        let waited = wait::until("every connection has exchanged bytes", limit, || {
            self.check()?;
            Ok(self.talks.iter().zip(&before).all(has).then_some(()))
        });
        waited.with_context(|| {
            let silent = self.talks.iter().zip(&before).filter(|pair| !has(*pair));
            let names: Vec<String> = silent.map(|(talk, _)| format!("{} {}", talk.kind, talk.to)).collect();
            format!("{} are silent: {:?}", names.len(), &names[..names.len().min(10)])
        })
    }

    /// Fails if a connection has broken.
    pub(super) fn check(&self) -> Result<()> {
        for talk in &self.talks {
            let broken = talk.broken.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(broken.is_none(), "{} to {}: {broken:?}", talk.kind, talk.to);
        }
        Ok(())
    }

    /// Longest exchange of each kind since [`Traffic::begin`], those under way included.
    pub(super) fn longest(&self) -> BTreeMap<&'static str, Duration> {
        let now = micros(self.started);
        let mut all = BTreeMap::new();
        for talk in &self.talks {
            let under_way = match talk.since.load(Ordering::Relaxed) {
                0 => 0,
                since => now.saturating_sub(since),
            };
            let longest = Duration::from_micros(talk.longest.load(Ordering::Relaxed).max(under_way));
            let slot = all.entry(talk.kind).or_insert(Duration::ZERO);
            *slot = longest.max(*slot);
        }
        all
    }

    /// Ends all connections in good order; how many exchanges there were. All bytes must have been echoed.
    pub(super) fn end(self) -> Result<u64> {
        self.check()?;
        self.stop.store(true, Ordering::Relaxed);
        self.driver.join().map_err(|_| anyhow::anyhow!("the driver panicked"))?;
        for talk in &self.talks {
            let broken = talk.broken.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(broken.is_none(), "{} to {}: {broken:?}", talk.kind, talk.to);
        }
        let exchanges: u64 = self
            .talks
            .iter()
            .map(|talk| talk.exchanges.load(Ordering::Relaxed))
            .sum();
        let echoed = self.echoed.load(Ordering::Relaxed);
        ensure!(
            echoed == exchanges * MESSAGE as u64,
            "{exchanges} messages were compared, and {echoed} bytes were echoed"
        );
        Ok(exchanges)
    }
}

fn connect(plan: &Plan) -> Result<TcpStream> {
    let made = plan
        .from
        .run(|| TcpStream::connect_timeout(&SocketAddr::V4(plan.to), CONNECT))?;
    let stream = made.with_context(|| format!("{} to {}", plan.kind, plan.to))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The thread that moves all bytes.
fn drive(queue: &Receiver<Order>, stop: &Arc<AtomicBool>, echoed: &Arc<AtomicU64>, started: Instant) {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
        return;
    };
    runtime.block_on(async {
        let mut talks = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            for order in queue.try_iter() {
                match order {
                    Order::Serve(listener) => drop(tokio::spawn(serve(listener, Arc::clone(echoed)))),
                    Order::Talk(stream, talk) => {
                        talks.push(tokio::spawn(converse(stream, talk, Arc::clone(stop), started)));
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for talk in talks {
            let _ = talk.await;
        }
    });
}

async fn serve(listener: TcpListener, echoed: Arc<AtomicU64>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    while let Ok((mut stream, _)) = listener.accept().await {
        let echoed = Arc::clone(&echoed);
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let mut buffer = [0; 4 * MESSAGE];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                // Probes send less than a message, and are not counted.
                if len >= MESSAGE {
                    echoed.fetch_add(len as u64, Ordering::Relaxed);
                }
                if stream.write_all(&buffer[..len]).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn converse(stream: TcpStream, talk: Arc<Talk>, stop: Arc<AtomicBool>, started: Instant) {
    if let Err(error) = exchange(stream, &talk, &stop, started).await {
        let number = talk.exchanges.load(Ordering::Relaxed);
        let text = format!("after {number} exchanges: {error:#}");
        *talk.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

async fn exchange(stream: TcpStream, talk: &Talk, stop: &AtomicBool, started: Instant) -> Result<()> {
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    let offset = fastrand::u64(1..);
    // Not all at once.
    tokio::time::sleep(INTERVAL.mul_f64(fastrand::f64())).await;
    while !stop.load(Ordering::Relaxed) {
        let number = talk.exchanges.load(Ordering::Relaxed).wrapping_add(offset);
        let message = number.to_be_bytes().repeat(MESSAGE / 8);
        let begun = Instant::now();
        talk.since.store(micros(started).max(1), Ordering::Relaxed);
        stream.write_all(&message).await.context("send")?;
        let mut answer = [0; MESSAGE];
        stream.read_exact(&mut answer).await.context("receive")?;
        ensure!(answer == message[..], "other bytes came back");
        talk.since.store(0, Ordering::Relaxed);
        talk.longest.fetch_max(micros(begun), Ordering::Relaxed);
        talk.exchanges.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(INTERVAL).await;
    }
    stream.shutdown().await.context("end")?;
    Ok(())
}
