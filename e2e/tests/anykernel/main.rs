//! Counts that have to be exact on every kernel, however slow it is and wherever it preempts.
//!
//! Nothing here compares times, so these tests mean the same in a virtual machine that translates every instruction
//! (`make vm-test`). `MAPLATENCY_TEST_TIER` chooses the hooks.

mod counting;
mod newcomers;
mod strategies;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::{Monitor, Snapshot};
use maplatency_bpf::{Tier, sys};
use maplatency_core::vocabulary::Operation;
use maplatency_e2e::caller::Thread;
use maplatency_e2e::wait;
use tokio::sync::Mutex;

/// Until the kernel has freed what nobody holds any more.
const LIMIT: Duration = Duration::from_secs(10);
/// The tests share the kernel, and each has to have all of it.
static KERNEL: Mutex<()> = Mutex::const_new(());

/// Measures with the hooks that are asked for.
fn start() -> Result<Monitor> {
    let choice = match std::env::var("MAPLATENCY_TEST_TIER") {
        Err(_) => TierChoice::Auto,
        Ok(name) => {
            let found = Tier::ALL.into_iter().find(|it| it.to_string() == name);
            TierChoice::Only(found.with_context(|| format!("there is no tier {name}"))?)
        }
    };
    Ok(Monitor::start(choice)?)
}

/// Whether tasks may be stopped nearly everywhere in the kernel.
fn preempts_fully() -> bool {
    let file = "/sys/kernel/debug/sched/preempt";
    let preempt =
        std::env::var("MAPLATENCY_TEST_PREEMPT").or_else(|_| std::fs::read_to_string(file));
    // One word, or all of them with the chosen one in brackets.
    preempt.is_ok_and(|it| ["full", "realtime"].contains(&it.trim()) || it.contains("(full)"))
}

/// Whether the kernel may hide from the hooks what a thread did last, though not unnoticed.
///
/// Before 6.2 a task that is stopped where a hook looks for its storage hides that of others.
fn may_hide() -> bool {
    preempts_fully() && kernel() < (6, 2)
}

/// Whether the kernel may skip hooks of this tier or hide something from them, though not unnoticed.
///
/// With full preemption a task may be stopped inside a fentry hook, or, while it writes to a map or reads a batch, where
/// the kernel skips tracepoints on that CPU. What another task then calls there is not seen.
fn may_skip(monitor: &Monitor) -> bool {
    may_hide() || preempts_fully() && monitor.tier().tier != Tier::TpBtf
}

/// Whether what this tier misses is told as a loss. Before 6.7 the kernel does not say which tracepoints it skips.
fn tells_skips(monitor: &Monitor) -> bool {
    let skips_tracepoints = preempts_fully() && monitor.tier().tier == Tier::Tracepoint;
    !skips_tracepoints || kernel() >= (6, 7)
}

/// The version of the running kernel.
fn kernel() -> (u32, u32) {
    let release = nix::sys::utsname::uname().expect("the kernel tells its name");
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|it| it.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn thread(operations: &[Operation], rounds: u64, cpus: &[usize]) -> Thread {
    Thread {
        operations: operations.to_vec(),
        rounds,
        cpus: cpus.to_vec(),
    }
}

/// What was lost since.
fn losses(before: &BTreeMap<String, u64>, after: &Snapshot) -> BTreeMap<String, u64> {
    let since = |(kind, count): (&String, &u64)| {
        let lost = count - before.get(kind).unwrap_or(&0);
        (lost > 0).then(|| (kind.clone(), lost))
    };
    after.losses.iter().filter_map(since).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_in_the_kernel() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let now = || -> Result<[BTreeSet<u32>; 3]> {
        let ids = [sys::map_ids()?, sys::program_ids()?, sys::link_ids()?];
        Ok(ids.map(BTreeSet::from_iter))
    };
    let before = now()?;
    let monitor = start()?;
    let during = now()?;
    let brought: Vec<_> = during
        .iter()
        .zip(&before)
        .map(|(it, old)| it - old)
        .collect();
    ensure!(brought.iter().all(|it| !it.is_empty()), "{brought:?}");
    monitor.stop()?;
    wait::until("the kernel to free the probes", LIMIT, async || {
        let left: Vec<_> = now()?
            .iter()
            .zip(&brought)
            .map(|(it, own)| it & own)
            .collect();
        ensure!(left.iter().all(BTreeSet::is_empty), "left: {left:?}");
        Ok(Some(()))
    })
    .await
}
