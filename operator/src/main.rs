//! The `maplatency-operator` binary.

use std::process::ExitCode;

use maplatency_operator::args::{Args, Command};
use maplatency_operator::chain::chain;

fn main() -> ExitCode {
    let outcome = match Args::read().command {
        Command::Crd => maplatency_operator::print_crd(),
        Command::Docs { page } => maplatency_operator::print_page(page),
        Command::Run(run) => maplatency_operator::run(*run),
        Command::Test(test) => maplatency_operator::proof::run(&test),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
