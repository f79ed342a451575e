//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use maplatency_bpf::sys::MAX_NAME_LEN;

const ABOUT: &str = "Reads a BPF map whose reads are slow for a known reason, and tells how slow";

const LONG_ABOUT: &str = "\
Reads a BPF map whose reads are slow for a known reason, and tells how slow.

It creates a per-CPU hash, fills it and reads it from one thread, which times every single read \
by itself. Next to the reader it puts what makes map reads slow in production: a thread that \
rewrites the whole map every few seconds, and CPU hogs. In the end it prints the exact \
percentiles, the worst second and the time lost. That is the truth which a tool that measures \
map reads from outside has to find.

Needs CAP_BPF, so run it as root.";

const EXAMPLES: &str = "\
Examples:
  The incident: a refresh on the reader's own CPU, every 4 seconds
    maplatency-workload --rate 0 --for 30s

  The same refresh from another CPU, which costs the reader next to nothing
    maplatency-workload --rate 0 --for 30s --refresher-cpu 1

  A reader beside three bursty CPU hogs
    maplatency-workload --rate 0 --for 10s --no-refresh --hogs 3

  For a test: begin on a newline, count exactly, leave the map alive until stdin closes
    maplatency-workload --output json --wait-for-start --reads 1000000 --hold

A paced reader spends only a few percent of its time inside reads, so most of what stops it \
strikes between two of them. Such a stall makes the next start late and no read slow; both are \
reported, apart from each other. With --rate 0 nearly every stall falls into a read.";

/// Reads a BPF map whose reads are slow for a known reason, and tells how slow.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "maplatency-workload",
    version,
    about = ABOUT,
    long_about = LONG_ABOUT,
    after_long_help = EXAMPLES,
    max_term_width = 100
)]
pub struct Args {
    /// Name of the map: up to 15 letters, digits, '_' or '.'
    #[arg(long, value_name = "NAME", default_value = "demo_conntrack", value_parser = map_name, help_heading = "Map")]
    pub name: String,

    /// How many entries the map holds
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000), help_heading = "Map")]
    pub entries: u32,

    /// Bytes of a value on one CPU, a multiple of 8
    ///
    /// A read copies the values of all possible CPUs, so this sets how long a read takes.
    #[arg(long, value_name = "BYTES", default_value_t = 8, value_parser = value_size, help_heading = "Map")]
    pub value_size: u32,

    /// CPU that the reader is pinned to
    #[arg(long, value_name = "CPU", default_value_t = 0, help_heading = "Reader")]
    pub reader_cpu: usize,

    /// Reads per second, by the clock; 0 reads as fast as possible
    ///
    /// The schedule is absolute. A reader that falls behind catches up at most one millisecond's
    /// worth of reads (or one, if that is more); what is further in the past is skipped and
    /// counted. Up to 200 microseconds before a read the reader sleeps, then it watches the clock,
    /// so above 5,000 reads per second it keeps its CPU busy.
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(0..=10_000_000), help_heading = "Reader")]
    pub rate: u64,

    /// Stop after exactly this many reads
    ///
    /// Without --reads and --for it reads until SIGINT or SIGTERM, both of which end it cleanly
    /// and with its result.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000), help_heading = "Reader")]
    pub reads: Option<u64>,

    /// Stop after this time, such as 30s or 2m
    #[arg(long = "for", value_name = "TIME", value_parser = time, help_heading = "Reader")]
    pub duration: Option<Duration>,

    /// Leave the refresher out
    #[arg(long, conflicts_with_all = ["refresh_period", "refresher_cpu"], help_heading = "Refresher")]
    pub no_refresh: bool,

    /// From one rewrite of all entries to the next
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = time, help_heading = "Refresher")]
    pub refresh_period: Duration,

    /// CPU that the refresher is pinned to [default: the reader's]
    #[arg(long, value_name = "CPU", help_heading = "Refresher")]
    pub refresher_cpu: Option<usize>,

    /// How many CPU hogs to run
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256), help_heading = "Hogs")]
    pub hogs: u16,

    /// CPU that the hogs are pinned to [default: the reader's]
    #[arg(long, value_name = "CPU", requires = "hogs", help_heading = "Hogs")]
    pub hog_cpu: Option<usize>,

    /// How long a hog computes at a time
    #[arg(long, value_name = "TIME", default_value = "3ms", value_parser = time, requires = "hogs", help_heading = "Hogs")]
    pub hog_run: Duration,

    /// How long a hog sleeps in between
    #[arg(long, value_name = "TIME", default_value = "1500us", value_parser = time, requires = "hogs", help_heading = "Hogs")]
    pub hog_sleep: Duration,

    /// How to print the result
    ///
    /// As JSON it is two lines: one once the map is ready, one with the result.
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value_t,
        help_heading = "Output"
    )]
    pub output: Output,

    /// Write the latency of every read, in order, as little-endian 64-bit nanoseconds
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub record: Option<PathBuf>,

    /// Once the map is ready say so in a JSON line, then begin on a newline on stdin
    #[arg(long, help_heading = "Output")]
    pub wait_for_start: bool,

    /// After the result keep the map alive until stdin closes
    #[arg(long, help_heading = "Output")]
    pub hold: bool,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs, one object per line.
    Json,
}

/// The kernel takes at most 32 KiB per CPU.
fn value_size(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|it: &u32| (8..=32_768).contains(it) && it.is_multiple_of(8))
        .ok_or_else(|| "write a multiple of 8 from 8 to 32768".to_owned())
}

fn map_name(name: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(allowed) {
        return Err(format!(
            "the kernel keeps 1 to {MAX_NAME_LEN} letters, digits, '_' or '.'"
        ));
    }
    Ok(name.to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    // A year in nanoseconds leaves room for every sum of times in 64 bits.
    if time.is_zero() || time > Duration::from_hours(24 * 365) {
        return Err("must be more than zero and at most a year".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once(&"maplatency-workload").chain(args))
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_are_a_refresh_every_four_seconds_beside_a_paced_reader() {
        let args = parse(&[]).unwrap();

        assert_eq!((args.entries, args.rate, args.hogs), (60_000, 50_000, 0));
        assert_eq!(args.refresh_period, Duration::from_secs(4));
        assert!(!args.no_refresh);
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for args in [
            &["--no-refresh", "--refresh-period", "1s"][..],
            &["--no-refresh", "--refresher-cpu", "0"],
            &["--hog-cpu", "0"],
            &["--hog-run", "1ms"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
        assert!(parse(&["--hogs", "1", "--hog-run", "1ms"]).is_ok());
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for args in [
            ["--name", "sixteen_chars_16"],
            ["--name", "with space"],
            ["--entries", "0"],
            ["--value-size", "12"],
            ["--value-size", "32776"],
            ["--reads", "0"],
            ["--for", "0s"],
            ["--for", "ten"],
            ["--refresh-period", "500y"],
            ["--for", "292277026596y"],
            ["--hog-run", "9223372036854775807s"],
        ] {
            assert!(parse(&args).is_err(), "{args:?}");
        }
    }
}
