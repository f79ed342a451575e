//! The program that is measured: lookups in a loop, and system calls that have nothing to do with maps.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use maplatency_bpf::sys::{Map, MapSpec, MapType, UpdateFlags};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, getppid};

/// Entries of the map that is read.
pub(crate) const ENTRIES: u32 = 64;
/// Loops of about this length are timed, and the median of them counts: an interrupt spoils few.
const CHUNK: Duration = Duration::from_millis(2);
const CHUNKS: usize = 101;

/// Nanoseconds per call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Of a lookup that hits.
    pub(crate) read: f64,
    /// Of getppid(2).
    pub(crate) unrelated: f64,
    /// How many lookups there were.
    pub(crate) reads: u64,
}

/// A map and threads that read it, a thread pinned to each CPU.
///
/// The threads are there before any tool starts: perf does not follow those that a process starts later.
#[derive(Debug)]
pub(crate) struct Reader {
    map_id: u32,
    threads: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    /// Dropped to end the thread.
    go: Sender<()>,
    cost: Receiver<anyhow::Result<Cost>>,
}

impl Reader {
    /// Makes the map and the threads.
    pub(crate) fn new(value_size: u32, cpus: u32) -> anyhow::Result<Self> {
        let map = Arc::new(hash("bench", value_size)?);
        let map_id = map.id()?;
        let threads = (0..cpus)
            .map(|cpu| Worker::start(Arc::clone(&map), cpu))
            .collect();
        Ok(Self { map_id, threads })
    }

    pub(crate) fn map_id(&self) -> u32 {
        self.map_id
    }

    /// Reads on all the CPUs at once; the mean of them.
    pub(crate) fn run(&self) -> anyhow::Result<Cost> {
        for it in &self.threads {
            it.go.send(()).context("a thread that reads has ended")?;
        }
        let costs = self
            .threads
            .iter()
            .map(|it| it.cost.recv().context("a thread that reads panicked")?)
            .collect::<anyhow::Result<Vec<Cost>>>()?;
        let share = f64::from(u32::try_from(costs.len())?);
        Ok(Cost {
            read: costs.iter().map(|it| it.read).sum::<f64>() / share,
            unrelated: costs.iter().map(|it| it.unrelated).sum::<f64>() / share,
            reads: costs.iter().map(|it| it.reads).sum(),
        })
    }
}

/// A hash whose entries are all there.
pub(crate) fn hash(name: &str, value_size: u32) -> anyhow::Result<Map> {
    let map = Map::create(&MapSpec {
        name,
        map_type: MapType::HASH,
        key_size: 8,
        value_size,
        max_entries: ENTRIES,
        flags: 0,
    })?;
    let value = vec![1; map.value_size()];
    for key in 0..u64::from(ENTRIES) {
        map.update(&key.to_ne_bytes(), &value, UpdateFlags::Any)?;
    }
    Ok(map)
}

/// Keeps the calling thread on one CPU.
pub(crate) fn pin_to(cpu: u32) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu as usize)?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("could not pin a thread to CPU {cpu}"))
}

/// Runs something on a thread that is pinned to a CPU.
pub(crate) fn on_cpu<R: Send + 'static>(
    cpu: u32,
    work: impl FnOnce() -> R + Send + 'static,
) -> anyhow::Result<R> {
    let thread = thread::spawn(move || pin_to(cpu).map(|()| work()));
    thread.join().ok().context("a thread panicked")?
}

impl Worker {
    fn start(map: Arc<Map>, cpu: u32) -> Self {
        let (go, wanted) = channel::<()>();
        let (told, cost) = channel();
        thread::spawn(move || {
            // It ends when nobody asks, or listens, any more.
            for () in wanted {
                if told.send(run_on(&map, cpu)).is_err() {
                    break;
                }
            }
        });
        Self { go, cost }
    }
}

fn run_on(map: &Map, cpu: u32) -> anyhow::Result<Cost> {
    pin_to(cpu)?;
    let mut value = vec![0; map.value_size()];
    let (mut key, mut reads) = (0_u64, 0);
    let read = median_cost(|| {
        key = (key + 1) % u64::from(ENTRIES);
        reads += 1;
        map.lookup(&key.to_ne_bytes(), &mut value)
    });
    let unrelated = median_cost(getppid);
    Ok(Cost {
        read,
        unrelated,
        reads,
    })
}

/// Nanoseconds per call, as the median of many short loops.
fn median_cost<R>(mut call: impl FnMut() -> R) -> f64 {
    let mut calls = 1_u32;
    while time(calls, &mut call) < CHUNK && calls < 1 << 20 {
        calls *= 2;
    }
    let mut costs: Vec<f64> = (0..CHUNKS)
        .map(|_| time(calls, &mut call).as_secs_f64() * 1e9 / f64::from(calls))
        .collect();
    costs.sort_by(f64::total_cmp);
    costs[CHUNKS / 2]
}

fn time<R>(calls: u32, call: &mut impl FnMut() -> R) -> Duration {
    let began = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    began.elapsed()
}
