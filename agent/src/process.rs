//! Beginning and end of the process: the runtime, signals, and the measuring thread.

use std::time::Duration;

use anyhow::Context as _;
use maplatency_core::budget::Budget;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tracing::warn;

use crate::engine::TierChoice;
use crate::monitor::{Monitor, OperationsFile};

/// A process that was told to end is gone within two seconds.
const STOP: Duration = Duration::from_millis(1500);

/// Runs `work` on one thread; measuring has its own.
pub(crate) fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    crate::heap::share();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let outcome = runtime.block_on(work);
    // A monitor that does not end in time does not keep the process.
    runtime.shutdown_background();
    outcome
}

/// SIGINT, SIGTERM and SIGHUP, which from now on no longer kill the process.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Absent where it is ignored, as nohup(1) arranges.
    hang_up: Option<Signal>,
}

impl Signals {
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let hang_up = if ignores(SignalKind::hangup()) {
            None
        } else {
            Some(signal(SignalKind::hangup()).context("could not watch for SIGHUP")?)
        };
        Ok(Self {
            hang_up,
            interrupt: signal(SignalKind::interrupt()).context("could not watch for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("could not watch for SIGTERM")?,
        })
    }

    /// Waits until the process is told to end.
    pub(crate) async fn told_to_end(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hang_up => (),
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

/// Whether this process was started with the signal ignored.
fn ignores(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|it| it.strip_prefix("SigIgn:"))
        .and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
    mask.is_some_and(|it| it >> (kind.as_raw_value() - 1) & 1 == 1)
}

/// Starts measuring; `None` when the process is told to end before that is done.
pub(crate) async fn start(
    signals: &mut Signals,
    tier: TierChoice,
    budget: Budget,
    file: Option<OperationsFile>,
) -> anyhow::Result<Option<Monitor>> {
    let starting = tokio::task::spawn_blocking(move || Monitor::start_writing(tier, budget, file));
    tokio::select! {
        started = starting => Ok(Some(started.context("the start of measuring broke off")??)),
        // The kernel takes back what is loaded by then.
        () = signals.told_to_end() => Ok(None),
    }
}

/// Ends measuring, and says why if it had ended by itself.
pub(crate) async fn stop(monitor: Monitor) -> anyhow::Result<()> {
    let stopping = tokio::task::spawn_blocking(|| monitor.stop());
    if let Ok(stopped) = timeout(STOP, stopping).await {
        return Ok(stopped.context("the end of measuring broke off")??);
    }
    // The kernel frees everything when the process is gone.
    warn!("Measuring did not end in time");
    Ok(())
}
