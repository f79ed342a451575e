//! Every operation of every job is counted, each once.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use maplatency_agent::monitor::{Monitor, ProbeSnapshot, Snapshot};
use maplatency_core::vocabulary::{MapType, Operation, Outcome};
use maplatency_e2e::caller::{Caller, Done, Job};
use maplatency_e2e::measure::{both_sides, request, snapshot, total};
use maplatency_e2e::not_run;

use crate::{KERNEL, losses, may_hide, may_skip, start, tells_skips, thread};

/// What the probes counted of a job, once they counted at least as much as was done.
struct Counted {
    by_operation: BTreeMap<Operation, u64>,
    by_cpu: BTreeMap<u32, u64>,
    by_outcome: BTreeMap<(Operation, Outcome), u64>,
    entries: BTreeMap<Operation, u64>,
    moved: u64,
    lost: BTreeMap<String, u64>,
    done: Done,
}

/// Does a job while the probes measure its map.
async fn counted(monitor: &Monitor, name: &str, job: &Job) -> Result<Counted> {
    let calls: u64 = job
        .threads
        .iter()
        .map(|it| it.rounds * it.operations.len() as u64)
        .sum();
    let mut caller = Caller::start(job)?;
    let all: Vec<_> = Operation::ALL.iter().map(ToString::to_string).collect();
    let spec = format!(
        "{{maps: [{{ids: [{}]}}], operations: [{}]}}",
        caller.map_id(),
        all.join(", ")
    );
    let before = monitor.snapshots().borrow().losses.clone();
    monitor.measure(vec![request(name, &spec)?])?;
    snapshot(monitor, "the caller's map", name, |it| it.maps.len() == 1).await?;
    let done = tokio::task::block_in_place(|| caller.work())?;
    let (probe, after) = settled(monitor, name, calls, &before).await?;
    let mut counted = Counted {
        by_operation: BTreeMap::new(),
        by_cpu: BTreeMap::new(),
        by_outcome: BTreeMap::new(),
        entries: BTreeMap::new(),
        moved: 0,
        lost: losses(&before, &after),
        done,
    };
    for (key, counts) in &probe.cumulative {
        let count = counts.until_user.count();
        assert_eq!(
            count,
            counts.kernel_window.count(),
            "both latencies or none"
        );
        *counted.by_operation.entry(key.operation).or_default() += count;
        *counted.by_cpu.entry(key.cpu).or_default() += count;
        let outcome = (key.operation, key.outcome);
        *counted.by_outcome.entry(outcome).or_default() += count;
        if key.operation.is_batch() {
            *counted.entries.entry(key.operation).or_default() += counts.entries;
        }
        counted.moved += counts.moved;
    }
    Ok(counted)
}

/// Waits until all calls of threads that have ended are counted or lost, as far as that is told, and one slice longer, in which nothing may be counted twice.
async fn settled(
    monitor: &Monitor,
    name: &str,
    calls: u64,
    before: &BTreeMap<String, u64>,
) -> Result<(ProbeSnapshot, Arc<Snapshot>)> {
    let told = tells_skips(monitor);
    let (_, mut last) = snapshot(monitor, "every call", name, |it| {
        let lost: u64 = losses(before, &monitor.snapshots().borrow()).values().sum();
        !told || total(it).until_user.count() + lost >= calls
    })
    .await?;
    let mut snapshots = monitor.snapshots();
    // Where not all is told, a slice that had drained before the last call may be shown only now.
    for _ in 0..if told { 1 } else { 2 } {
        while snapshots.borrow_and_update().taken <= last.taken {
            snapshots.changed().await?;
        }
        last = Arc::clone(&snapshots.borrow());
    }
    match last.probes.iter().find(|it| it.name == name) {
        Some(probe) => Ok((probe.clone(), last)),
        None => bail!("the probe {name} has gone"),
    }
}

/// Does a job of which every call has to be counted.
async fn exactly(monitor: &Monitor, name: &str, job: &Job) -> Result<Counted> {
    let counted = counted(monitor, name, job).await?;
    let mut expected: BTreeMap<Operation, u64> = BTreeMap::new();
    for thread in &job.threads {
        for operation in &thread.operations {
            *expected.entry(*operation).or_default() += thread.rounds;
        }
    }
    if may_skip(monitor) {
        return at_most(monitor, name, counted, &expected);
    }
    assert_eq!(
        counted.by_operation, expected,
        "{name}: lost {:?}",
        counted.lost
    );
    assert_eq!(counted.lost, BTreeMap::new(), "{name}");
    Ok(counted)
}

