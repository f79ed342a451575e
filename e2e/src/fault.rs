//! A process that calls bpf(2) where measuring it may go wrong: maps that go amid a call, threads that die in one,
//! calls that are no calls, maps by the thousand.
//!
//! It has to be another process, since the agent leaves its own operations out. `maplatency-fault` takes a [`Fault`] as
//! JSON, says a line with the id of its map, waits for a line, does it, says another line, and ends when its stdin does.

mod maps;
mod outcomes;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use maplatency_bpf::sys::{self, Map, MapSpec, UpdateFlags, command};
use maplatency_core::vocabulary::MapType;
use nix::unistd::{Pid, gettid};
use serde::{Deserialize, Serialize};

pub use outcomes::OUTCOMES;

use crate::caller::pin;
use crate::process::workspace_binary;

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Fault {
    /// Update a map so often, each time by a descriptor that another thread closes meanwhile.
    CloseAmidCall(u64),
    /// Read batches, and let another thread execute a program meanwhile. The file gets two numbers of eight bytes: calls
    /// begun, and calls ended.
    ExecAmidBatch(PathBuf),
    /// So often each call of [`BAD_CALLS`], and those of which the map is found.
    BadCalls(u64),
    /// Have so many maps, and look up in the last one a thousand times.
    ManyMaps(u32),
    /// Have so many maps, and look up in each of them so often.
    EachMap(u32, u64),
    /// Have a map of every type that can be made, named `typed_` and the type's number, and look up in each so often.
    EveryType(u64),
    /// So often each call of [`OUTCOMES`].
    EveryOutcome(u64),
    /// Update a map so often by a thread that another one moves from CPU 0 to CPU 1 meanwhile.
    MoveAmidCall(u64),
    /// Look up so often on each of the CPUs 0 and 1, at once and as fast as the kernel answers.
    FlatOut(u64),
}

/// Of each round of [`Fault::BadCalls`]: calls that name a map and succeed, and calls that name one and do not.
pub const BAD_CALLS: (u64, u64) = (2, 1);
/// Lookups in the last of many maps.
pub const LOOKUPS: u64 = 1_000;

/// After so long a call that takes milliseconds has begun and not ended.
const INTO_CALL: Duration = Duration::from_micros(500);

/// A running process. It ends when this is dropped.
#[derive(Debug)]
pub struct Faulty {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    map_id: u32,
}

impl Faulty {
    /// Starts it. It makes its maps, and waits.
    pub fn start(fault: &Fault) -> Result<Self> {
        let mut child = Command::new(workspace_binary("maplatency-fault")?)
            .arg(serde_json::to_string(fault)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start maplatency-fault")?;
        let stdin = child.stdin.take().context("it has no stdin")?;
        let stdout = child.stdout.take().context("it has no stdout")?;
        let mut this = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            map_id: 0,
        };
        this.map_id = this.answer()?.trim().parse().context("the map's id")?;
        Ok(this)
    }

    /// The id of the map that it calls.
    pub fn map_id(&self) -> u32 {
        self.map_id
    }

