//! Measures one host as a file asks for, and shows what was found.

mod report;
mod screen;

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use maplatency_core::validate::{AggregationPlan, CheckedSpec};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::args::RunArgs;
use crate::host::Host;
use crate::manifest::{self, InvalidManifest, Manifest};
use crate::monitor::{OperationsFile, ProbeRequest, Snapshot, Written};
use crate::process::{self, Signals};
use crate::reader::affinity;
use report::Reporter;
use screen::Screen;

/// The one probe needs an identity, and nobody gives it one here.
const UID: &str = "local";
/// Longest time until the first figures.
const FIRST: Duration = Duration::from_secs(5);

/// Measures until the time is over or a signal comes, then prints the outcome.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let manifest = manifest::read(&args.file)?;
    if manifest.probe.spec.node_selector.is_some() {
        eprintln!("note: spec.nodeSelector is ignored, since there is only this host");
    }
    check_cpus(&manifest.spec)?;
    let operations = operations_file(args, &manifest.spec)?;
    let host = Host::detect(args.node.clone())?;
    process::block_on(measure(args, manifest, host, operations))
}

/// The file that `--operations` asks for. That it cannot be written is said before anything is measured.
fn operations_file(args: &RunArgs, spec: &CheckedSpec) -> anyhow::Result<Option<OperationsFile>> {
    let Some(path) = &args.operations else {
        return Ok(None);
    };
    if spec.aggregation != AggregationPlan::Direct {
        let advice = "is not Direct, without which single operations are not kept, as --operations needs them; write \
                      strategy: Direct, or leave --operations out";
        let field = "spec.aggregation.strategy";
        return Err(InvalidManifest::of(&args.file, field, advice).into());
    }
    let file = OperationsFile::open(path)?;
    if file.is(&args.file) {
        let advice =
            "is the file of --operations, too, which would empty it; write another path there";
        return Err(InvalidManifest::of(&args.file, "", advice).into());
    }
    Ok(Some(file))
}

/// A CPU that was asked for by number and cannot be used is an error, and never left out in silence.
fn check_cpus(spec: &CheckedSpec) -> anyhow::Result<()> {
    let Some(plan) = &spec.active else {
        return Ok(());
    };
    let (_, refused) = affinity::usable(&plan.cpus)?;
    match refused.into_iter().next() {
        Some(first) => Err(first).context("cannot make the active reads of spec.activeReads.cpus"),
        None => Ok(()),
    }
}

async fn measure(
    args: &RunArgs,
    manifest: Manifest,
    host: Host,
    operations: Option<OperationsFile>,
) -> anyhow::Result<()> {
    let mut signals = Signals::watch()?;
    let tier = args.tier.choice();
    let started = process::start(&mut signals, tier, args.budget(), operations).await?;
    let Some(monitor) = started else {
        bail!("was told to end before anything was measured");
    };
    monitor.measure(vec![ProbeRequest {
        name: manifest.probe.metadata.name.clone().unwrap_or_default(),
        uid: UID.to_owned(),
        generation: 1,
        spec: manifest.spec.clone(),
    }])?;
    let began = Instant::now();
    let mut snapshots = monitor.snapshots();
    let mut reporter = Reporter::new(manifest, host, monitor.tier().to_string());
    let mut screen = Screen::new(args.output, io::stdout().is_terminal());
    let over = async {
        match args.duration {
            Some(duration) => sleep_until(began + duration).await,
            None => std::future::pending().await,
        }
    };

    let shown = tokio::select! {
        shown = show(&mut snapshots, &mut reporter, &mut screen, began) => shown,
        () = over => first(&mut snapshots).await,
        () = signals.told_to_end() => Ok(()),
    };
    let elapsed = began.elapsed();
    // Fails when measuring has ended early; `stop` says why.
    let _ = monitor.slice();
    process::stop(monitor).await?;
    shown?;
    let last = Arc::clone(&snapshots.borrow());
    screen.finish(&mut reporter, &last, elapsed)?;
    args.operations
        .as_ref()
        .map_or(Ok(()), |path| tell_written(path, last.written))
}

/// What is in the file of single operations, and what is not.
fn tell_written(path: &Path, written: Option<Written>) -> anyhow::Result<()> {
    let path = path.display();
    match written {
        Some(Written {
            lines,
            missed,
            is_complete: true,
        }) => {
            eprintln!("note: {lines} operations are in {path}, {missed} are missing there");
            Ok(())
        }
        Some(_) | None => bail!("not all operations were written to {path} in time"),
    }
}

/// Shows every slice for as long as there are new ones.
async fn show(
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    reporter: &mut Reporter,
    screen: &mut Screen,
    began: Instant,
) -> anyhow::Result<()> {
    // An error says that measuring has ended early; `stop` says why.
    while snapshots.changed().await.is_ok() {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        screen.show(reporter, &snapshot, began.elapsed())?;
    }
    Ok(())
}

/// Waits until there is something to tell at all.
async fn first(snapshots: &mut watch::Receiver<Arc<Snapshot>>) -> anyhow::Result<()> {
    let waited = timeout(FIRST, snapshots.wait_for(|it| !it.probes.is_empty())).await;
    match waited {
        Ok(_) => Ok(()),
        Err(_) => bail!("nothing was measured within {} s", FIRST.as_secs()),
    }
}
