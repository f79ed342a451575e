//! The kernel tests on other kernels: a machine for each, several at a time, and a table of what came out.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use maplatency_bpf::Tier;

use crate::workspace;

use super::image::{self, Contents};
use super::kernels::{Cache, Kernel};
use super::machine::{Ended, Machine, Pace};
use super::plan::{Preempt, Selection};
use super::report::{Report, Section};
use super::table::{self, Row};
use super::{Build, Programs};

/// Test programs that run inside for each tier of hooks. None of them compares times.
const EACH: &[&str] = &["anykernel"];
/// Those that run once.
const ONCE: &[&str] = &["sys", "discovery", "selectors", "readers", "leftovers"];
/// Programs that the tests start, beside the agent.
const OTHERS: &[&str] = &["maplatency-workload", "maplatency-caller"];

/// What to run.
#[derive(Debug)]
pub struct Suite {
    /// Which kernels, and how.
    pub kernels: Selection,
    /// Machines at a time. `None`: as many as there are CPUs.
    pub jobs: Option<NonZeroUsize>,
    /// How long a machine may run.
    pub limit: Duration,
    /// Where logs go.
    pub logs: PathBuf,
}

/// One machine to run.
struct Run {
    kernel: Kernel,
    preempt: Preempt,
    image: PathBuf,
}

impl Suite {
    /// Runs the tests and writes the table into the documentation. Whether all was well.
    pub fn run(&self) -> Result<bool> {
        let cache = Cache::of_user()?;
        let runs = self
            .kernels
            .runs(&cache.newest()?)?
            .into_iter()
            .map(|(kernel, preempt)| {
                let image = cache.get(&kernel)?;
                Ok(Run {
                    kernel,
                    preempt,
                    image,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let logs = super::folder(&self.logs)?;
        let initramfs = logs.join("initramfs");
        write_image(&initramfs)?;

        let begin = Instant::now();
        let reports = self.all(&runs, &initramfs, &logs)?;
        let bad = reports.iter().filter(|it| !it.is_good()).count();
        let rows: Vec<Row> = runs.iter().zip(&reports).flat_map(rows_of).collect();
        let document = workspace().join("docs/compatibility.md");
        table::write(&document, &rows, self.kernels == Selection::All)?;
        println!(
            "{} of {} machines are good after {} s; docs/compatibility.md has the table",
            runs.len() - bad,
            runs.len(),
            begin.elapsed().as_secs()
        );
        Ok(bad == 0)
    }

    /// Runs every machine, as many at a time as asked for, and gives their reports in the order of `runs`.
    fn all(&self, runs: &[Run], initramfs: &Path, logs: &Path) -> Result<Vec<Report>> {
        let jobs = match self.jobs {
            Some(jobs) => jobs,
            None => thread::available_parallelism().context("could not count the CPUs")?,
        };
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(run) = runs.get(index) else {
                    return Ok(done);
                };
                let machine = Machine {
                    kernel: &run.image,
                    initramfs,
                    preempt: run.preempt,
                    logs: &logs.join(format!("{}-{}", run.kernel.release, run.preempt)),
                    limit: self.limit,
                    pace: Pace::Host,
                };
                done.push((index, one(&machine, &run.kernel)?));
            }
        };
        let mut reports = thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs.get().min(runs.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let mut reports = Vec::new();
            for worker in workers {
                let done: Result<Vec<(usize, Report)>> = worker
                    .join()
                    .map_err(|_| anyhow!("a thread that ran a machine panicked"))?;
                reports.extend(done?);
            }
            anyhow::Ok(reports)
        })?;
        reports.sort_by_key(|(index, _)| *index);
        Ok(reports.into_iter().map(|it| it.1).collect())
    }
}

/// Writes what the tests need into an initramfs.
fn write_image(to: &Path) -> Result<()> {
    let programs = Programs::build(Build::Tests)?;
    let each = programs.tests(EACH)?;
    let once = programs.tests(ONCE)?;
    let agent = programs.binary("maplatency-agent")?;
    let tiers: Vec<_> = Tier::ALL.iter().map(ToString::to_string).collect();
    let examples = workspace().join("examples");
    let paths = |paths: &[PathBuf]| {
        let paths: Vec<_> = paths.iter().map(|it| it.display().to_string()).collect();
        paths.join(" ")
    };
    let settings = format!(
        "agent='{}'\nexample='{}'\ntiers='{}'\neach='{}'\nonce='{}'\n",
        agent.display(),
        examples.join("minimal.yaml").display(),
        tiers.join(" "),
        paths(&each),
        paths(&once),
    );
    let others = OTHERS.iter().map(|it| programs.binary(it));
    let contents = Contents {
        job: include_str!("suite.sh"),
        settings,
        programs: others
            .chain(each.into_iter().chain(once).chain([agent]).map(Ok))
            .collect::<Result<_>>()?,
        files: image::files_of(&examples)?,
    };
    image::write(&contents, to)
}

fn one(machine: &Machine<'_>, kernel: &Kernel) -> Result<Report> {
    let Machine { preempt, .. } = machine;
    let name = format!("{} preempt={preempt}", kernel.release);
    println!(
        "{name} begins; its console: {}",
        machine.console().display()
    );
    let ended = machine.run()?;
    let report = Report::of(&ended, *preempt);
    // At once, since another machine may end in between.
    println!("{}", told(&name, &ended, &report, machine));
    Ok(report)
}

fn told(name: &str, ended: &Ended, report: &Report, machine: &Machine<'_>) -> String {
    let (boot, took) = (ended.boot.as_secs(), ended.took.as_secs());
    let mut lines = vec![format!("=== {name}: boot {boot} s, all {took} s")];
    for section in &report.sections {
        lines.push(format!("{:10}  {}", section.tier, section.sentence()));
    }
    lines.extend(report.problems.iter().cloned());
    if !report.is_good() {
        lines.push(format!("its console: {}", machine.console().display()));
    }
    lines.join("\n")
}

fn rows_of((run, report): (&Run, &Report)) -> Vec<Row> {
    let row = |section: &Section| Row {
        kernel: run.kernel.clone(),
        preempt: run.preempt,
        tier: section.tier.clone(),
        result: section.sentence(),
    };
    report.sections.iter().map(row).collect()
}
