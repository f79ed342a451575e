//! An agent that costs more than it may leaves things out, says so, and takes them back when the load is over.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::{Monitor, Snapshot};
use maplatency_bpf::sys::{self, Map, MapSpec};
use maplatency_core::MapLatencyProbe;
use maplatency_core::budget::{Budget, Resource, Step};
use maplatency_core::vocabulary::MapType;
use maplatency_e2e::measure::{request, snapshot, total};
use maplatency_e2e::process::{Daemon, workspace_binary};
use maplatency_e2e::{wait, workspace};
use tokio::sync::Mutex;

/// The tests share the kernel, and each has to have all of it.
static KERNEL: Mutex<()> = Mutex::const_new(());

/// Until all steps are taken, or taken back: each waits for a look of the agent at itself, every ten seconds.
const PATIENCE: Duration = Duration::from_mins(6);
/// Lookups by each caller.
const CALLS: u64 = 20_000;
/// Callers at work at the same time.
const AT_ONCE: usize = 2;
/// In parts per million of a core. An idle agent takes far less, and looking at every lookup of the load far more.
const CPU: u64 = 100_000;

fn map() -> Result<Map> {
    Ok(Map::create(&MapSpec {
        name: "budgeted",
        map_type: sys::MapType(MapType::Array.number()),
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        flags: 0,
    })?)
}

fn caller(map_id: u32, calls: u64) -> Result<Child> {
    let program = workspace_binary("maplatency-caller")?;
    let (id, calls) = (map_id.to_string(), calls.to_string());
    Ok(Command::new(program)
        .args(["lookup", &id, &calls])
        .spawn()?)
}

