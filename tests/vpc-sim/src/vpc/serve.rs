//! The thread on which a VPC's servers run, and where its data plane follows the model.

use std::net::{SocketAddrV4, TcpListener};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::plane::Plane;
use super::{IMDS_ENDPOINT, VpcError};
use crate::{Asker, Simulator};

/// Where the two APIs listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoints {
    pub(super) ec2: SocketAddrV4,
    pub(super) kube: SocketAddrV4,
}

/// Ends the thread when dropped.
#[derive(Debug)]
pub(super) struct Servers {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// Listens in the calling thread's network namespace.
    pub(super) fn start(simulator: Simulator, plane: Plane, endpoints: Endpoints) -> Result<Self, VpcError> {
        let listeners = [endpoints.ec2, IMDS_ENDPOINT, endpoints.kube].map(listen);
        let [ec2, imds, kube] = listeners;
        let listeners = [ec2?, imds?, kube?];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(VpcError::Servers)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("vpc-servers".to_owned())
            .spawn(move || runtime.block_on(run(simulator, plane, listeners, stopped)))
            .map_err(VpcError::Servers)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was printed when it happened.
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddrV4) -> Result<TcpListener, VpcError> {
    let failed = |source| VpcError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

async fn run(simulator: Simulator, plane: Plane, listeners: [TcpListener; 3], stopped: oneshot::Receiver<()>) {
    let [Ok(ec2), Ok(imds), Ok(kube)] = listeners.map(tokio::net::TcpListener::from_std) else {
        return plane.fail("the listeners cannot be watched");
    };
    // Whichever server ends, ends by an error: the others are of no use without it.
    tokio::select! {
        _ = stopped => {}
        ended = simulator.serve_ec2(ec2) => plane.fail(&format!("the EC2 server ended: {ended:?}")),
        ended = simulator.serve_imds(imds, Asker::ByAddress) => plane.fail(&format!("the IMDS server ended: {ended:?}")),
        ended = simulator.kube().serve(kube) => plane.fail(&format!("the Kubernetes API ended: {ended:?}")),
        () = follow(&simulator, &plane) => {}
    }
}

async fn follow(simulator: &Simulator, plane: &Plane) {
    loop {
        let changes = simulator.next_changes().await;
        let plane = plane.clone();
        // The kernel takes tens of milliseconds to remove a device; the servers go on meanwhile.
        let applied = tokio::task::spawn_blocking(move || plane.follow(&changes));
        if applied.await.is_err() {
            return;
        }
    }
}
