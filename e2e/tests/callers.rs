//! Who called is told rightly, for one caller and for thousands.

use std::process::{Child, Command};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::{Monitor, ProbeSnapshot};
use maplatency_bpf::sys::{self, Map, MapSpec};
use maplatency_core::MapLatencyProbe;
use maplatency_core::callers::CallerRow;
use maplatency_core::vocabulary::{MapType, Operation};
use maplatency_e2e::caller::{Caller, Job, Thread};
use maplatency_e2e::measure::{request, snapshot, total};
use maplatency_e2e::process::{Daemon, workspace_binary};
use maplatency_e2e::wait;
use tokio::sync::Mutex;

/// The tests share the kernel, and each has to have all of it.
static KERNEL: Mutex<()> = Mutex::const_new(());

/// Until an agent measures, or has ended.
const LIMIT: Duration = Duration::from_secs(30);
/// Callers at work at the same time, so that starting them takes no longer than it must.
const AT_ONCE: usize = 16;

fn count(rows: &[CallerRow]) -> u64 {
    rows.iter().map(|it| it.count).sum()
}

async fn measuring(map_id: u32) -> Result<Monitor> {
    let monitor = Monitor::start(TierChoice::Auto)?;
    let spec = format!("{{maps: [{{ids: [{map_id}]}}], operations: [Lookup]}}");
    monitor.measure(vec![request("callers", &spec)?])?;
    snapshot(&monitor, "the map", "callers", |it| it.maps.len() == 1).await?;
    Ok(monitor)
}

async fn counted(monitor: &Monitor, calls: u64) -> Result<ProbeSnapshot> {
    let all = |it: &ProbeSnapshot| total(it).until_user.count() >= calls;
    Ok(snapshot(monitor, "every call", "callers", all).await?.0)
}

/// The path of a process's memory cgroup: of version 1 where the controller is mounted so, else of version 2.
fn cgroup(pid: u32) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let of = |wanted: &dyn Fn(&str) -> bool| {
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            wanted(controllers).then(|| path.to_owned())
        })
    };
    of(&|it| it.split(',').any(|it| it == "memory"))
        .or_else(|| of(&str::is_empty))
        .context("the process is in no cgroup")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_told_as_proc_tells_it() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let threads = vec![
        Thread {
            operations: vec![Operation::Lookup],
            rounds: 5_000,
            cpus: vec![],
        };
        2
    ];
    let map_type = MapType::Hash;
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let mut caller = Caller::start(&Job { map_type, threads })?;
    let after = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let monitor = measuring(caller.map_id()).await?;
    tokio::task::block_in_place(|| caller.work())?;
    let probe = counted(&monitor, 10_000).await?;

    let [row] = &probe.callers[..] else {
        panic!("not one caller: {:?}", probe.callers);
    };
    let identity = row.caller.as_ref().context("the caller has no name")?;
    assert_eq!((row.count, row.callers), (10_000, 1));
    assert_eq!(row.operation, Operation::Lookup);
    assert_eq!(identity.pid, caller.pid());
    assert_eq!(identity.command, "maplatency-call");
    let path = cgroup(caller.pid())?;
    let end: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
    let end = end[end.len().saturating_sub(4)..].join("/");
    assert_eq!(identity.cgroup, end, "of {path}");
    // Wall time and boot time are read one after the other, and the kernel counts starts in nanoseconds.
    let slack = Duration::from_millis(50);
    let start = Duration::from_micros(identity.start_unix_microseconds.unsigned_abs());
    ensure!(
        before <= start + slack && start <= after + slack,
        "started at {start:?}, not between {before:?} and {after:?}"
    );
    monitor.stop()?;
    Ok(())
}

