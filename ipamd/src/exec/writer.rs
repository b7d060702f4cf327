//! The thread that writes checkpoints: fsync may block for long on a bad disk, and must not stop the owner.

use std::sync::mpsc;
use std::thread;

use ipam_core::{Checkpoint, Event};

use crate::files;
use crate::owner::{Inbox, Input};
use crate::paths::Paths;

/// Hands checkpoints to the thread. The core sends one at a time.
#[derive(Debug)]
pub struct Writer(mpsc::Sender<Checkpoint>);

impl Writer {
    /// Starts the thread; it ends when the writer is dropped.
    pub fn start(paths: Paths, inbox: Inbox) -> std::io::Result<Self> {
        let (orders, queue) = mpsc::channel::<Checkpoint>();
        thread::Builder::new().name("checkpoint".to_owned()).spawn(move || {
            for checkpoint in queue {
                if !inbox.blocking_send(Input::Event(write(&paths, &checkpoint))) {
                    return;
                }
            }
        })?;
        Ok(Self(orders))
    }

    pub(crate) fn write(&self, checkpoint: Checkpoint) {
        self.0
            .send(checkpoint)
            .expect("the writer thread lives as long as its writer");
    }
}

fn write(paths: &Paths, checkpoint: &Checkpoint) -> Event {
    let generation = checkpoint.generation;
    match files::write(paths, checkpoint) {
        Ok(()) => Event::CheckpointDurable { generation },
        Err(error) => {
            tracing::error!(error = %crate::observe::Chain(&error), "checkpoint not written");
            Event::CheckpointFailed { generation }
        }
    }
}
