//! A process that calls bpf(2) exactly as often as a test asks for, in the ways that are hard to count.
//!
//! It has to be another process, since the agent leaves its own operations out. `maplatency-caller` takes a [`Job`] as
//! JSON, makes the map, says a line, waits for a line, works, says another line, and ends when its stdin does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use maplatency_bpf::sys::{self, Map, MapSpec, UpdateFlags};
use maplatency_core::vocabulary::{MapType, Operation};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid};
use serde::{Deserialize, Serialize};

use crate::process::workspace_binary;

/// Entries of the map.
const ENTRIES: u32 = 64;
/// Entries that stay unused: an update that is preempted keeps the one that it replaces, and another then finds the map full.
const SPARE: u32 = 16;
/// Entries of a batch. More than a bucket ever holds here, which a batch has to have room for.
const BATCH: u32 = 32;

/// What a caller does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Type of its map.
    pub map_type: MapType,
    /// Its threads, which all work at the same time.
    pub threads: Vec<Thread>,
}

/// What one thread of it does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Thread {
    /// What it calls in each round.
    pub operations: Vec<Operation>,
    /// How many rounds.
    pub rounds: u64,
    /// None: any CPU. One: pinned there. Several: another thread moves it from one to the next all the time.
    pub cpus: Vec<usize>,
}

/// What a caller says before it works.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ready {
    map_id: u32,
}

/// What a caller says after its work.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Done {
    /// How often a thread was moved to another CPU.
    pub moves: u64,
}

/// A running caller. It ends when this is dropped.
#[derive(Debug)]
pub struct Caller {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    map_id: u32,
}

impl Caller {
    /// Starts it. It makes its map, with entries in it, and waits.
    pub fn start(job: &Job) -> Result<Self> {
        Self::spawn(&[&serde_json::to_string(job)?])
    }

    /// Starts one that updates a map of maps so often. The kernel waits in each until no program can use the old map.
    pub fn sleeper(times: u64) -> Result<Self> {
        Self::spawn(&["sleep", &times.to_string()])
    }

