//! The program that reads, in a process of its own. It times every read itself, and keeps every time.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use maplatency_bpf::sys::{Map, MapSpec, MapType, UpdateFlags};
use maplatency_core::exact::ExactPercentiles;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

const ENTRIES: u64 = 64;
/// The reader, and who disturbs it, run there.
const CPU: usize = 0;
/// Reads that are later than this are left out and not made up for.
const LATE: Duration = Duration::from_millis(1);
/// Threads that compute all the time on the reader's CPU.
const HOGS: usize = 2;

/// How latencies are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Distribution {
    /// Short lookups that all do the same.
    Narrow,
    /// Four of five lookups miss, and the others copy 32 KiB.
    Modes,
    /// Lookups that copy 128 KiB one after the other, and now and then the CPU is taken away.
    Tail,
}

impl Distribution {
    pub(crate) const ALL: [Self; 3] = [Self::Narrow, Self::Modes, Self::Tail];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Narrow => "narrow",
            Self::Modes => "modes",
            Self::Tail => "tail",
        }
    }

    const fn value_size(self) -> u32 {
        match self {
            Self::Narrow => 8,
            Self::Modes => 32 * 1024,
            // A slice of the scheduler's holds some hundred reads, so that one in a thousand is no rarity.
            Self::Tail => 128 * 1024,
        }
    }

    /// Between the begins of two reads.
    const fn pace(self) -> Duration {
        match self {
            Self::Narrow | Self::Modes => Duration::from_micros(10),
            Self::Tail => Duration::ZERO,
        }
    }

    /// Reads for the error, for about two seconds: far fewer than `Direct` keeps.
    pub(crate) const fn reads(self) -> u64 {
        match self {
            Self::Narrow | Self::Modes => 200_000,
            Self::Tail => 50_000,
        }
    }

    /// The key of a read.
    const fn key(self, read: u64) -> u64 {
        match self {
            Self::Narrow | Self::Tail => read % ENTRIES,
            // Those from ENTRIES on are not there.
            Self::Modes if read.is_multiple_of(5) => read / 5 % ENTRIES,
            Self::Modes => ENTRIES + read % ENTRIES,
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much to read.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    For { milliseconds: u64 },
    Reads { count: u64 },
}

/// What the reader's own clock says, in nanoseconds, of all its reads.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Reads {
    pub(crate) count: u64,
    elapsed_nanoseconds: u64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
}

impl Reads {
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_nanoseconds)
    }
}

/// The running program. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    map_id: u32,
    distribution: Distribution,
}

impl Reader {
    pub(crate) fn start(distribution: Distribution) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["aggregation", "--reader", distribution.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the reader")?;
        let stdin = child.stdin.take().context("the reader has no stdin")?;
        let stdout = child.stdout.take().context("the reader has no stdout")?;
        let mut reader = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            map_id: 0,
            distribution,
        };
        reader.map_id = reader.answer()?;
        Ok(reader)
    }

    pub(crate) fn map_id(&self) -> u32 {
        self.map_id
    }

    pub(crate) fn distribution(&self) -> Distribution {
        self.distribution
    }

    /// Reads, and waits for the end.
    pub(crate) fn read(&mut self, job: &Job) -> anyhow::Result<Reads> {
        writeln!(self.stdin, "{}", serde_json::to_string(job)?)?;
        self.answer()
    }

    fn answer<T: for<'de> Deserialize<'de>>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        serde_json::from_str(&line).context("the reader ended early; its own message is above")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program's side.
pub(crate) fn serve(distribution: Distribution) -> anyhow::Result<()> {
    let map = Map::create(&MapSpec {
        name: "aggregation",
        map_type: MapType::HASH,
        key_size: 8,
        value_size: distribution.value_size(),
        max_entries: u32::try_from(ENTRIES)?,
        flags: 0,
    })?;
    let value = vec![1; map.value_size()];
    for key in 0..ENTRIES {
        map.update(&key.to_ne_bytes(), &value, UpdateFlags::Any)?;
    }
    println!("{}", map.id()?);
    pin()?;
    for line in std::io::stdin().lines() {
        let reads = job(&map, distribution, serde_json::from_str(&line?)?)?;
        println!("{}", serde_json::to_string(&reads)?);
    }
    Ok(())
}

/// Threads that are started later are pinned as well.
fn pin() -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(CPU)?;
    sched_setaffinity(Pid::from_raw(0), &only).context("could not pin the reader to CPU 0")
}

fn job(map: &Map, distribution: Distribution, job: Job) -> anyhow::Result<Reads> {
    if distribution != Distribution::Tail {
        return reads(map, distribution, job);
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..HOGS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let reads = reads(map, distribution, job);
        stop.store(true, Ordering::Relaxed);
        reads
    })
}

fn reads(map: &Map, distribution: Distribution, job: Job) -> anyhow::Result<Reads> {
    let mut value = vec![0; map.value_size()];
    let mut times = Vec::with_capacity(1 << 20);
    let began = Instant::now();
    let mut next = began;
    loop {
        let read = times.len() as u64;
        let is_over = match job {
            Job::For { milliseconds } => began.elapsed() >= Duration::from_millis(milliseconds),
            Job::Reads { count } => read >= count,
        };
        if is_over {
            break;
        }
        next += distribution.pace();
        let mut now = Instant::now();
        if now > next + LATE {
            next = now;
        }
        while now < next {
            now = Instant::now();
        }
        let key = distribution.key(read).to_ne_bytes();
        let asked = Instant::now();
        map.lookup(&key, &mut value)?;
        times.push(u64::try_from(asked.elapsed().as_nanos())?);
    }
    let elapsed = began.elapsed();
    let exact = ExactPercentiles::of(&mut times).context("there was no read")?;
    Ok(Reads {
        count: times.len() as u64,
        elapsed_nanoseconds: u64::try_from(elapsed.as_nanos())?,
        p50: exact.p50,
        p99: exact.p99,
        p999: exact.p999,
    })
}
