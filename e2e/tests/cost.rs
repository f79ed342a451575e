//! What the agent tells of its own cost, against what this test reads in /proc by itself.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::Monitor;
use maplatency_core::MapLatencyProbe;
use maplatency_core::cost::{BpfRunTime, Cost};
use maplatency_core::crd::agents::AgentsStatus;
use maplatency_e2e::measure::{request, snapshot};
use maplatency_e2e::process::{Daemon, workspace_binary};
use maplatency_e2e::workload::Workload;
use maplatency_e2e::{not_run, wait, workspace};

/// Until the next look of the agent at itself, which it takes every ten seconds.
const LOOK: Duration = Duration::from_secs(15);

/// What a process looks like from outside.
#[derive(Debug)]
struct Sample {
    at: Instant,
    /// CPU time by thread, in nanoseconds.
    cpu: BTreeMap<u32, u64>,
    /// The same, of threads whose name begins with `reader-`.
    readers: BTreeMap<u32, u64>,
    rss: u64,
    /// `memlock` of every BPF object that the process has open, by kind and id.
    memlock: BTreeMap<(&'static str, u64), u64>,
}

impl Sample {
    /// Fails when the process ends meanwhile.
    fn take(pid: u32) -> Result<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let mut cpu = BTreeMap::new();
        let mut readers = BTreeMap::new();
        let at = Instant::now();
        for entry in fs::read_dir(process.join("task"))? {
            let thread = entry?.path();
            // A thread may end at any moment.
            let Ok(times) = fs::read_to_string(thread.join("schedstat")) else {
                continue;
            };
            let number = thread.file_name().and_then(|it| it.to_str());
            let number = number.context("a thread has a number")?.parse()?;
            let time = times.split(' ').next().context("three numbers")?.parse()?;
            cpu.insert(number, time);
            if fs::read_to_string(thread.join("comm"))?.starts_with("reader-") {
                readers.insert(number, time);
            }
        }
        let status = fs::read_to_string(process.join("status"))?;
        let rss = number(&status, "VmRSS").context("no VmRSS")? * 1024;
        Ok(Self {
            at,
            cpu,
            readers,
            rss,
            memlock: memlock(&process)?,
        })
    }

    /// Bytes of maps and programs, without one map that is somebody else's.
    fn bpf_memory(&self, except: u32) -> u64 {
        let own = self.memlock.iter();
        own.filter(|(it, _)| **it != ("map_id", u64::from(except)))
            .map(|(_, bytes)| bytes)
            .sum()
    }
}

fn memlock(process: &Path) -> Result<BTreeMap<(&'static str, u64), u64>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(process.join("fdinfo"))? {
        // A descriptor may be closed at any moment.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        for kind in ["map_id", "prog_id"] {
            // A link names its program, too, but no memory.
            if let (Some(id), Some(bytes)) = (number(&text, kind), number(&text, "memlock")) {
                all.insert((kind, id), bytes);
            }
        }
    }
    Ok(all)
}

/// The number of a line `name:   number unit`.
fn number(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text
        .lines()
        .filter_map(|it| it.split_once(':'))
        .find(|(it, _)| *it == name)?;
    rest.split_whitespace().next()?.parse().ok()
}

/// CPU time between two samples in parts per million of one core.
fn share(times: impl Fn(&Sample) -> &BTreeMap<u32, u64>, first: &Sample, last: &Sample) -> u64 {
    let grown = |(thread, time): (&u32, &u64)| {
        let before = times(first).get(thread).copied().unwrap_or(0);
        time - before
    };
    let nanoseconds: u64 = times(last).iter().map(grown).sum();
    let span = u64::try_from((last.at - first.at).as_nanos()).expect("a test is short");
    nanoseconds * 1_000_000 / span
}

/// Runs the agent for some seconds with active reads, and looks at it all the time.
async fn observed(map_id: u32) -> Result<(AgentsStatus, Vec<Sample>)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("probe.yaml");
    let probe = format!(
        "{{apiVersion: maplatency.dev/v1alpha1, kind: MapLatencyProbe, metadata: {{name: cost}}, spec: {{\
         maps: [{{ids: [{map_id}]}}], activeReads: {{cpus: All, periodMilliseconds: 10}}}}}}"
    );
    fs::write(&file, probe)?;
    let mut command = Command::new(workspace_binary("maplatency-agent")?);
    // The second look, after about 11 s, covers ten seconds of measuring. The third does not come any more.
    command
        .args(["run", "--for", "14s", "--output", "json", "-f"])
        .arg(&file)
        .current_dir(workspace());
    let mut agent = Daemon::spawn("the agent", command, &folder.path().join("log"))?;
    let mut samples = Vec::new();
    let limit = Duration::from_secs(40);
    let ended = wait::until("the agent to end", limit, async || {
        // Fails at its end, which is looked for next.
        samples.extend(Sample::take(agent.id()).ok());
        agent.exited()
    })
    .await?;
    let output = agent.output()?;
    ensure!(ended.success(), "{output}");
    let begin = output.find("\n{\n").context("no JSON")?;
    let probe: MapLatencyProbe = serde_json::from_str(&output[begin..])?;
    let agents = probe.status.and_then(|it| it.agents);
    Ok((agents.context("nothing on agents")?, samples))
}

