//! The thread on which a VPC's servers run, and where its data plane follows the model.

use std::net::{SocketAddrV4, TcpListener};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::plane::Plane;
use super::{IMDS_ENDPOINT, VpcError};
use crate::{Asker, Simulator};

/// Ends the thread when dropped.
#[derive(Debug)]
pub(super) struct Servers {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// Listens in the calling thread's network namespace.
    pub(super) fn start(simulator: Simulator, plane: Plane, ec2: SocketAddrV4) -> Result<Self, VpcError> {
        let (ec2, imds) = (listen(ec2)?, listen(IMDS_ENDPOINT)?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(VpcError::Servers)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("vpc-servers".to_owned())
            .spawn(move || runtime.block_on(run(simulator, plane, ec2, imds, stopped)))
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

async fn run(simulator: Simulator, plane: Plane, ec2: TcpListener, imds: TcpListener, stopped: oneshot::Receiver<()>) {
    let (Ok(ec2), Ok(imds)) = (
        tokio::net::TcpListener::from_std(ec2),
        tokio::net::TcpListener::from_std(imds),
    ) else {
        return plane.fail("the listeners cannot be watched");
    };
    // Whichever server ends, ends by an error: the others are of no use without it.
    tokio::select! {
        _ = stopped => {}
        ended = simulator.serve_ec2(ec2) => plane.fail(&format!("the EC2 server ended: {ended:?}")),
        ended = simulator.serve_imds(imds, Asker::ByAddress) => plane.fail(&format!("the IMDS server ended: {ended:?}")),
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
