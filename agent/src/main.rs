//! The `maplatency-agent` binary.

use std::io;
use std::process::ExitCode;

use maplatency_agent::args::{Args, Command};
use maplatency_agent::logging::{self, brief_chain};
use maplatency_agent::manifest::InvalidManifest;
use maplatency_agent::{example, run, serve};
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let outcome = match Args::read().command {
        Command::Run(args) => {
            logging::start(args.log.log_format, LevelFilter::WARN);
            run::run(&args)
        }
        Command::Serve(args) => {
            logging::start(args.log.log_format, LevelFilter::INFO);
            serve::serve(&args)
        }
        Command::Example(args) => {
            logging::start(args.log.log_format, LevelFilter::INFO);
            example::example(&args)
        }
    };
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    if let Some(invalid) = error.downcast_ref::<InvalidManifest>() {
        eprintln!("error: {invalid}");
        return ExitCode::from(2);
    }
    let cause = error.root_cause().downcast_ref::<io::Error>();
    if cause.is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe) {
        // Whoever read the output has seen enough.
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", brief_chain(&error));
    ExitCode::FAILURE
}
