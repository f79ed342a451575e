//! The threads of one run: started together, pinned before anything is measured, all joined.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::args::Args;
use crate::clock::{self, MILLISECOND, SECOND};
use crate::cpu;
use crate::gate::Gate;
use crate::hog;
use crate::map::DemoMap;
use crate::reader::{self, Plan, Reading};
use crate::record::Record;
use crate::refresher::{self, Refreshes};

/// The most reads for which memory is reserved without having been asked for by number.
const MOST_READS: u64 = 64_000_000;

/// The same of a run that only a signal ends: over five minutes at the default rate.
const ENDLESS_READS: u64 = 16_000_000;

/// A little above what the fastest machines read in a second.
const FASTEST: u64 = 4_000_000;

/// From opening the gate to the start that all threads share, so that none of them is late.
const HEAD_START: u64 = 2 * MILLISECOND;

/// A run that has not begun.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    map: &'a DemoMap,
    plan: Plan,
    record: Record,
    reader_cpu: usize,
    refresher: Option<(usize, Duration)>,
    hogs: Hogs,
    clock_cost: u64,
}

#[derive(Clone, Copy, Debug)]
struct Hogs {
    count: u16,
    cpu: usize,
    run: Duration,
    sleep: Duration,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What the reader did.
    pub(crate) reading: Reading,
    /// What the refresher did, and on which CPU.
    pub(crate) refreshes: Option<(usize, Refreshes)>,
    /// One clock reading's cost, in nanoseconds.
    pub(crate) clock_cost: u64,
}

/// Where a started session is controlled from.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    gate: &'a Gate,
    finished: &'a PipeReader,
}

impl Running<'_> {
    /// Starts the reads.
    pub(crate) fn begin(&self) {
        self.gate.open(clock::now() + HEAD_START);
    }
}

impl AsFd for Running<'_> {
    /// Becomes ready when the reader ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.finished.as_fd()
    }
}

impl<'a> Session<'a> {
    /// Prepares a run and reserves its memory.
    pub(crate) fn new(args: &Args, map: &'a DemoMap) -> Result<Self> {
        let plan = Plan {
            rate: args.rate,
            reads: args.reads,
            duration: args.duration.map(nanoseconds),
        };
        let capacity = usize::try_from(capacity(plan)).context("too many reads")?;
        Ok(Self {
            map,
            plan,
            record: Record::new(capacity, plan.rate > 0)?,
            reader_cpu: args.reader_cpu,
            refresher: (!args.no_refresh).then(|| {
                let cpu = args.refresher_cpu.unwrap_or(args.reader_cpu);
                (cpu, args.refresh_period)
            }),
            hogs: Hogs {
                count: args.hogs,
                cpu: args.hog_cpu.unwrap_or(args.reader_cpu),
                run: args.hog_run,
                sleep: args.hog_sleep,
            },
            clock_cost: clock::cost(),
        })
    }

    /// Starts the threads, lets `conduct` begin and wait, then stops the threads.
    pub(crate) fn run(self, conduct: impl FnOnce(Running<'_>) -> Result<()>) -> Result<Outcome> {
        let stop = AtomicBool::new(false);
        let gate = Gate::default();
        let (finished, finish) = io::pipe().context("could not open a pipe")?;
        thread::scope(|scope| {
            let crew = self.start(scope, &gate, &stop, finish);
            let conducted = crew.and_then(|crew| {
                conduct(Running {
                    gate: &gate,
                    finished: &finished,
                })
                .map(|()| crew)
            });
            // Also on the way out with an error, or the scope would wait for ever.
            stop.store(true, Ordering::Relaxed);
            gate.abandon();
            conducted?.join()
        })
    }

    fn start<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        gate: &'scope Gate,
        stop: &'scope AtomicBool,
        finish: PipeWriter,
    ) -> Result<Crew<'scope>>
    where
        'a: 'scope,
    {
        let Self {
            map,
            plan,
            record,
            reader_cpu,
            refresher,
            hogs,
            clock_cost,
        } = self;
        let (ready, pinned) = channel();
        let crew = Starter { scope, gate, ready };
        let reader = crew.start("demo-reader", reader_cpu, move |origin| {
            // Closed when the thread ends, by whatever way, and that wakes the main thread.
            let _finish = finish;
            reader::read(map, plan, record, origin, stop)
        })?;
        let refresher = refresher
            .map(|(cpu, period)| {
                let body = move |origin| refresher::refresh(map, period, origin, stop);
                crew.start("demo-refresher", cpu, body)
                    .map(|thread| (cpu, thread))
            })
            .transpose()?;
        for _ in 0..hogs.count {
            crew.start("demo-hog", hogs.cpu, move |_| {
                hog::burn(hogs.run, hogs.sleep, stop);
            })?;
        }
        drop(crew);
        // Ends when every thread has reported and dropped its end.
        pinned.iter().collect::<Result<()>>()?;
        Ok(Crew {
            reader,
            refresher,
            clock_cost,
        })
    }
}