#[tokio::test]
async fn an_agent_tells_what_its_host_sees_it_use() -> Result<()> {
    let name = "an_agent_tells_what_its_host_sees_it_use";
    let workload = Workload::start(&["--no-refresh", "--entries", "1000"])?;
    let map_id = workload.ready().map_id;
    let (agents, samples) = observed(map_id).await?;

    // From the end on, since a slow machine takes seconds to load the programs.
    let end = samples.last().context("no sample")?.at;
    let before = |seconds| {
        let wanted = Duration::from_secs(seconds);
        let found = samples.iter().find(|it| end - it.at <= wanted);
        found.with_context(|| format!("no sample {seconds} s before the end"))
    };
    // Between its two looks.
    let (first, last) = (before(11)?, before(4)?);
    let cost = agents.cost;

    let memory = cost.bpf_memory.context("no memory of BPF")?.bytes;
    let summed = last.bpf_memory(map_id);
    println!("BPF memory: told {memory}, summed {summed}");
    // The kernel says the same to everybody, and nothing changes between the two looks.
    assert_eq!(memory.unsigned_abs(), summed);

    let rss = cost.rss.context("no RSS")?.bytes;
    println!("RSS: told {rss}, seen {}", last.rss);
    within("RSS", rss, last.rss, 80..=125)?;

    let seen = share(|it| &it.cpu, first, last);
    if seen == 0 {
        return not_run(name, "the kernel does not tell threads' CPU time");
    }
    let seen_readers = share(|it| &it.readers, first, last);
    let cpu = cost.cpu.context("no CPU time")?;
    let readers = cpu.readers_parts_per_million.context("no readers")?;
    println!(
        "CPU: told {} ppm, of it readers {readers}; seen {seen}, of it readers {seen_readers}",
        cpu.parts_per_million
    );
    within("CPU", cpu.parts_per_million, seen, 60..=160)?;
    within("CPU of readers", readers, seen_readers, 60..=160)?;
    ensure!(seen_readers > 0, "the readers did nothing");
    ensure!(
        readers < cpu.parts_per_million,
        "measuring costs something, too"
    );
    Ok(())
}

/// Whether what was told is so many per cent of what was seen.
fn within(what: &str, told: i64, seen: u64, percent: RangeInclusive<u64>) -> Result<()> {
    let hundredfold = told.unsigned_abs() * 100;
    ensure!(
        (percent.start() * seen..=percent.end() * seen).contains(&hundredfold),
        "{what}: told {told}, seen {seen}"
    );
    Ok(())
}

/// The next cost that the agent takes.
async fn next_cost(monitor: &Monitor) -> Result<Cost> {
    let snapshots = monitor.snapshots();
    let before = snapshots.borrow().cost;
    wait::until("another look of the agent at itself", LOOK, async || {
        let now = Arc::clone(&snapshots.borrow());
        Ok((now.cost != before).then_some(now.cost))
    })
    .await
}

/// What the kernel has counted of this process's programs so far.
fn counted() -> Result<u64> {
    let mut runs = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        if let (Some(id), Some(count)) = (number(&text, "prog_id"), number(&text, "run_cnt")) {
            runs.insert(id, count);
        }
    }
    ensure!(!runs.is_empty(), "this process has no programs");
    Ok(runs.values().sum())
}

fn runs_per_second(run: BpfRunTime) -> u64 {
    run.runs * 1_000_000_000 / run.span_nanoseconds
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_time_of_the_hooks_grows_with_what_they_see() -> Result<()> {
    let name = "the_run_time_of_the_hooks_grows_with_what_they_see";
    // Far more reads than are made; the test ends before.
    let arguments = ["--rate", "0", "--no-refresh", "--reads", "1000000000"];
    let mut workload = Workload::start(&arguments)?;
    let id = workload.ready().map_id;
    let monitor = Monitor::start(TierChoice::Auto)?;
    monitor.measure(vec![request(
        name,
        &format!("{{maps: [{{ids: [{id}]}}], operations: [Lookup]}}"),
    )?])?;

    let idle = next_cost(&monitor).await?;
    let idle = idle.bpf_run_time.context("no run time")?;
    workload.go()?;
    // The span of a look may have begun before the reads.
    let reads = |monitor: &Monitor| {
        let latest = Arc::clone(&monitor.snapshots().borrow());
        let rows = latest.probes.iter().flat_map(|it| it.cumulative.values());
        (
            latest.taken,
            rows.map(|it| it.until_user.count()).sum::<u64>(),
        )
    };
    snapshot(&monitor, "reads", name, |it| !it.cumulative.is_empty()).await?;
    let first = reads(&monitor);
    let busy = next_cost(&monitor).await?;
    let busy = busy.bpf_run_time.context("no run time")?;
    let last = reads(&monitor);
    let per_second =
        (last.1 - first.1) * 1000 / u64::try_from(last.0.saturating_sub(first.0).as_millis())?;
    println!("idle: {idle:?}\nbusy: {busy:?} at {per_second} reads a second");

    assert!(busy.mean_nanoseconds().is_some_and(|it| it > 0));
    assert!(busy.parts_per_million() > 2 * idle.parts_per_million());
    // Every read runs a hook at the entry and one at the exit. How fast they are read varies.
    assert!(
        runs_per_second(busy) > per_second,
        "{} runs a second",
        runs_per_second(busy)
    );
    // On at most all CPUs at all times.
    let cpus = u64::try_from(std::thread::available_parallelism()?.get())?;
    assert!(busy.parts_per_million() <= cpus * 1_000_000);

    if fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled")?.trim() == "1" {
        return not_run(name, "somebody keeps the kernel's BPF statistics on");
    }
    // The statistics of another agent's look are on for a tenth of a second.
    let mut since = None;
    wait::until(
        "a second of reads that the kernel does not count",
        LOOK,
        async || {
            let ((taken, seen), runs) = (reads(&monitor), counted()?);
            let (begin, seen_then, runs_then) = *since.get_or_insert((taken, seen, runs));
            if runs != runs_then {
                since = None;
                bail!("it has counted {} runs", runs - runs_then);
            }
            Ok((taken >= begin + Duration::from_secs(1) && seen > seen_then).then_some(()))
        },
    )
    .await?;
    monitor.stop()?;
    Ok(())
}