    fn spawn(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(workspace_binary("maplatency-caller")?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the caller")?;
        let stdin = child.stdin.take().context("the caller has no stdin")?;
        let stdout = child.stdout.take().context("the caller has no stdout")?;
        let mut caller = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            map_id: 0,
        };
        let Ready { map_id } = caller.answer()?;
        caller.map_id = map_id;
        Ok(caller)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The id of its map.
    pub fn map_id(&self) -> u32 {
        self.map_id
    }

    /// Lets it work, and waits until it has. Its map stays.
    pub fn work(&mut self) -> Result<Done> {
        writeln!(self.stdin).context("could not start the caller's work")?;
        self.answer()
    }

    fn answer<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        serde_json::from_str(&line).context("the caller ended early; its own message is above")
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program's side: does the job.
pub fn run(job: &Job) -> Result<()> {
    let map = create(job.map_type)?;
    when_asked(&map, || work(&map, &job.threads))
}

/// The program's side of a sleeper.
pub fn sleep(times: u64) -> Result<()> {
    let inner = create(MapType::Array)?;
    let spec = MapSpec {
        name: "sleeps",
        map_type: sys::MapType(MapType::ArrayOfMaps.number()),
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        flags: 0,
    };
    let outer = Map::create_outer(&spec, &inner)?;
    let descriptor = u32::try_from(inner.as_fd().as_raw_fd())?.to_ne_bytes();
    when_asked(&outer, || {
        for _ in 0..times {
            outer.update(&0u32.to_ne_bytes(), &descriptor, UpdateFlags::Any)?;
        }
        Ok(0)
    })
}

fn when_asked(map: &Map, work: impl FnOnce() -> Result<u64>) -> Result<()> {
    say(&Ready { map_id: map.id()? })?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    ensure!(!line.is_empty(), "nobody wants the work any more");
    let moves = work()?;
    say(&Done { moves })?;
    // The map is looked at until the other side has seen enough.
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

/// The program's side where there is no job: looks key 0 up.
pub fn look_up(map_id: u32, times: u64) -> Result<()> {
    let map = Map::from_id(map_id)?;
    let mut value = vec![0; map.value_size()];
    for _ in 0..times {
        map.lookup(&0u32.to_ne_bytes(), &mut value)?;
    }
    Ok(())
}

fn say<T: Serialize>(words: &T) -> Result<()> {
    println!("{}", serde_json::to_string(words)?);
    Ok(())
}

fn create(map_type: MapType) -> Result<Map> {
    let map = Map::create(&MapSpec {
        name: "called",
        map_type: sys::MapType(map_type.number()),
        key_size: 4,
        value_size: 8,
        max_entries: ENTRIES + SPARE,
        flags: 0,
    })?;
    let value = vec![1; map.value_size()];
    for key in 0..ENTRIES {
        map.update(&key.to_ne_bytes(), &value, UpdateFlags::Any)?;
    }
    Ok(map)
}

/// Lets all threads work at once. Gives how often they were moved.
fn work(map: &Map, threads: &[Thread]) -> Result<u64> {
    let begin = Barrier::new(threads.len());
    thread::scope(|scope| {
        let started: Vec<_> = threads
            .iter()
            .map(|it| scope.spawn(|| one(map, it, &begin)))
            .collect();
        let mut moves = 0;
        for worker in started {
            match worker.join() {
                Ok(of_this) => moves += of_this?,
                Err(_) => bail!("a thread of the caller panicked"),
            }
        }
        Ok(moves)
    })
}

fn one(map: &Map, job: &Thread, begin: &Barrier) -> Result<u64> {
    if let [cpu] = job.cpus[..] {
        pin(Pid::from_raw(0), cpu)?;
    }
    let mut buffers = Buffers::new(map);
    let this = gettid();
    let (calls, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    begin.wait();
    thread::scope(|scope| {
        let is_moved = job.cpus.len() > 1;
        let mover = is_moved.then(|| scope.spawn(|| keep_moving(this, &job.cpus, &calls, &stop)));
        let outcome = (0..job.rounds).try_for_each(|round| {
            job.operations.iter().try_for_each(|it| {
                calls.fetch_add(1, Ordering::Relaxed);
                buffers.call(map, *it, round)
            })
        });
        stop.store(true, Ordering::Relaxed);
        outcome.and(mover.map_or(Ok(0), |it| it.join().expect("it does not panic")))
    })
}

/// Moves a thread after every call or few, wherever it is at that moment. Without a call in between a slow machine
/// would do nothing but move.
fn keep_moving(who: Pid, cpus: &[usize], calls: &AtomicU64, stop: &AtomicBool) -> Result<u64> {
    let (mut moves, mut before) = (0, 0);
    for cpu in cpus.iter().cycle() {
        pin(who, *cpu)?;
        moves += 1;
        while calls.load(Ordering::Relaxed) == before && !stop.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        before = calls.load(Ordering::Relaxed);
    }
    Ok(moves)
}

pub(crate) fn pin(thread: Pid, cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(thread, &only).with_context(|| format!("could not pin a thread to CPU {cpu}"))
}

/// What the calls read and write.
struct Buffers {
    value: Vec<u8>,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl Buffers {
    fn new(map: &Map) -> Self {
        Self {
            value: vec![1; map.value_size()],
            keys: (0..BATCH).flat_map(u32::to_ne_bytes).collect(),
            values: vec![1; map.value_size() * BATCH as usize],
        }
    }

    /// One bpf(2) call. An entry that is not there is an answer and no error.
    fn call(&mut self, map: &Map, operation: Operation, round: u64) -> Result<()> {
        let number = u32::try_from(round % u64::from(ENTRIES)).expect("there are few entries");
        let key = &number.to_ne_bytes()[..];
        let mut cursor = map.batch_cursor();
        let mut next = [0; 4];
        // The keys that a batch brings back are not those of the next batch of updates.
        let mut read = self.keys.clone();
        match operation {
            Operation::Lookup => map.lookup(key, &mut self.value).map(drop),
            Operation::LookupAndDelete => map.lookup_and_delete(key, &mut self.value).map(drop),
            Operation::GetNextKey => map.next_key(Some(key), &mut next).map(drop),
            Operation::Update => map.update(key, &self.value, UpdateFlags::Any),
            Operation::Delete => map.delete(key).map(drop),
            Operation::LookupBatch => map
                .lookup_batch(&mut cursor, &mut read, &mut self.values)
                .map(drop),
            Operation::LookupAndDeleteBatch => map
                .lookup_and_delete_batch(&mut cursor, &mut read, &mut self.values)
                .map(drop),
            Operation::UpdateBatch => map.update_batch(&self.keys, &self.values, UpdateFlags::Any),
            Operation::DeleteBatch => map.delete_batch(&self.keys).map(drop),
        }
        .with_context(|| format!("{operation} in round {round}"))
    }
}
