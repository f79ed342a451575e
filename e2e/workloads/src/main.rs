//! `maplatency-workload`: BPF map reads that are slow for a known reason, and how slow exactly.

use std::process::ExitCode;

use clap::Parser;
use maplatency_workload::args::Args;

fn main() -> ExitCode {
    match maplatency_workload::run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
