//! Operations that are handed over one by one are those that were counted, with their true latencies, and none is missing
//! without being counted as such.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::{Monitor, OperationsFile, ProbeSnapshot, Written};
use maplatency_bpf::sys;
use maplatency_core::budget::{Budget, Step};
use maplatency_core::exact::{ExactPercentiles, ExactRow};
use maplatency_core::histogram::{Histogram, Percentile, bucket_of, midpoint};
use maplatency_core::vocabulary::{MapType, Operation};
use maplatency_e2e::caller::{Caller, Job, Thread};
use maplatency_e2e::measure::{request, snapshot, total};
use maplatency_e2e::wait;
use tokio::sync::Mutex;

/// The tests share the kernel, and each has to have all of it.
static KERNEL: Mutex<()> = Mutex::const_new(());

const OPERATIONS: [Operation; 3] = [Operation::Lookup, Operation::Update, Operation::Delete];

fn job(threads: usize, rounds: u64) -> Job {
    let thread = Thread {
        operations: OPERATIONS.to_vec(),
        rounds,
        cpus: vec![],
    };
    Job {
        map_type: MapType::Hash,
        threads: vec![thread; threads],
    }
}

fn spec(map_id: u32, aggregation: &str) -> String {
    format!(
        "{{maps: [{{ids: [{map_id}]}}], operations: [Lookup, Update, Delete], aggregation: {{{aggregation}}}}}"
    )
}

/// Waits until a probe has counted so many operations.
async fn counted(monitor: &Monitor, name: &str, calls: u64) -> Result<ProbeSnapshot> {
    let all = |it: &ProbeSnapshot| total(it).until_user.count() >= calls;
    Ok(snapshot(monitor, "every call", name, all).await?.0)
}

async fn begun(monitor: &Monitor, name: &str) -> Result<()> {
    snapshot(monitor, "the map", name, |it| it.maps.len() == 1).await?;
    Ok(())
}

fn row(probe: &ProbeSnapshot, operation: Operation) -> Result<&ExactRow> {
    let mut rows = probe.exact.iter();
    rows.find(|it| it.operation == operation)
        .with_context(|| format!("no exact figures of {operation}: {:?}", probe.exact))
}

/// Both latencies of one operation over all CPUs and outcomes, as counted.
fn histograms(probe: &ProbeSnapshot, operation: Operation) -> (Histogram, Histogram) {
    let (mut until_user, mut kernel_window) = (Histogram::new(), Histogram::new());
    for (key, counts) in &probe.cumulative {
        if key.operation == operation {
            until_user.merge(&counts.until_user);
            kernel_window.merge(&counts.kernel_window);
        }
    }
    (until_user, kernel_window)
}

/// That the figures of a histogram are the buckets of the exact ones.
fn agrees(histogram: &Histogram, exact: &ExactPercentiles) -> Result<()> {
    let bucket = |value| Some(midpoint(bucket_of(value)));
    for (percentile, value) in [
        (Percentile::P50, exact.p50),
        (Percentile::P90, exact.p90),
        (Percentile::P99, exact.p99),
        (Percentile::P999, exact.p999),
    ] {
        let counted = histogram.percentile(percentile);
        ensure!(
            counted == bucket(value),
            "{percentile:?}: {counted:?}, exact {value}"
        );
    }
    let max = histogram.max();
    ensure!(max == bucket(exact.max), "max {max:?}, exact {exact:?}");
    Ok(())
}

/// One line of the file.
struct Line {
    operation: String,
    pid: u32,
    until_user: u64,
    kernel_window: u64,
}

fn lines(file: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(file)?;
    let lines = text.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        let [_, _, operation, _, _, pid, until_user, kernel_window] = fields[..] else {
            anyhow::bail!("{line:?}");
        };
        Ok(Line {
            operation: operation.to_owned(),
            pid: pid.parse()?,
            until_user: until_user.parse()?,
            kernel_window: kernel_window.parse()?,
        })
    });
    lines.collect()
}

