//! Whatever goes wrong around it, an operation is counted, or counted as lost.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::{Monitor, ProbeSnapshot};
use maplatency_bpf::sys::Map;
use maplatency_core::vocabulary::{MapType, Operation, Outcome};
use maplatency_e2e::caller::{Caller, Job, Thread};
use maplatency_e2e::fault::{BAD_CALLS, Fault, Faulty, LOOKUPS, OUTCOMES};
use maplatency_e2e::measure::{request, snapshot, total};
use maplatency_e2e::process::{Daemon, workspace_binary};
use maplatency_e2e::wait;
use serde_json::Value;
use tokio::sync::Mutex;

/// The tests share the kernel, and each has to have all of it.
static KERNEL: Mutex<()> = Mutex::const_new(());
/// Until an agent or a tracer runs or has seen what was done.
const LIMIT: Duration = Duration::from_secs(30);

/// Begins to measure one map.
async fn measuring(map_id: u32, operation: Operation) -> Result<Monitor> {
    let monitor = Monitor::start(TierChoice::Auto)?;
    let spec = format!("{{maps: [{{ids: [{map_id}]}}], operations: [{operation}]}}");
    monitor.measure(vec![request("fault", &spec)?])?;
    snapshot(&monitor, "the map", "fault", |it| it.maps.len() == 1).await?;
    Ok(monitor)
}

fn lost(monitor: &Monitor, kind: &str) -> u64 {
    let latest = monitor.snapshots().borrow().clone();
    latest.losses.get(kind).copied().unwrap_or(0)
}

fn count(probe: &ProbeSnapshot) -> u64 {
    total(probe).until_user.count()
}