    /// Lets it work, and waits until it has, or is another program.
    pub fn work(&mut self) -> Result<()> {
        writeln!(self.stdin).context("could not start the work")?;
        self.answer().map(drop)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(!line.is_empty(), "it ended early; its own message is above");
        Ok(line)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program's side.
pub fn run(fault: &Fault) -> Result<()> {
    match fault {
        Fault::CloseAmidCall(times) => close_amid_call(*times),
        Fault::ExecAmidBatch(counts) => exec_amid_batch(counts),
        Fault::BadCalls(times) => bad_calls(*times),
        Fault::ManyMaps(count) => maps::many_maps(*count),
        Fault::EachMap(count, rounds) => maps::each_map(*count, *rounds),
        Fault::EveryType(rounds) => maps::every_type(*rounds),
        Fault::EveryOutcome(rounds) => outcomes::every_outcome(*rounds),
        Fault::MoveAmidCall(times) => move_amid_call(*times),
        Fault::FlatOut(times) => flat_out(*times),
    }
}

/// Says the map's id, does the work when it is asked to, says so, and ends with its stdin.
fn when_asked(map: &Map, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("{}", map.id()?);
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    ensure!(!line.is_empty(), "nobody wants the work any more");
    work()?;
    println!("done");
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

fn map(name: &str, map_type: MapType, max_entries: u32) -> Result<Map> {
    Ok(Map::create(&spec(name, map_type, max_entries))?)
}

fn spec(name: &str, map_type: MapType, max_entries: u32) -> MapSpec<'_> {
    MapSpec {
        name,
        map_type: sys::MapType(map_type.number()),
        key_size: 4,
        value_size: 4,
        max_entries,
        flags: 0,
    }
}

fn close_amid_call(times: u64) -> Result<()> {
    let inner = map("inner", MapType::Array, 1)?;
    // Its updates wait in the kernel for milliseconds.
    let outer = Map::create_outer(&spec("closed", MapType::ArrayOfMaps, 1), &inner)?;
    let value = u32::try_from(inner.as_fd().as_raw_fd())?.to_ne_bytes();
    when_asked(&outer, || {
        for _ in 0..times {
            // Never dropped: what it owns is closed below.
            let copy =
                std::mem::ManuallyDrop::new(Map::from_fd(outer.as_fd().try_clone_to_owned()?)?);
            let (copy, calls) = (&copy, AtomicBool::new(false));
            thread::scope(|scope| {
                let caller = scope.spawn(|| {
                    calls.store(true, Ordering::Release);
                    copy.update(&0u32.to_ne_bytes(), &value, UpdateFlags::Any)
                });
                while !calls.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                thread::sleep(INTO_CALL);
                nix::unistd::close(copy.as_fd().as_raw_fd())?;
                caller.join().expect("it does not panic")?;
                anyhow::Ok(())
            })?;
        }
        Ok(())
    })
}

fn exec_amid_batch(counts: &PathBuf) -> Result<()> {
    const ENTRIES: u32 = 16_384;
    const BATCHES: u64 = 60;
    let map = map("executed", MapType::Hash, ENTRIES)?;
    for key in 0..ENTRIES {
        map.update(&key.to_ne_bytes(), &[0; 4], UpdateFlags::Any)?;
    }
    let counts = File::create(counts)?;
    let ended = AtomicU64::new(0);
    when_asked(&map, || {
        let reader = || -> Result<()> {
            let mut keys = vec![0; 4 * ENTRIES as usize];
            let mut values = keys.clone();
            for call in 0u64.. {
                counts.write_at(&(call + 1).to_ne_bytes(), 0)?;
                map.lookup_batch(&mut map.batch_cursor(), &mut keys, &mut values)?;
                counts.write_at(&(call + 1).to_ne_bytes(), 8)?;
                ended.store(call + 1, Ordering::Relaxed);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let reader = scope.spawn(reader);
            while ended.load(Ordering::Relaxed) < BATCHES {
                ensure!(!reader.is_finished(), "the reader failed");
                thread::sleep(Duration::from_millis(10));
            }
            // Ends the other thread, wherever it is. What follows is said by the other program.
            let error = Command::new("/bin/sh")
                .args(["-c", "echo done; read line"])
                .exec();
            Err(error).context("could not execute a shell")
        })
    })
}

/// Lets a map be updated so often, and the thread that does so be moved from CPU 0 to CPU 1 each time.
fn move_amid_call(times: u64) -> Result<()> {
    let inner = map("inner", MapType::Array, 1)?;
    let outer = Map::create_outer(&spec("moved", MapType::ArrayOfMaps, 1), &inner)?;
    let value = u32::try_from(inner.as_fd().as_raw_fd())?.to_ne_bytes();
    let (calls, caller) = (AtomicBool::new(false), gettid());
    when_asked(&outer, || {
        for _ in 0..times {
            pin(caller, 0)?;
            calls.store(false, Ordering::Release);
            thread::scope(|scope| {
                let mover = scope.spawn(|| {
                    while !calls.load(Ordering::Acquire) {
                        thread::yield_now();
                    }
                    thread::sleep(INTO_CALL);
                    pin(caller, 1)
                });
                calls.store(true, Ordering::Release);
                outer.update(&0u32.to_ne_bytes(), &value, UpdateFlags::Any)?;
                mover.join().expect("it does not panic")
            })?;
        }
        Ok(())
    })
}

/// Lets a thread on either CPU look up so often, as fast as the kernel answers.
fn flat_out(times: u64) -> Result<()> {
    let map = map("flat_out", MapType::Array, 1)?;
    let map_fd = u32::try_from(map.as_fd().as_raw_fd())?;
    let begin = Barrier::new(2);
    let reader = |cpu| {
        pin(Pid::from_raw(0), cpu)?;
        let (key, mut value) = (0u32, 0u32);
        let attributes = Attributes {
            map_fd,
            padding: 0,
            key: &raw const key as u64,
            value: &raw mut value as u64,
            flags: 0,
            rest: [0; 28],
        };
        let attributes = std::ptr::from_ref(&attributes) as usize;
        begin.wait();
        for _ in 0..times {
            let answer = call(command::MAP_LOOKUP_ELEM, attributes, 32);
            ensure!(answer == Ok(()), "a lookup failed: {answer:?}");
        }
        Ok(())
    };
    when_asked(&map, || {
        thread::scope(|scope| {
            let both = [0, 1].map(|cpu| scope.spawn(move || reader(cpu)));
            let outcomes = both
                .into_iter()
                .map(|it| it.join().expect("it does not panic"));
            outcomes.collect()
        })
    })
}

/// `union bpf_attr` of an element command, and room behind it.
#[repr(C)]
struct Attributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
    rest: [u64; 28],
}

fn bad_calls(times: u64) -> Result<()> {
    let map = map("badly", MapType::Array, 1)?;
    let map_fd = u32::try_from(map.as_fd().as_raw_fd())?;
    let (key, mut value) = (0u32, 0u32);
    let good = Attributes {
        map_fd,
        padding: 0,
        key: &raw const key as u64,
        value: &raw mut value as u64,
        flags: 0,
        rest: [0; 28],
    };
    let with_fd = |map_fd| Attributes { map_fd, ..good };
    let [none, stdin, huge] = [u32::MAX, 0, i32::MAX.unsigned_abs()].map(with_fd);
    let lookup = command::MAP_LOOKUP_ELEM;
    when_asked(&map, || {
        for _ in 0..times {
            let at = |it: &Attributes| std::ptr::from_ref(it) as usize;
            for (command, attributes, size, expected) in [
                // The shortest attributes that hold all that is needed, and such as newer kernels may know.
                (lookup, at(&good), 24, Ok(())),
                (lookup, at(&good), size_of::<Attributes>(), Ok(())),
                // A map, but no key.
                (lookup, at(&good), 8, Err(libc::EFAULT)),
                (lookup, at(&none), 32, Err(libc::EBADF)),
                (lookup, at(&huge), 32, Err(libc::EBADF)),
                (lookup, at(&stdin), 32, Err(libc::EINVAL)),
                (lookup, at(&good), 0, Err(libc::EINVAL)),
                (lookup, 0, 32, Err(libc::EFAULT)),
                (lookup, 8, 32, Err(libc::EFAULT)),
                (lookup, at(&good), 1 << 20, Err(libc::E2BIG)),
                (command::MAP_LOOKUP_BATCH, at(&good), 32, Err(libc::EINVAL)),
                (9_999, at(&good), 32, Err(libc::EINVAL)),
            ] {
                let answer = call(command, attributes, size);
                ensure!(
                    answer == expected,
                    "command {command} with {size} bytes: {answer:?}, not {expected:?}"
                );
            }
        }
        Ok(())
    })
}

#[allow(unsafe_code, reason = "what a safe wrapper would not let through")]
fn call(command: u32, attributes: usize, size: usize) -> std::result::Result<(), i32> {
    // SAFETY: the kernel writes to the value's address alone, which lives as long as the attributes that name it.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    if answer >= 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}