/// Short-lived callers that read as fast as they can, one after the other.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(map_id: u32) -> Self {
        let (stop, calls) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, called) = (Arc::clone(&stop), Arc::clone(&calls));
        let thread = thread::spawn(move || {
            let mut running: Vec<Child> = Vec::new();
            let mut outcome = Ok(());
            while outcome.is_ok() && !stopped.load(Ordering::Relaxed) {
                if running.len() == AT_ONCE {
                    outcome = ended(running.remove(0));
                }
                running.push(caller(map_id, CALLS)?);
                called.fetch_add(CALLS, Ordering::Relaxed);
            }
            running.into_iter().map(ended).fold(outcome, Result::and)
        });
        Self {
            stop,
            calls,
            thread: Some(thread),
        }
    }

    /// Ends it, and says how often was called.
    fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has ended")?;
        match thread.join() {
            Ok(outcome) => outcome.map(|()| self.calls.load(Ordering::Relaxed)),
            Err(_) => bail!("the load panicked"),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ended(mut child: Child) -> Result<()> {
    ensure!(child.wait()?.success(), "a caller failed");
    Ok(())
}

fn steps(snapshot: &Snapshot) -> Vec<String> {
    snapshot.shed.iter().map(ToString::to_string).collect()
}

/// Waits for what is left out to be so. Gives every change on the way, too.
async fn until_left_out(
    monitor: &Monitor,
    what: &str,
    is_so: impl Fn(&Snapshot) -> bool,
) -> Result<(Arc<Snapshot>, Vec<Vec<String>>)> {
    let snapshots = monitor.snapshots();
    let seen: RefCell<Vec<Vec<String>>> = RefCell::default();
    let latest = wait::until(what, PATIENCE, async || {
        let latest = Arc::clone(&snapshots.borrow());
        let mut seen = seen.borrow_mut();
        if seen.last() != Some(&steps(&latest)) {
            seen.push(steps(&latest));
        }
        ensure!(is_so(&latest), "{seen:?}, cost {:?}", latest.cost);
        Ok(Some(latest))
    })
    .await?;
    Ok((latest, seen.into_inner()))
}

/// Starts to measure lookups in a map within a budget.
async fn measuring(map_id: u32, budget: Budget) -> Result<Monitor> {
    let monitor = Monitor::start_within(TierChoice::Auto, budget)?;
    let spec = format!("{{maps: [{{ids: [{map_id}]}}], operations: [Lookup], windowSeconds: 600}}");
    monitor.measure(vec![request("budget", &spec)?])?;
    snapshot(&monitor, "the map", "budget", |it| it.maps.len() == 1).await?;
    Ok(monitor)
}

/// Two more snapshots, in which everything is told that has ended by now.
async fn settled(monitor: &Monitor) -> Result<Arc<Snapshot>> {
    let mut snapshots = monitor.snapshots();
    snapshots.mark_unchanged();
    for _ in 0..2 {
        snapshots.changed().await?;
    }
    let latest = Arc::clone(&snapshots.borrow());
    Ok(latest)
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_taken_one_by_one_and_taken_back_when_the_load_ends() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let map = map()?;
    let budget = Budget {
        cpu: Some(CPU),
        memory: None,
    };
    let monitor = measuring(map.id()?, budget).await?;
    let before = monitor.snapshots().borrow().losses.clone();
    let load = Load::start(map.id()?);

    let sampling = |it: &Snapshot| it.shed.iter().any(|it| it.step == Step::Sampling);
    let (_, seen) = until_left_out(&monitor, "sampling", sampling).await?;
    // A good part of the load is to be sampled.
    let mut sampled = settled(&monitor).await?;
    for _ in 0..4 {
        sampled = settled(&monitor).await?;
    }
    let calls = load.end()?;
    let told = settled(&monitor).await?;
    println!("left out under load: {seen:?}; cost {:?}", sampled.cost);
    let names = ["FewerOutliers", "CoarserCallers", "Sampling 1/2"];
    let expected: Vec<Vec<&str>> = (0..=names.len()).map(|it| names[..it].to_vec()).collect();
    assert_eq!(seen[..4], expected);
    assert!(sampled.shed.iter().all(|it| it.resource == Resource::Cpu));

    let probe = told.probes.first().context("no probe")?;
    let counted = total(probe).until_user.count();
    let one_in = u64::from(probe.sampling);
    // As if all had been chosen from so many; see anykernel/strategies.rs.
    let most = 5 * (calls * (one_in - 1)).isqrt() + 1;
    let off = counted.abs_diff(calls);
    println!("counted {counted} of {calls} at most 1 in {one_in}, off by {off} of {most}");
    assert_eq!(told.losses, before);
    assert!(one_in >= 2 && off <= most, "counted {counted} of {calls}");
    assert!(
        probe.callers.iter().all(|it| it.caller.is_none()),
        "{:?}",
        probe.callers
    );

    let whole = |it: &Snapshot| it.shed.is_empty();
    let (_, seen) = until_left_out(&monitor, "the load to be forgotten", whole).await?;
    println!("left out after it: {seen:?}");
    for pair in seen.windows(2) {
        // A factor is halved, or the newest step goes.
        let fewer = pair[1].len() + 1 == pair[0].len();
        assert!(fewer || pair[1].len() == pair[0].len(), "{pair:?}");
    }
    // From now on all is counted again, and told apart.
    let first = settled(&monitor).await?;
    let counted = |it: &Snapshot| {
        it.probes
            .iter()
            .map(|it| total(it).until_user.count())
            .sum()
    };
    let already: u64 = counted(&first);
    let child = caller(map.id()?, CALLS + 1)?;
    let pid = child.id();
    tokio::task::block_in_place(|| ended(child))?;
    let last = settled(&monitor).await?;
    assert_eq!(counted(&last) - already, CALLS + 1);
    let callers = last.probes.iter().flat_map(|it| &it.callers);
    let pids: Vec<u32> = callers
        .filter_map(|it| Some(it.caller.as_ref()?.pid))
        .collect();
    assert_eq!(pids, [pid]);
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn for_memory_callers_go_first_and_counts_stay_exact() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let map = map()?;
    // Less than any process takes.
    let budget = Budget {
        cpu: None,
        memory: Some(1 << 20),
    };
    let monitor = measuring(map.id()?, budget).await?;
    let all = |it: &Snapshot| it.shed.len() == 2;
    let (told, seen) = until_left_out(&monitor, "both steps", all).await?;
    assert_eq!(seen[..2], [vec![], vec!["CoarserCallers".to_owned()]]);
    assert!(told.shed.iter().all(|it| it.resource == Resource::Memory));

    tokio::task::block_in_place(|| ended(caller(map.id()?, CALLS)?))?;
    let last = settled(&monitor).await?;
    let probe = last.probes.first().context("no probe")?;
    assert_eq!(
        (total(probe).until_user.count(), probe.sampling),
        (CALLS, 1)
    );
    let callers: Vec<_> = probe
        .callers
        .iter()
        .map(|it| (&it.caller, it.count))
        .collect();
    assert_eq!(callers, [(&None, CALLS)]);
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_and_the_conditions_say_what_is_left_out() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let map = map()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("probe.yaml");
    let id = map.id()?;
    let probe = format!(
        "{{apiVersion: maplatency.dev/v1alpha1, kind: MapLatencyProbe, metadata: {{name: budget}}, spec: {{\
         maps: [{{ids: [{id}]}}], operations: [Lookup]}}}}"
    );
    fs::write(&file, probe)?;
    let mut command = Command::new(workspace_binary("maplatency-agent")?);
    command
        .args(["run", "--cpu-budget", "0.2%", "-f"])
        .arg(&file)
        .current_dir(workspace());
    let log = folder.path().join("log");
    let load = Load::start(id);
    let mut agent = Daemon::spawn("the agent", command, &log)?;
    wait::until("the table to tell of sampling", PATIENCE, async || {
        agent.ensure_alive()?;
        let output = agent.output()?;
        Ok(output.contains("\nSampling 1/").then_some(()))
    })
    .await?;
    tokio::task::block_in_place(|| agent.terminate(Duration::from_secs(10)))?.ensure_clean()?;
    load.end()?;

    let output = agent.output()?;
    let line = "to stay within the CPU budget: one operation in ";
    ensure!(output.contains(line), "{output}");
    ensure!(
        output.contains("\nCounts are estimates: one operation in "),
        "{output}"
    );
    let begin = output.find("\napiVersion:").context("no resource")?;
    let probe: MapLatencyProbe = serde_yaml::from_str(&output[begin..])?;
    let status = probe.status.context("no status")?;
    let conditions: BTreeMap<&str, (&str, &str)> = status
        .conditions
        .iter()
        .map(|it| (it.type_.as_str(), (it.status.as_str(), it.reason.as_str())))
        .collect();
    for step in ["FewerOutliers", "CoarserCallers", "Sampling"] {
        assert_eq!(
            conditions.get(step),
            Some(&("True", "OverCpuBudget")),
            "{step}"
        );
    }
    assert_eq!(conditions.get("Ready").map(|it| it.0), Some("True"));
    ensure!(
        status.sampled_one_in.is_some_and(|it| it >= 2),
        "not told as an estimate"
    );
    let reads = status.summary.reads.context("no reads")?;
    ensure!(reads.starts_with('~'), "{reads}");
    let shedding = status
        .agents
        .and_then(|it| it.shedding)
        .context("nothing left out")?;
    assert_eq!((shedding.nodes, shedding.steps.len()), (1, 3));
    Ok(())
}
