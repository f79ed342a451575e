//! The measuring thread: finds maps, feeds and drains the kernel side, runs readers, publishes what it has.
//!
//! Once a second it takes a *slice*: lists the maps, tells the kernel side which of them each probe measures,
//! drains the counts, and moves every probe's sliding window on. It is a plain thread, so that no busy async
//! runtime delays a slice; commands come in and snapshots go out by channels.

mod collector;
mod measuring;
mod operations;
mod probe;
mod room;
mod snapshot;
mod ties;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use maplatency_core::budget::Budget;
use maplatency_core::validate::CheckedSpec;
use tokio::sync::watch;
use tracing::error;

use crate::discover::DiscoverError;
use crate::engine::{Engine, EngineError, HandoverError, LoadError, RunningTier, TierChoice};
use crate::error::chain;
use measuring::Measuring;
pub use operations::{OperationsFile, OperationsFileError, Written};
pub use snapshot::{ProbeSnapshot, Snapshot};

/// Time between two slices.
const SLICE: Duration = Duration::from_secs(1);
/// Commands that may wait. A newer list of probes replaces an older one, so few are needed.
const COMMANDS: usize = 8;

/// One probe to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeRequest {
    /// The resource's name.
    pub name: String,
    /// The resource's uid; any unique text where there is no cluster.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// The spec.
    pub spec: CheckedSpec,
}

/// Why measuring ended or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The probes could not be loaded.
    #[error("could not load the probes")]
    Load(#[from] LoadError),
    /// The kernel side could not be fed or drained.
    #[error("could not work with the probes in the kernel")]
    Engine(#[from] EngineError),
    /// The maps could not be listed.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// No thread.
    #[error("could not start the measuring thread")]
    Spawn(#[source] std::io::Error),
    /// The ring buffer of single operations could not be taken back.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The file of single operations could not be written.
    #[error(transparent)]
    Operations(#[from] OperationsFileError),
    /// The thread ended without a word.
    #[error("the measuring thread ended early")]
    Ended,
}

enum Command {
    Measure(Vec<ProbeRequest>),
    Slice,
    Stop,
}

/// The measuring thread. Measuring ends, and the kernel side goes, when it is dropped.
#[derive(Debug)]
pub struct Monitor {
    tier: RunningTier,
    commands: SyncSender<Command>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    thread: Option<JoinHandle<Result<(), MonitorError>>>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Measure(probes) => write!(f, "Measure({})", probes.len()),
            Self::Slice => f.write_str("Slice"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

impl Monitor {
    /// Loads the probes and starts measuring nothing. Returns when the hooks have proved that they work.
    pub fn start(choice: TierChoice) -> Result<Self, MonitorError> {
        Self::start_within(choice, Budget::default())
    }

    /// The same with a budget, to stay within which the agent leaves out what it has to.
    pub fn start_within(choice: TierChoice, budget: Budget) -> Result<Self, MonitorError> {
        Self::start_writing(choice, budget, None)
    }

    /// The same with a file for every operation of probes with the strategy `Direct`.
    pub fn start_writing(
        choice: TierChoice,
        budget: Budget,
        file: Option<OperationsFile>,
    ) -> Result<Self, MonitorError> {
        let (commands, inbox) = sync_channel(COMMANDS);
        let (publish, snapshots) = watch::channel(Arc::new(Snapshot::default()));
        let (ready, is_ready) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("monitor".to_owned())
            .spawn(move || match load(choice, file) {
                Ok((engine, file)) => {
                    crate::heap::trim();
                    let tier = engine.tier().clone();
                    // Fails only when the starter has gone; the inbox says the same.
                    let _ = ready.send(Ok(tier));
                    Measuring::new(engine, publish, budget, file).run(&inbox)
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Ok(())
                }
            })
            .map_err(MonitorError::Spawn)?;
        let tier = is_ready.recv().map_err(|_| MonitorError::Ended)??;
        Ok(Self {
            tier,
            commands,
            snapshots,
            thread: Some(thread),
        })
    }

    /// The hooks that run.
    pub fn tier(&self) -> &RunningTier {
        &self.tier
    }

    /// Sets what is measured. Probes that run already in the same generation go on undisturbed.
    pub fn measure(&self, probes: Vec<ProbeRequest>) -> Result<(), MonitorError> {
        self.commands
            .send(Command::Measure(probes))
            .map_err(|_| MonitorError::Ended)
    }

    /// Takes a slice now, so that nothing is missed when [`Self::stop`] follows.
    pub fn slice(&self) -> Result<(), MonitorError> {
        self.commands
            .send(Command::Slice)
            .map_err(|_| MonitorError::Ended)
    }

    /// What was measured; changes with every slice.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Ends measuring, and says why if it had ended already.
    pub fn stop(mut self) -> Result<(), MonitorError> {
        self.finish().unwrap_or(Ok(()))
    }

    fn finish(&mut self) -> Option<Result<(), MonitorError>> {
        // Fails when the thread has ended, which is what is wanted.
        let _ = self.commands.send(Command::Stop);
        let thread = self.thread.take()?;
        Some(thread.join().unwrap_or(Err(MonitorError::Ended)))
    }
}

/// Loads the kernel side, and begins the file only when that is done.
fn load(
    choice: TierChoice,
    file: Option<OperationsFile>,
) -> Result<(Engine, Option<OperationsFile>), MonitorError> {
    let engine = Engine::load(choice)?;
    let file = file.map(OperationsFile::begin).transpose()?;
    Ok((engine, file))
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(Err(problem)) = self.finish() {
            error!(error = chain(&problem), "Measuring had ended");
        }
    }
}
