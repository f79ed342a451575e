//! Debian's kernels in virtual machines without KVM: `make vm-test` and `make vm-count`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use maplatency_e2e::vm::count::Count;
use maplatency_e2e::vm::plan::Selection;
use maplatency_e2e::vm::suite::Suite;

/// Runs Debian's kernels in virtual machines without KVM.
#[derive(Debug, Parser)]
struct Args {
    /// Folder for the logs
    #[arg(long, env = "VM_LOGS")]
    logs: PathBuf,

    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// Runs the kernel tests and writes down in docs/compatibility.md what came out
    Test {
        /// Which kernels, such as 6.12:full,6.1:none or 6.1; all if empty
        #[arg(long, env = "VM_KERNELS", default_value = "")]
        kernels: Selection,

        /// Machines at a time; each keeps one CPU busy. Absent: as many as there are CPUs
        #[arg(long, env = "VM_JOBS")]
        jobs: Option<NonZeroUsize>,

        /// Seconds after which a machine is ended
        #[arg(long, env = "VM_TIMEOUT", default_value_t = 2400)]
        timeout: u64,
    },
    /// Counts the instructions that measuring adds, in every tier of hooks, and writes them into a file as JSON
    Count {
        /// The file
        #[arg(long, value_name = "FILE", default_value = "bench/instructions.json")]
        json: PathBuf,

        /// Seconds after which the machine is ended
        #[arg(long, env = "VM_TIMEOUT", default_value_t = 2400)]
        timeout: u64,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Args { logs, job }: Args) -> Result<bool> {
    match job {
        Job::Test {
            kernels,
            jobs,
            timeout,
        } => Suite {
            kernels,
            jobs,
            limit: Duration::from_secs(timeout),
            logs,
        }
        .run(),
        Job::Count { json, timeout } => Count {
            limit: Duration::from_secs(timeout),
            logs,
            json,
        }
        .run(),
    }
}