/// Handles of a thread that returns nothing if the run was abandoned before it began.
type Handle<'scope, T> = ScopedJoinHandle<'scope, Option<T>>;

struct Crew<'scope> {
    reader: Handle<'scope, Result<Reading>>,
    refresher: Option<(usize, Handle<'scope, Refreshes>)>,
    clock_cost: u64,
}

impl Crew<'_> {
    /// Waits for the threads, which were told to stop. The scope waits for the hogs.
    fn join(self) -> Result<Outcome> {
        let Self {
            reader,
            refresher,
            clock_cost,
        } = self;
        if let Some((_, refresher)) = &refresher {
            refresher.thread().unpark();
        }
        Ok(Outcome {
            reading: join(reader, "reader")??,
            refreshes: refresher
                .map(|(cpu, thread)| Ok::<_, anyhow::Error>((cpu, join(thread, "refresher")?)))
                .transpose()?,
            clock_cost,
        })
    }
}

fn join<T>(thread: Handle<'_, T>, name: &str) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("the {name} panicked"))?
        .with_context(|| format!("the {name} never began"))
}

struct Starter<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    gate: &'scope Gate,
    ready: Sender<Result<()>>,
}

impl<'scope> Starter<'scope, '_> {
    /// Starts a thread that pins itself, reports, and goes on when the gate opens.
    fn start<T: Send + 'scope>(
        &self,
        name: &str,
        cpu: usize,
        body: impl FnOnce(u64) -> T + Send + 'scope,
    ) -> Result<Handle<'scope, T>> {
        let (gate, ready) = (self.gate, self.ready.clone());
        thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(self.scope, move || {
                let pinned = cpu::pin(cpu);
                // Fails only if the main thread has given up, and then the gate tells.
                let _ = ready.send(pinned);
                drop(ready);
                gate.wait().map(body)
            })
            .with_context(|| format!("could not start the thread {name}"))
    }
}

/// For how many reads there has to be memory.
fn capacity(plan: Plan) -> u64 {
    let Plan {
        rate,
        reads,
        duration,
    } = plan;
    let per_second = if rate == 0 { FASTEST } else { rate };
    let by_time = duration.map(|duration| {
        let reads = u128::from(duration) * u128::from(per_second) / u128::from(SECOND) + 1;
        u64::try_from(reads).unwrap_or(u64::MAX).min(MOST_READS)
    });
    match (reads, by_time) {
        (Some(reads), Some(by_time)) => reads.min(by_time),
        (Some(reads), None) => reads,
        (None, Some(by_time)) => by_time,
        (None, None) => ENDLESS_READS,
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(rate: u64, reads: Option<u64>, seconds: Option<u64>) -> u64 {
        capacity(Plan {
            rate,
            reads,
            duration: seconds.map(|it| it * SECOND),
        })
    }

    #[test]
    fn memory_is_reserved_for_what_the_run_can_need() {
        assert_eq!(room(50_000, Some(7), None), 7);
        assert_eq!(room(50_000, None, Some(10)), 500_001);
        assert_eq!(room(50_000, Some(100), Some(10)), 100);
        assert_eq!(room(50_000, None, None), ENDLESS_READS);
    }

    #[test]
    fn memory_is_bounded_however_long_the_run() {
        assert_eq!(room(0, None, Some(10)), 10 * FASTEST + 1);
        assert_eq!(room(0, None, Some(3_600)), MOST_READS);
        assert_eq!(room(10_000_000, None, Some(365 * 86_400)), MOST_READS);
    }
}
