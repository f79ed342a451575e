//! `make vm-test`: runs the kernel tests on Debian's kernels in virtual machines, and writes down what came out.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use maplatency_e2e::vm::kernels::{Cache, Kernel};
use maplatency_e2e::vm::machine::Machine;
use maplatency_e2e::vm::plan::Selection;
use maplatency_e2e::vm::report::Report;
use maplatency_e2e::vm::table::Row;
use maplatency_e2e::vm::{Programs, image, table};
use maplatency_e2e::workspace;

/// Runs the kernel tests on Debian's kernels in virtual machines without KVM.
#[derive(Debug, Parser)]
struct Args {
    /// Which, such as 6.12:full,6.1:none or 6.1; all if empty
    #[arg(long, env = "VM_KERNELS", default_value = "")]
    kernels: Selection,

    /// Seconds after which a machine is ended
    #[arg(long, env = "VM_TIMEOUT", default_value_t = 900)]
    timeout: u64,

    /// Folder for the logs
    #[arg(long, env = "VM_LOGS")]
    logs: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let cache = Cache::of_user()?;
    let runs = args.kernels.runs(&cache.newest()?)?;
    let programs = Programs::build(&workspace())?;
    std::fs::create_dir_all(&args.logs)
        .with_context(|| format!("could not make {}", args.logs.display()))?;
    let logs = args.logs.canonicalize()?;
    let initramfs = logs.join("initramfs");
    image::write(&programs, &workspace(), &initramfs)?;

    let begin = Instant::now();
    let mut rows = Vec::new();
    let mut bad = 0;
    for (kernel, preempt) in &runs {
        let machine = Machine {
            kernel: &cache.get(kernel)?,
            initramfs: &initramfs,
            preempt: *preempt,
            logs: &logs.join(format!("{}-{preempt}", kernel.release)),
            limit: Duration::from_secs(args.timeout),
        };
        let report = one(&machine, kernel)?;
        bad += usize::from(!report.is_good());
        rows.extend(report.sections.iter().map(|section| Row {
            kernel: kernel.clone(),
            preempt: *preempt,
            tier: section.tier.clone(),
            result: section.sentence(),
        }));
    }
    let document = workspace().join("docs/compatibility.md");
    table::write(&document, &rows, args.kernels == Selection::All)?;
    println!(
        "{} of {} machines are good after {} s; docs/compatibility.md has the table",
        runs.len() - bad,
        runs.len(),
        begin.elapsed().as_secs()
    );
    Ok(bad == 0)
}

fn one(machine: &Machine<'_>, kernel: &Kernel) -> Result<Report> {
    let Machine { preempt, .. } = machine;
    println!("=== {} preempt={preempt}", kernel.release);
    let ended = machine.run()?;
    let report = Report::of(&ended, *preempt);
    for section in &report.sections {
        println!("{:10}  {}", section.tier, section.sentence());
    }
    for problem in &report.problems {
        println!("{problem}");
    }
    println!(
        "boot {} s, all {} s",
        ended.boot.as_secs(),
        ended.took.as_secs()
    );
    if !report.is_good() {
        println!("its console: {}", machine.console().display());
    }
    Ok(report)
}