/// Holds what was counted against what was called where the kernel may skip hooks: no operation twice, and not more of
/// them missing than losses are told.
fn at_most(
    monitor: &Monitor,
    name: &str,
    counted: Counted,
    expected: &BTreeMap<Operation, u64>,
) -> Result<Counted> {
    let lost: u64 = counted.lost.values().sum();
    let mut missing = 0;
    for (operation, expected) in expected {
        let seen = counted.by_operation.get(operation).copied().unwrap_or(0);
        assert!(
            seen <= *expected,
            "{name}: {seen} of {expected} {operation}"
        );
        missing += expected - seen;
    }
    if tells_skips(monitor) {
        let lost_of = &counted.lost;
        assert!(
            missing <= lost,
            "{name}: {missing} are missing, and {lost_of:?} lost"
        );
    } else {
        let reason = "this kernel does not tell which tracepoints it skips; 6.7 does";
        not_run("the losses of Tracepoint", reason)?;
    }
    Ok(counted)
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_are_counted_exactly_on_maps_of_every_kind() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    for map_type in [
        MapType::Hash,
        MapType::PerCpuHash,
        MapType::LruHash,
        MapType::LruPerCpuHash,
        MapType::Array,
        MapType::PerCpuArray,
    ] {
        let threads = vec![thread(&[Operation::Lookup], 20_000, &[])];
        exactly(&monitor, map_type.as_str(), &Job { map_type, threads }).await?;
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_is_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    for map_type in [MapType::Hash, MapType::PerCpuHash, MapType::LruHash] {
        let threads = vec![thread(&Operation::ALL, 1_000, &[])];
        exactly(&monitor, map_type.as_str(), &Job { map_type, threads }).await?;
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_and_entries_are_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    // The map has 64 entries, and a batch 32.
    let once = [
        (Operation::Delete, 128, 0),
        (Operation::LookupAndDelete, 128, 0),
        (Operation::UpdateBatch, 100, 3_200),
        (Operation::DeleteBatch, 1, 32),
    ];
    for (operation, rounds, entries) in once {
        let job = Job {
            map_type: MapType::Hash,
            threads: vec![thread(&[operation], rounds, &[0])],
        };
        let counted = exactly(&monitor, operation.as_str(), &job).await?;
        if may_skip(&monitor) {
            continue;
        }
        let expected = if operation.is_batch() {
            assert_eq!(counted.entries, BTreeMap::from([(operation, entries)]));
            BTreeMap::from([((operation, Outcome::Success), rounds)])
        } else {
            BTreeMap::from([
                ((operation, Outcome::Success), 64),
                ((operation, Outcome::NotFound), rounds - 64),
            ])
        };
        assert_eq!(counted.by_outcome, expected);
        assert_eq!(counted.moved, 0, "{operation}");
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_on_two_cpus_at_once_are_counted_exactly_and_each_on_its_own() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let job = Job {
        map_type: MapType::PerCpuHash,
        threads: vec![
            thread(&[Operation::Lookup], 30_000, &[0]),
            thread(&[Operation::Lookup, Operation::GetNextKey], 10_000, &[1]),
        ],
    };
    let counted = exactly(&monitor, "two CPUs", &job).await?;
    let expected = BTreeMap::from([(0, 30_000), (1, 20_000)]);
    if may_skip(&monitor) {
        // `exactly` has held the losses against what is missing.
        let within = |(cpu, count): (&u32, &u64)| expected.get(cpu).is_some_and(|it| count <= it);
        assert!(counted.by_cpu.iter().all(within), "{:?}", counted.by_cpu);
    } else {
        assert_eq!(counted.by_cpu, expected);
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_are_moved_between_cpus_all_the_time_are_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let job = Job {
        map_type: MapType::PerCpuHash,
        threads: vec![
            thread(
                &[Operation::Lookup, Operation::LookupBatch],
                20_000,
                &[0, 1],
            ),
            thread(&[Operation::Lookup], 50_000, &[1, 0]),
        ],
    };
    // A fast machine is done before the threads were moved often.
    let mut moves = 0;
    for attempt in 0..10 {
        let counted = exactly(&monitor, &format!("moved {attempt}"), &job).await?;
        ensure!(counted.by_cpu.len() == 2, "{:?}", counted.by_cpu);
        moves += counted.done.moves;
        if moves >= 100 {
            break;
        }
    }
    ensure!(moves >= 100, "moved {moves} times");
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_that_end_right_after_a_call_are_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let job = Job {
        map_type: MapType::Hash,
        threads: vec![thread(&[Operation::Lookup], 3, &[]); 200],
    };
    exactly(&monitor, "short lives", &job).await?;
    monitor.stop()?;
    Ok(())
}

/// With full preemption the hogs stop the reader inside of the call, else on its way back.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_beside_hogs_is_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let arguments = "--rate 0 --no-refresh --reader-cpu 1 --entries 1000 --reads 50000 \
                     --hogs 3 --hog-run 400us --hog-sleep 400us";
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let sides = both_sides(&monitor, "hogs", &arguments).await?;
    let (seen, reads) = (sides.seen.until_user.count(), sides.truth.reads);
    assert_eq!(sides.seen.kernel_window.count(), seen);
    if may_hide() {
        assert!(seen <= reads && reads <= seen + sides.lost, "{sides:?}");
    } else {
        assert_eq!((seen, sides.lost), (reads, 0));
    }
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_writers_of_one_cpu_are_counted_exactly() -> Result<()> {
    let _alone = KERNEL.lock().await;
    let monitor = start()?;
    let job = Job {
        map_type: MapType::PerCpuHash,
        threads: vec![
            thread(&[Operation::Lookup], 20_000, &[0]),
            thread(&[Operation::Update, Operation::Delete], 10_000, &[0]),
            thread(
                &[Operation::UpdateBatch, Operation::LookupBatch],
                2_000,
                &[0],
            ),
        ],
    };
    exactly(&monitor, "one CPU", &job).await?;
    monitor.stop()?;
    Ok(())
}