/// The only child of a process.
fn child_of(pid: u32) -> Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    children.trim().parse().context("not one child")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_a_pid_namespace_counts_those_in_it_by_their_pids_there() -> Result<()> {
    const INSIDE: u64 = 5_000;
    const OUTSIDE: u64 = 3_000;
    let _alone = KERNEL.lock().await;
    let folder = tempfile::tempdir()?;
    let thread = Thread {
        operations: vec![Operation::Lookup],
        rounds: OUTSIDE,
        cpus: vec![],
    };
    let (map_type, threads) = (MapType::Array, vec![thread]);
    let mut outside = Caller::start(&Job { map_type, threads })?;
    let id = outside.map_id();
    let file = folder.path().join("probe.yaml");
    let probe = format!(
        "{{apiVersion: maplatency.dev/v1alpha1, kind: MapLatencyProbe, metadata: {{name: inside}}, spec: {{\
         maps: [{{ids: [{id}]}}], operations: [Lookup]}}}}"
    );
    std::fs::write(&file, probe)?;
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]);
    command.arg(workspace_binary("maplatency-agent")?);
    command
        .args(["run", "--for", "8s", "-o", "json", "-f"])
        .arg(&file);
    command.env("RUST_LOG", "info");
    let log = folder.path().join("agent.log");
    let mut agent = Daemon::spawn("the agent", command, &log)?;
    wait::until("the agent to measure", LIMIT, async || {
        agent.ensure_alive()?;
        ensure!(agent.output()?.contains("Began measuring"), "not yet");
        Ok(Some(()))
    })
    .await?;

    tokio::task::block_in_place(|| outside.work())?;
    // Says its pid, and becomes the caller.
    let script = "echo $$; exec \"$0\" \"$@\"";
    let target = child_of(agent.id())?.to_string();
    let (id, inside) = (id.to_string(), INSIDE.to_string());
    let output = Command::new("nsenter")
        .args(["--pid", "--target", &target, "sh", "-c", script])
        .arg(workspace_binary("maplatency-caller")?)
        .args(["lookup", &id, &inside])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let pid: i64 = String::from_utf8(output.stdout)?.trim().parse()?;
    wait::until("the agent to end", LIMIT, async || {
        Ok(agent.exited()?.map(drop))
    })
    .await?;

    let output = agent.output()?;
    let json = output
        .lines()
        .skip_while(|it| !it.starts_with('{') || it.contains("\"level\""));
    let probe: MapLatencyProbe = serde_json::from_str(&json.collect::<Vec<_>>().join("\n"))
        .with_context(|| format!("the agent's output: {output}"))?;
    let status = probe.status.context("no status")?;
    assert_eq!(status.operations[0].count, i64::try_from(INSIDE)?);
    let [caller] = &status.callers[..] else {
        bail!("not one caller: {:?}", status.callers);
    };
    assert_eq!(caller.process.as_ref().map(|it| it.pid), Some(pid));
    ensure!(pid < 100, "{pid} is no pid of a new namespace");
    let losses: Vec<_> = status
        .losses
        .iter()
        .map(|it| (&*it.kind, it.count))
        .collect();
    assert_eq!(losses, [("OutsidePidNamespace", i64::try_from(OUTSIDE)?)]);
    Ok(())
}

/// Calls by one new process after the other, until room has come back and one of them is told apart.
async fn until_told_apart(monitor: &Monitor, map_id: u32, already: u64) -> Result<CallerRow> {
    const CALLS: u64 = 200_000;
    let program = workspace_binary("maplatency-caller")?;
    for late in 1..=20 {
        let mut caller = Command::new(&program)
            .args(["lookup", &map_id.to_string(), &CALLS.to_string()])
            .spawn()?;
        let pid = caller.id();
        tokio::task::block_in_place(|| caller.wait())?;
        let probe = counted(monitor, already + late * CALLS).await?;
        let is_late = |it: &&CallerRow| it.caller.as_ref().is_some_and(|it| it.pid == pid);
        if let Some(row) = probe.callers.iter().find(is_late) {
            assert_eq!(row.count, CALLS);
            return Ok(row.clone());
        }
    }
    bail!("no late caller was told apart")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_thousand_short_lived_callers_no_call_is_lost() -> Result<()> {
    const CALLERS: u64 = 5_000;
    const CALLS: u64 = 3;
    let _alone = KERNEL.lock().await;
    let map = Map::create(&MapSpec {
        name: "short_lived",
        map_type: sys::MapType(MapType::Array.number()),
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        flags: 0,
    })?;
    let monitor = measuring(map.id()?).await?;
    let lost = |monitor: &Monitor| monitor.snapshots().borrow().losses.clone();
    let before = lost(&monitor);

    tokio::task::block_in_place(|| -> Result<()> {
        let program = workspace_binary("maplatency-caller")?;
        let (id, calls) = (map.id()?.to_string(), CALLS.to_string());
        let mut running: Vec<Child> = Vec::new();
        for _ in 0..CALLERS {
            if running.len() == AT_ONCE {
                ensure!(running.remove(0).wait()?.success(), "a caller failed");
            }
            running.push(
                Command::new(&program)
                    .args(["lookup", &id, &calls])
                    .spawn()?,
            );
        }
        for mut child in running {
            ensure!(child.wait()?.success(), "a caller failed");
        }
        Ok(())
    })?;

    let probe = counted(&monitor, CALLERS * CALLS).await?;
    assert_eq!(total(&probe).until_user.count(), CALLERS * CALLS);
    assert_eq!(lost(&monitor), before);
    assert_eq!(count(&probe.callers), CALLERS * CALLS);
    let (named, others): (Vec<_>, Vec<_>) =
        probe.callers.iter().partition(|it| it.caller.is_some());
    assert_eq!((named.len(), others.len()), (64, 1));
    assert!(named.iter().all(|it| it.count == CALLS));
    // Those that came while all numbers were taken are counted, but not told apart.
    let known = 64 + others[0].callers;
    ensure!((1_000..=CALLERS).contains(&known), "{known} callers");

    let late = until_told_apart(&monitor, map.id()?, CALLERS * CALLS).await?;
    assert_eq!(late.callers, 1);
    monitor.stop()?;
    Ok(())
}
