//! A program whose BPF map reads are slow for a known reason, and that knows exactly how slow.
//!
//! One thread reads a per-CPU hash and times every read by itself. Beside it run the known
//! reasons: a refresher that rewrites the map, and CPU hogs. The result is the truth that a tool
//! which measures from outside has to match.

pub mod args;
mod clock;
mod control;
mod cpu;
mod gate;
mod hog;
mod map;
mod pace;
mod reader;
mod record;
mod refresher;
mod report;
mod session;
mod stats;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, bail};

use args::{Args, Output};
use control::{Control, Event};
use map::DemoMap;
use record::Record;
use report::{Ready, Report};
use session::Session;
use stats::Stats;

/// Runs the program as `args` tell it to.
pub fn run(args: &Args) -> Result<()> {
    check_cpus(args)?;
    // The file first: a run whose record cannot be written is a run for nothing.
    let file = args.record.as_deref().map(create_file).transpose()?;
    let control = Control::new()?;
    let map = DemoMap::create(&args.name, args.entries, args.value_size)?;
    let ready = Ready::new(&args.name, map.id()?);
    let mut stdin = io::stdin().lock();

    let session = Session::new(args, &map)?;
    let outcome = session.run(|finished| {
        announce(args, &ready)?;
        if args.wait_for_start {
            control.wait_for_newline(&mut stdin)?;
        }
        finished.begin();
        // Whichever came, the session stops its threads and hands back what they saw.
        let (Event::Signal | Event::Ready) = control.wait(finished.as_fd())?;
        Ok(())
    })?;

    let Some(stats) = Stats::of(&outcome.reading.record, outcome.reading.elapsed) else {
        bail!("stopped before the first read");
    };
    if let Some((path, file)) = file {
        write_record(&outcome.reading.record, path, file)?;
    }
    let report = Report::new(args, &ready, &outcome, &stats);
    print(&match args.output {
        Output::Text => report.text(),
        Output::Json => report.json()?,
    })?;
    if args.hold {
        control.wait_for_close(&mut stdin)?;
    }
    Ok(())
}

fn check_cpus(args: &Args) -> Result<()> {
    cpu::check("--reader-cpu", args.reader_cpu)?;
    if let Some(cpu) = args.refresher_cpu {
        cpu::check("--refresher-cpu", cpu)?;
    }
    if let Some(cpu) = args.hog_cpu {
        cpu::check("--hog-cpu", cpu)?;
    }
    if args.hog_cpu.is_some() && args.hogs == 0 {
        bail!("--hog-cpu needs --hogs of at least 1");
    }
    Ok(())
}

/// Tells whoever started the program that the map is there.
fn announce(args: &Args, ready: &Ready<'_>) -> Result<()> {
    if args.wait_for_start || args.output == Output::Json {
        return print(&ready.json()?);
    }
    // Standard output is the result's; this line is for somebody who would else wait in the dark.
    eprintln!("{}", ready.text(args));
    Ok(())
}

/// Prints and flushes, since a pipe would else keep the line until the end.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("could not write to stdout")
}

fn create_file(path: &Path) -> Result<(&Path, File)> {
    let file =
        File::create(path).with_context(|| format!("could not create {}", path.display()))?;
    Ok((path, file))
}

fn write_record(record: &Record, path: &Path, file: File) -> Result<()> {
    record
        .write_latencies(BufWriter::with_capacity(1 << 20, file))
        .with_context(|| format!("could not write {}", path.display()))
}
