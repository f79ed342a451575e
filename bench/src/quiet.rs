//! How many spikes are reported while nothing happens.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::Monitor;
use maplatency_core::histogram::Percentile;
use maplatency_core::spikes::Spike;
use serde::{Deserialize, Serialize};

use crate::Common;
use crate::machine;
use crate::page::{Aim, Section, yes_or_no};
use crate::watch;
use crate::workload::Workload;

const PROBE: &str = "quiet";
const LOOK: Duration = Duration::from_millis(250);
const MICROSECONDS: i64 = 1_000_000;

const HELP: &str = "\
One thread reads a map at a steady rate, and nothing else is done on the
machine, for ten minutes. Every snapshot of the agent (one a second) is looked
at for spikes, and each is counted once. What the hypervisor took from the
machine meanwhile is told beside them: a machine that is stopped for 10 ms is a
true spike.";

/// How to look for spikes that are none.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// How long.
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Reads per second.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
}

/// One spike that was reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reported {
    unix_microseconds: i64,
    cpus: Vec<u32>,
    milliseconds: f64,
    p99_nanoseconds: u64,
    max_nanoseconds: u64,
}

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    tier: String,
    seconds: f64,
    reads_per_second: u64,
    reads: u64,
    /// As the agent saw them, until user: P50, P99 and P99.9, and the slowest.
    nanoseconds: [u64; 4],
    /// The slowest by the reader's own clock.
    callers_max_nanoseconds: u64,
    /// What the hypervisor took from all CPUs meanwhile. Absent where nobody tells.
    stolen_seconds: Option<f64>,
    spikes: Vec<Reported>,
}

pub(crate) fn measure(common: &Common, args: &Args) -> anyhow::Result<Figures> {
    let time = format!("{}ms", args.time.as_millis());
    let rate = args.rate.to_string();
    let arguments = [
        "--no-refresh",
        "--reader-cpu",
        "1",
        "--rate",
        &rate,
        "--for",
        &time,
    ];
    let mut workload = Workload::start(&common.workload, &arguments)?;
    let monitor = Monitor::start(TierChoice::Auto)?;
    watch::begin(&monitor, PROBE, &workload)?;
    let (began, stolen) = (Instant::now(), machine::stolen_seconds());
    workload.go()?;
    // One slice more, so that the last reads are drained.
    let spikes = spikes_of(&monitor, args.time + Duration::from_secs(2));
    let seconds = began.elapsed().as_secs_f64();
    let stolen = machine::stolen_seconds().zip(stolen);
    let truth = workload.truth()?;
    let latest = Arc::clone(&monitor.snapshots().borrow());
    let probe = latest.probes.first().context("nothing was measured")?;
    let seen = watch::total(probe).until_user;
    let at = |which| seen.percentile(which).unwrap_or(0);
    let figures = Figures {
        tier: monitor.tier().to_string(),
        seconds,
        reads_per_second: args.rate,
        reads: seen.count(),
        nanoseconds: [
            at(Percentile::P50),
            at(Percentile::P99),
            at(Percentile::P999),
            seen.max().unwrap_or(0),
        ],
        callers_max_nanoseconds: truth.max_nanoseconds,
        stolen_seconds: stolen.map(|(after, before)| after - before),
        spikes,
    };
    monitor.stop()?;
    Ok(figures)
}

/// All spikes that are told within some time.
fn spikes_of(monitor: &Monitor, time: Duration) -> Vec<Reported> {
    let mut spikes = Vec::new();
    let mut told = 0;
    let snapshots = monitor.snapshots();
    let began = Instant::now();
    while began.elapsed() < time {
        thread::sleep(LOOK);
        let latest = Arc::clone(&snapshots.borrow());
        for spike in latest.probes.iter().flat_map(|it| &it.spikes) {
            note(&mut spikes, spike);
        }
        let minutes = began.elapsed().as_secs() / 60;
        if minutes > told {
            told = minutes;
            eprintln!("quiet: {minutes} min, {} spikes", spikes.len());
        }
    }
    spikes
}

/// Takes note of a spike, which many snapshots tell, each with the newest of its like. A spike may begin a little earlier
/// in a later one, since the median that it is compared with moves; two of one row are over a second apart.
fn note(known: &mut Vec<Reported>, spike: &Spike) {
    let reported = Reported {
        unix_microseconds: spike.last_unix_microseconds,
        cpus: spike.cpus.iter().copied().collect(),
        milliseconds: spike.duration.as_secs_f64() * 1e3,
        p99_nanoseconds: spike.p99_nanoseconds,
        max_nanoseconds: spike.max_nanoseconds,
    };
    let is_same = |it: &&mut Reported| {
        (it.unix_microseconds - reported.unix_microseconds).abs() < MICROSECONDS
    };
    match known.iter_mut().find(is_same) {
        Some(it) => *it = reported,
        None => known.push(reported),
    }
}