fn exact_of(lines: &[&Line], of: fn(&Line) -> u64) -> Option<ExactPercentiles> {
    let mut values: Vec<u64> = lines.iter().map(|it| of(it)).collect();
    ExactPercentiles::of(&mut values)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_handed_over_as_it_was_counted() -> Result<()> {
    const ROUNDS: u64 = 20_000;
    let _alone = KERNEL.lock().await;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("operations.csv");
    let file = OperationsFile::open(&path)?;
    let monitor = Monitor::start_writing(TierChoice::Auto, Budget::default(), Some(file))?;
    // One thread, so that the order is the same for all probes.
    let mut caller = Caller::start(&job(1, ROUNDS))?;
    let id = caller.map_id();
    let probes = [
        ("all", "strategy: Direct"),
        ("last", "strategy: SlidingWindow, lastOperations: 300"),
        ("counts", "strategy: Histogram"),
    ];
    let requests = probes.map(|(name, it)| request(name, &spec(id, it)));
    monitor.measure(requests.into_iter().collect::<Result<_>>()?)?;
    for (name, _) in probes {
        begun(&monitor, name).await?;
    }
    tokio::task::block_in_place(|| caller.work())?;

    let calls = ROUNDS * 3;
    let all = counted(&monitor, "all", calls).await?;
    let last = counted(&monitor, "last", calls).await?;
    let counts = counted(&monitor, "counts", calls).await?;
    assert_eq!(counts.exact, [], "nobody asked for them");
    let snapshots = monitor.snapshots();
    monitor.stop()?;
    let written = snapshots.borrow().written;
    let expected = Written {
        lines: calls,
        missed: 0,
        is_complete: true,
    };
    assert_eq!(written, Some(expected));
    let lines = lines(&path)?;
    assert_eq!(lines.len() as u64, calls);
    assert!(lines.iter().all(|it| it.pid == caller.pid()));

    for operation in OPERATIONS {
        let exact = row(&all, operation)?;
        assert_eq!(
            (exact.count, exact.missed, exact.let_go),
            (ROUNDS, 0, 0),
            "{operation}"
        );
        let latencies = exact.latencies.context("there are operations")?;
        for probe in [&all, &counts] {
            let (until_user, kernel_window) = histograms(probe, operation);
            assert_eq!(until_user.count(), ROUNDS);
            agrees(&until_user, &latencies.until_user)?;
            agrees(&kernel_window, &latencies.kernel_window)?;
        }
        let of_it = |it: &&Line| it.operation == operation.as_str();
        let of_it: Vec<&Line> = lines.iter().filter(of_it).collect();
        let until_user = exact_of(&of_it, |it| it.until_user);
        assert_eq!(until_user, Some(latencies.until_user));
        let newest = &of_it[of_it.len() - 300..];
        let exact = row(&last, operation)?;
        assert_eq!((exact.count, exact.missed, exact.let_go), (300, 0, 0));
        let latencies = exact.latencies.context("there are operations")?;
        let until_user = exact_of(newest, |it| it.until_user);
        let kernel_window = exact_of(newest, |it| it.kernel_window);
        assert_eq!(until_user, Some(latencies.until_user));
        assert_eq!(kernel_window, Some(latencies.kernel_window));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_in_the_ring_buffer_is_counted_as_missed() -> Result<()> {
    const ROUNDS: u64 = 10_000;
    /// Each call is handed over so many times.
    const PROBES: usize = 24;
    let _alone = KERNEL.lock().await;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("operations.csv");
    let file = OperationsFile::open(&path)?;
    let monitor = Monitor::start_writing(TierChoice::Auto, Budget::default(), Some(file))?;
    let mut caller = Caller::start(&job(2, ROUNDS))?;
    let id = caller.map_id();
    let names: Vec<String> = (0..PROBES).map(|it| format!("probe-{it}")).collect();
    let requests = names
        .iter()
        .map(|it| request(it, &spec(id, "strategy: Direct")));
    monitor.measure(requests.collect::<Result<_>>()?)?;
    for name in &names {
        begun(&monitor, name).await?;
    }
    tokio::task::block_in_place(|| caller.work())?;

    let mut missed = 0;
    for name in &names {
        let probe = counted(&monitor, name, 6 * ROUNDS).await?;
        for operation in OPERATIONS {
            let exact = row(&probe, operation)?;
            assert_eq!(
                exact.count + exact.missed,
                2 * ROUNDS,
                "{name}, {operation}: {exact:?}"
            );
            missed += exact.missed;
        }
    }
    ensure!(missed > 0, "the ring buffer was never full");
    let snapshots = monitor.snapshots();
    monitor.stop()?;
    let all = PROBES as u64 * 6 * ROUNDS;
    let written = snapshots.borrow().written.context("there was a file")?;
    assert_eq!((written.lines, written.missed), (all - missed, missed));
    assert_eq!(lines(&path)?.len() as u64, written.lines);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_takes_no_more_ends_measuring_with_that_error() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&path).status()?;
    ensure!(made.success(), "mkfifo failed");
    // Reads the first line and goes.
    let pipe = path.clone();
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(fs::File::open(pipe)?).read_line(&mut line)
    });
    let file = OperationsFile::open(&path)?;
    let monitor = Monitor::start_writing(TierChoice::Auto, Budget::default(), Some(file))?;
    reader.join().expect("it does not panic")?;
    // More than is written at once.
    let mut caller = Caller::start(&job(1, 10_000))?;
    monitor.measure(vec![request(
        "direct",
        &spec(caller.map_id(), "strategy: Direct"),
    )?])?;
    begun(&monitor, "direct").await?;
    tokio::task::block_in_place(|| caller.work())?;
    let has_ended = async || Ok(monitor.slice().is_err().then_some(()));
    wait::until("measuring to end", Duration::from_secs(10), has_ended).await?;
    let error = monitor.stop().expect_err("there is nobody to read");
    let expected = format!("could not write operations to {}", path.display());
    assert_eq!(error.to_string(), expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_for_a_budget_is_counted_as_missed() -> Result<()> {
    const ROUNDS: u64 = 1_000;
    let _alone = KERNEL.lock().await;
    let budget = Budget {
        cpu: Some(1),
        memory: None,
    };
    let monitor = Monitor::start_within(TierChoice::Auto, budget)?;
    let mut caller = Caller::start(&job(1, ROUNDS))?;
    monitor.measure(vec![request(
        "held",
        &spec(caller.map_id(), "strategy: SlidingWindow"),
    )?])?;
    begun(&monitor, "held").await?;
    let snapshots = monitor.snapshots();
    wait::until("the first step", Duration::from_secs(30), async || {
        let shed = snapshots.borrow().shed.clone();
        Ok(shed
            .iter()
            .any(|it| it.step == Step::FewerOutliers)
            .then_some(()))
    })
    .await?;
    tokio::task::block_in_place(|| caller.work())?;
    let probe = counted(&monitor, "held", 3 * ROUNDS).await?;
    for operation in OPERATIONS {
        let exact = row(&probe, operation)?;
        assert_eq!((exact.count, exact.missed), (0, ROUNDS), "{operation}");
        assert_eq!(exact.latencies, None);
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sampled_operations_stand_for_those_that_are_missed() -> Result<()> {
    const ROUNDS: u64 = 4_000;
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let mut caller = Caller::start(&job(1, ROUNDS))?;
    let id = caller.map_id();
    // The second makes the hooks look at every operation; the first counts some of them for all.
    let sampled = request("sampled", &spec(id, "strategy: Sampled, oneIn: 8"))?;
    let direct = request("direct", &spec(id, "strategy: Direct"))?;
    monitor.measure(vec![sampled, direct])?;
    begun(&monitor, "sampled").await?;
    begun(&monitor, "direct").await?;
    tokio::task::block_in_place(|| caller.work())?;
    let direct = counted(&monitor, "direct", 3 * ROUNDS).await?;
    let (sampled, _) = snapshot(&monitor, "the sampled", "sampled", |_| true).await?;
    assert_eq!(sampled.exact, [], "samples are not handed over");
    for operation in OPERATIONS {
        let exact = row(&direct, operation)?;
        assert_eq!((exact.count, exact.missed), (ROUNDS, 0), "{operation}");
    }
    monitor.stop()?;
    Ok(())
}

/// Ring buffers of single operations that there are on this host. The kernel frees those of earlier tests a little later.
fn rings() -> Result<BTreeSet<u32>> {
    let maps = sys::map_ids()?.into_iter();
    let infos = maps.filter_map(|id| sys::Map::from_id(id).and_then(|it| it.info()).ok());
    let is_one =
        |it: &sys::MapInfo| it.map_type == sys::MapType::RINGBUF && it.name == "operations";
    Ok(infos.filter(is_one).map(|it| it.id).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_ring_buffer_only_while_a_probe_wants_single_operations() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let others = rings()?;
    let own = || Ok::<_, anyhow::Error>(rings()?.difference(&others).count());
    let monitor = Monitor::start(TierChoice::Auto)?;
    let caller = Caller::start(&job(1, 1))?;
    let id = caller.map_id();
    let counts = request("counts", &spec(id, "strategy: Histogram"))?;
    let last = request("last", &spec(id, "strategy: SlidingWindow"))?;
    monitor.measure(vec![counts.clone()])?;
    begun(&monitor, "counts").await?;
    assert_eq!(own()?, 0);
    monitor.measure(vec![counts.clone(), last])?;
    begun(&monitor, "last").await?;
    assert_eq!(own()?, 1);
    monitor.measure(vec![counts])?;
    // The kernel frees it a little later.
    let is_gone = async || Ok((own()? == 0).then_some(()));
    wait::until("the ring buffer to go", Duration::from_secs(10), is_gone).await?;
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_on_a_map_that_is_not_listed_yet_go_to_who_wants_it_alone() -> Result<()> {
    const ROUNDS: u64 = 500;
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let by_name = |name: &str| {
        format!(
            "{{maps: [{{names: [{name}]}}], operations: [Lookup], aggregation: {{strategy: Direct}}}}"
        )
    };
    monitor.measure(vec![
        request("wanted", &by_name("called"))?,
        request("other", &by_name("nothing-is-so"))?,
    ])?;
    snapshot(&monitor, "a slice", "other", |_| true).await?;
    // Its map is new, and is read at once.
    let thread = Thread {
        operations: vec![Operation::Lookup],
        rounds: ROUNDS,
        cpus: vec![],
    };
    let mut caller = Caller::start(&Job {
        map_type: MapType::Hash,
        threads: vec![thread],
    })?;
    let id = caller.map_id();
    tokio::task::block_in_place(|| caller.work())?;
    drop(caller);
    let of_map = |it: &ProbeSnapshot| {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for (key, counted) in &it.cumulative {
            *counts.entry(key.map_id).or_default() += counted.until_user.count();
        }
        counts.get(&id).copied().unwrap_or(0)
    };
    let all = |it: &ProbeSnapshot| of_map(it) >= ROUNDS;
    let (wanted, others) = snapshot(&monitor, "every call", "wanted", all).await?;
    let exact = wanted.exact.iter().find(|it| it.map_id == id);
    let exact = exact.context("no exact figures")?;
    assert_eq!((exact.count, exact.missed), (ROUNDS, 0));
    let other = others.probes.iter().find(|it| it.name == "other");
    assert_eq!(other.context("the other probe")?.exact, []);
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_own_reads_are_not_handed_over() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let caller = Caller::start(&job(1, 1))?;
    let spec = format!(
        "{{maps: [{{ids: [{}]}}], activeReads: {{periodMilliseconds: 10}}, aggregation: {{strategy: Direct}}}}",
        caller.map_id()
    );
    monitor.measure(vec![request("reads", &spec)?])?;
    let by_readers = |it: &ProbeSnapshot| {
        let counts = it.readers.values().map(|it| it.until_user.count());
        counts.sum::<u64>() >= 20
    };
    let (probe, _) = snapshot(&monitor, "reads by the agent", "reads", by_readers).await?;
    assert_eq!(probe.exact, []);
    monitor.stop()?;
    Ok(())
}