async fn counted(monitor: &Monitor, calls: u64) -> Result<ProbeSnapshot> {
    Ok(
        snapshot(monitor, "every call", "fault", |it| count(it) >= calls)
            .await?
            .0,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_that_is_closed_amid_a_call_is_a_counted_loss() -> Result<()> {
    const CALLS: u64 = 40;
    let _alone = KERNEL.lock().await;
    let mut faulty = Faulty::start(&Fault::CloseAmidCall(CALLS))?;
    let monitor = measuring(faulty.map_id(), Operation::Update).await?;
    tokio::task::block_in_place(|| faulty.work())?;

    let snapshots = monitor.snapshots();
    wait::until("every call to be counted or lost", LIMIT, async || {
        let latest = snapshots.borrow().clone();
        let counted = latest.probes.first().map_or(0, count);
        let closed = latest.losses.get("MapClosed").copied().unwrap_or(0);
        ensure!(
            counted + closed >= CALLS,
            "{counted} counted, {closed} lost"
        );
        assert_eq!(counted + closed, CALLS);
        ensure!(closed > 0, "no descriptor was closed in time");
        Ok(Some(()))
    })
    .await?;
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_moved_amid_a_call_counts_where_it_began_and_as_moved() -> Result<()> {
    // As many outliers as a second keeps.
    const CALLS: u64 = 16;
    let _alone = KERNEL.lock().await;
    let mut faulty = Faulty::start(&Fault::MoveAmidCall(CALLS))?;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let spec = format!(
        "{{maps: [{{ids: [{}]}}], operations: [Update], outliers: {{thresholdMicroseconds: 1}}}}",
        faulty.map_id()
    );
    monitor.measure(vec![request("fault", &spec)?])?;
    snapshot(&monitor, "the map", "fault", |it| it.maps.len() == 1).await?;
    tokio::task::block_in_place(|| faulty.work())?;

    let probe = counted(&monitor, CALLS).await?;
    let moved = total(&probe).moved;
    assert_eq!(count(&probe), CALLS);
    assert!(probe.cumulative.keys().all(|it| it.cpu == 0));
    ensure!(moved >= CALLS / 2, "{moved} of {CALLS} were moved in time");
    let told = probe.outliers.context("no outliers")?.slowest;
    assert_eq!(told.len() as u64, CALLS);
    assert!(told.iter().all(|it| it.cpu == 0), "{told:?}");
    let elsewhere: Vec<_> = told.iter().filter(|it| it.cpu_after == 1).collect();
    assert_eq!(elsewhere.len() as u64, moved);
    for it in elsewhere {
        assert!(it.evidence.migrations >= 1, "{it:?}");
        assert!(it.evidence.off_cpu_nanoseconds > 0, "{it:?}");
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_dies_by_exec_amid_a_batch_is_counted_or_lost() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("counts");
    let mut faulty = Faulty::start(&Fault::ExecAmidBatch(file.clone()))?;
    // Keeps the map: the program that is executed does not have it.
    let map = Map::from_id(faulty.map_id())?;
    let monitor = measuring(map.id()?, Operation::LookupBatch).await?;
    tokio::task::block_in_place(|| faulty.work())?;

    let bytes = std::fs::read(&file)?;
    let number = |at: usize| -> Result<u64> {
        let bytes = bytes.get(at..at + 8).context("the counts are short")?;
        Ok(u64::from_ne_bytes(bytes.try_into()?))
    };
    let (begun, ended) = (number(0)?, number(8)?);
    ensure!(ended >= 50, "only {ended} batches");
    let probe = counted(&monitor, ended).await?;
    let seen = count(&probe) + lost(&monitor, "TaskDied");
    ensure!(
        (ended..=begun).contains(&seen),
        "{seen} of {ended} to {begun}"
    );
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_no_operations_are_neither_counted_nor_lost() -> Result<()> {
    const ROUNDS: u64 = 1_000;
    let _alone = KERNEL.lock().await;
    let mut faulty = Faulty::start(&Fault::BadCalls(ROUNDS))?;
    let monitor = measuring(faulty.map_id(), Operation::Lookup).await?;
    let before = monitor.snapshots().borrow().losses.clone();
    tokio::task::block_in_place(|| faulty.work())?;

    let (good, refused) = BAD_CALLS;
    let probe = counted(&monitor, ROUNDS * (good + refused)).await?;
    let of = |outcome| {
        let rows = probe.cumulative.iter().filter(|it| it.0.outcome == outcome);
        rows.map(|it| it.1.until_user.count()).sum::<u64>()
    };
    assert_eq!(of(Outcome::Success), ROUNDS * good);
    assert_eq!(of(Outcome::Invalid), ROUNDS * refused);
    assert_eq!(count(&probe), ROUNDS * (good + refused));
    assert_eq!(monitor.snapshots().borrow().losses, before);
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn however_calls_end_each_counts_under_its_own_outcome() -> Result<()> {
    const ROUNDS: u64 = 500;
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let mut faulty = Faulty::start(&Fault::EveryOutcome(ROUNDS))?;
    let spec = "{maps: [{names: [outcomes]}], operations: [Lookup, Update]}";
    monitor.measure(vec![request("fault", spec)?])?;
    snapshot(&monitor, "the maps", "fault", |it| it.maps.len() == 2).await?;
    let before = monitor.snapshots().borrow().losses.clone();
    tokio::task::block_in_place(|| faulty.work())?;

    let probe = counted(&monitor, ROUNDS * OUTCOMES.len() as u64).await?;
    let mut seen: BTreeMap<(Operation, Outcome), u64> = BTreeMap::new();
    for (key, counts) in &probe.cumulative {
        *seen.entry((key.operation, key.outcome)).or_default() += counts.until_user.count();
    }
    let expected: BTreeMap<_, _> = OUTCOMES.iter().map(|it| (*it, ROUNDS)).collect();
    assert_eq!(seen, expected);
    assert_eq!(monitor.snapshots().borrow().losses, before);
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn among_ten_thousand_maps_the_right_one_is_measured() -> Result<()> {
    const MAPS: u32 = 10_000;
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let mut faulty = Faulty::start(&Fault::ManyMaps(MAPS))?;
    let one = format!("{{maps: [{{ids: [{}]}}]}}", faulty.map_id());
    let all = "{maps: [{names: [many]}]}";
    monitor.measure(vec![request("fault", &one)?, request("all", all)?])?;
    let is_there = |it: &ProbeSnapshot| it.maps.len() == MAPS as usize;
    snapshot(&monitor, "all maps", "all", is_there).await?;
    tokio::task::block_in_place(|| faulty.work())?;

    for name in ["fault", "all"] {
        let all = |it: &ProbeSnapshot| count(it) >= LOOKUPS;
        let (probe, latest) = snapshot(&monitor, "every lookup", name, all).await?;
        assert_eq!(count(&probe), LOOKUPS);
        assert!(
            probe
                .cumulative
                .keys()
                .all(|it| it.map_id == faulty.map_id())
        );
        assert_eq!(latest.losses.values().sum::<u64>(), 0);
    }
    drop(faulty);
    snapshot(&monitor, "the maps to go", "all", |it| it.maps.is_empty()).await?;
    monitor.stop()?;
    Ok(())
}

fn readers() -> Job {
    let thread = Thread {
        operations: vec![Operation::Lookup],
        rounds: 200_000,
        cpus: vec![],
    };
    Job {
        map_type: MapType::Hash,
        threads: vec![thread; 2],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stood_still_for_ten_seconds_has_missed_nothing() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let folder = tempfile::tempdir()?;
    let mut caller = Caller::start(&readers())?;
    let manifest = folder.path().join("probe.yaml");
    let text = format!(
        "apiVersion: maplatency.dev/v1alpha1\nkind: MapLatencyProbe\nmetadata: {{name: still}}\n\
         spec: {{maps: [{{ids: [{}]}}], operations: [Lookup]}}\n",
        caller.map_id()
    );
    std::fs::write(&manifest, text)?;
    let mut command = Command::new(workspace_binary("maplatency-agent")?);
    command
        .arg("run")
        .arg("-f")
        .arg(&manifest)
        .args(["-o", "json"]);
    command.env("RUST_LOG", "info");
    let log = folder.path().join("agent.log");
    let mut agent = Daemon::spawn("the agent", command, &log)?;
    wait::until("the agent to measure", LIMIT, async || {
        agent.ensure_alive()?;
        ensure!(agent.output()?.contains("Began measuring"), "not yet");
        Ok(Some(()))
    })
    .await?;

    agent.suspend()?;
    tokio::task::block_in_place(|| caller.work())?;
    // What is tested is the time itself.
    tokio::time::sleep(Duration::from_secs(10)).await;
    agent.resume()?;
    agent.terminate(Duration::from_secs(10))?.ensure_clean()?;

    let output = agent.output()?;
    let json = output
        .lines()
        .skip_while(|it| !it.starts_with('{') || it.contains("\"level\""));
    let status: Value = serde_json::from_str(&json.collect::<Vec<_>>().join("\n"))
        .with_context(|| format!("the agent's output: {output}"))?;
    let lookups = &status["status"]["operations"][0];
    assert_eq!(lookups["count"], 400_000, "{output}");
    assert_eq!(status["status"]["losses"], Value::Null);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tracer_on_the_same_hooks_changes_no_count() -> Result<()> {
    const SCRIPT: &str = r#"
        BEGIN { printf("tracing\n"); }
        tracepoint:syscalls:sys_enter_bpf { @start[tid] = nsecs; }
        tracepoint:syscalls:sys_exit_bpf /@start[tid]/ { @ns = hist(nsecs - @start[tid]); delete(@start[tid]); }
        tracepoint:sched:sched_switch { @switches = count(); }
        interval:s:1 { print(@ns); print(@switches); }
    "#;
    /// It looks tracepoints up in tracefs, which no host has to have mounted. The agent does not need that either.
    const WITH_TRACEFS: &str = r#"
        test -e /sys/kernel/tracing/events || mount -t tracefs tracefs /sys/kernel/tracing
        exec "$@"
    "#;
    let _alone = KERNEL.lock().await;
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"]);
    command.args(["bpftrace", "-e", SCRIPT]);
    let log = folder.path().join("bpftrace.log");
    let mut caller = Caller::start(&readers())?;
    let monitor = measuring(caller.map_id(), Operation::Lookup).await?;
    let mut tracer = Daemon::spawn("bpftrace", command, &log)?;
    wait::until("bpftrace to trace", LIMIT, async || {
        tracer.ensure_alive()?;
        ensure!(tracer.output()?.contains("tracing"), "not yet");
        Ok(Some(()))
    })
    .await?;

    let before: u64 = monitor.snapshots().borrow().losses.values().sum();
    tokio::task::block_in_place(|| caller.work())?;
    let probe = counted(&monitor, 400_000).await?;
    assert_eq!(count(&probe), 400_000);
    let after: u64 = monitor.snapshots().borrow().losses.values().sum();
    assert_eq!(after, before);
    // The other tracer saw them as well: both ran. It prints by itself, since a signal that comes while it does not wait
    // for events is lost on it.
    wait::until("bpftrace's own figures", LIMIT, async || {
        tracer.ensure_alive()?;
        let text = tracer.output()?;
        ensure!(
            text.contains("@ns") && text.contains("@switches"),
            "not yet: {text}"
        );
        Ok(Some(()))
    })
    .await?;
    monitor.stop()?;
    Ok(())
}