impl Section for Figures {
    const KEY: &'static str = "quiet";

    fn render(&self, text: &mut String) -> fmt::Result {
        let [p50, p99, p999, max] = self.nanoseconds;
        let stolen = self.stolen_seconds.map_or_else(
            || "the kernel does not tell".to_owned(),
            |it| {
                format!(
                    "{it:.2} s of CPU time, {:.3} % of one CPU",
                    100.0 * it / self.seconds
                )
            },
        );
        write!(
            text,
            "## Spikes while nothing happens

One thread reads a map {} times a second, and nothing else is done on the machine. Each spike that any snapshot of the agent
tells is counted once. A spike is reported from 10 ms lost in a second on ([measurement.md](measurement.md#spikes)): a machine
that is stopped that long by its hypervisor has a true one.

| | |
|---|---|
| Time | {:.0} s |
| Tier | {} |
| Reads | {} |
| P50, P99, P99.9 | {p50}, {p99}, {p999} ns |
| Slowest, as seen and by the caller's clock | {:.3}, {:.3} ms |
| Taken by the hypervisor (steal) | {stolen} |
| Spikes reported | {} |
",
            self.reads_per_second,
            self.seconds,
            self.tier,
            self.reads,
            milliseconds(max),
            milliseconds(self.callers_max_nanoseconds),
            self.spikes.len(),
        )?;
        if !self.spikes.is_empty() {
            text.push_str("\n| Spike after | CPUs | length, ms | P99, ms | slowest, ms |\n|---|---|---|---|---|\n");
        }
        let first = self.spikes.first().map_or(0, |it| it.unix_microseconds);
        for it in &self.spikes {
            writeln!(
                text,
                "| {} s after the first | {:?} | {:.1} | {:.3} | {:.3} |",
                (it.unix_microseconds - first) / MICROSECONDS,
                it.cpus,
                it.milliseconds,
                milliseconds(it.p99_nanoseconds),
                milliseconds(it.max_nanoseconds),
            )?;
        }
        Ok(())
    }

    fn aims(&self) -> Vec<Aim> {
        let minutes = self.seconds / 60.0;
        vec![Aim {
            what: "spikes reported in ten minutes of quiet load".to_owned(),
            aimed: "0".to_owned(),
            measured: format!("{} in {minutes:.1} minutes", self.spikes.len()),
            met: if self.spikes.is_empty() && minutes < 10.0 {
                "so far".to_owned()
            } else {
                yes_or_no(self.spikes.is_empty())
            },
        }]
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use maplatency_core::vocabulary::Operation;

    use super::*;

    fn spike(seconds: f64) -> Spike {
        Spike {
            map_id: 1,
            operation: Operation::Lookup,
            cpus: BTreeSet::from([1]),
            count: 1,
            #[allow(clippy::cast_possible_truncation, reason = "a few seconds")]
            last_unix_microseconds: (seconds * 1e6) as i64,
            period: None,
            duration: Duration::from_millis(12),
            p99_nanoseconds: 11_000_000,
            max_nanoseconds: 12_000_000,
            time_lost_parts_per_million: 200,
        }
    }

    fn figures(seconds: f64, spikes: Vec<Reported>) -> Figures {
        Figures {
            tier: "Tracepoint".to_owned(),
            seconds,
            reads_per_second: 10_000,
            reads: 6_000_000,
            nanoseconds: [1_400, 2_000, 5_000, 12_000_000],
            callers_max_nanoseconds: 12_000_300,
            stolen_seconds: Some(1.5),
            spikes,
        }
    }

    #[test]
    fn a_spike_that_many_snapshots_tell_counts_once() {
        let mut known = Vec::new();
        for seconds in [5.0, 5.0, 4.9, 9.2, 9.2] {
            note(&mut known, &spike(seconds));
        }
        assert_eq!(known.len(), 2, "{known:?}");
    }

    #[test]
    fn no_spike_in_a_short_time_does_not_meet_the_aim_yet() {
        assert_eq!(figures(60.0, vec![]).aims()[0].met, "so far");
        assert_eq!(figures(602.0, vec![]).aims()[0].met, "yes");
    }

    #[test]
    fn a_spike_misses_the_aim_however_short_the_time_and_is_shown() {
        let mut spikes = Vec::new();
        note(&mut spikes, &spike(5.0));
        let figures = figures(60.0, spikes);
        let mut text = String::new();
        figures.render(&mut text).unwrap();

        assert_eq!(figures.aims()[0].met, "**no**");
        assert!(text.contains("| [1] | 12.0 | 11.000 | 12.000 |"), "{text}");
        assert!(
            text.contains("1.50 s of CPU time, 2.500 % of one CPU"),
            "{text}"
        );
    }
}
