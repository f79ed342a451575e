//! What the agent's process and its objects cost a host, at several rates of traced reads.

use std::fmt::{self, Write as _};
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use maplatency_bpf::sys::Map;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::Common;
use crate::agent::{self, Objects};
use crate::pace::Paced;
use crate::page::{Aim, Section, yes_or_no};
use crate::reader;

/// Reads a second.
const RATES: [u64; 5] = [0, 10_000, 100_000, 500_000, 1_000_000];
/// What an agent does in its first seconds is not what it does later.
const WARM_UP: Duration = Duration::from_secs(5);
/// Until what the readers did last is drained.
const DRAINED: Duration = Duration::from_millis(2500);
/// For how long the kernel counts run times; it slows all BPF programs of the host meanwhile.
const COUNTED: Duration = Duration::from_secs(2);
const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";
const MIB: f64 = 1024.0 * 1024.0;

/// Per cent of a core.
const AIM_CPU: f64 = 1.0;
/// By how many per cent of a core the dearest rate may be above no reads at all and still be called flat.
const FLAT: f64 = 0.2;
const AIM_RSS: f64 = 20.0 * MIB;
const AIM_BPF: f64 = 8.0 * MIB;

const HELP: &str = "\
The agent runs as a process of its own, in the tier that it takes by itself,
with one probe on one map, while threads on two CPUs read that map at 0,
10,000, 100,000, 500,000 and 1,000,000 reads a second, the last as far as the
CPUs get. CPU time is that of the process; after it the kernel's own count of
BPF run times is on for two seconds. Every read has to be counted or told as
lost. Three minutes.";

/// How to measure the cost of the agent.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// For how long the CPU time of each rate is measured.
    #[arg(long = "for", value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    time: Duration,
}

/// One rate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    asked_per_second: u64,
    reached_per_second: f64,
    seconds: f64,
    /// CPU time of the process, in parts of a core.
    cpu: f64,
    rss_bytes: u64,
    /// As the kernel accounts for maps and programs.
    bpf_memory_bytes: u64,
    /// Run time of BPF programs as the kernel counted it, in parts of a core.
    bpf_run_time: f64,
    bpf_mean_nanoseconds: f64,
    /// All reads, from the first to the last.
    reads: u64,
    /// How many of them the agent counted.
    counted: u64,
    /// How many operations it tells as lost.
    lost: u64,
    /// What the agent tells of the same.
    own: Own,
}

/// The agent's own figures, from its status. Absent where it tells none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Own {
    cpu_parts_per_million: Option<u64>,
    rss_bytes: Option<u64>,
    bpf_memory_bytes: Option<u64>,
    bpf_run_time_parts_per_million: Option<u64>,
}

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    tier: String,
    points: Vec<Point>,
}

pub(crate) fn measure(common: &Common, args: &Args) -> anyhow::Result<Figures> {
    let map = Arc::new(reader::hash("bench_load", 8)?);
    let mut tier = String::new();
    let mut points = Vec::new();
    for rate in RATES {
        eprintln!("load: {rate} reads a second");
        let (told, point) = at_rate(common, args.time, &map, rate)?;
        tier = told;
        points.push(point);
    }
    Ok(Figures { tier, points })
}

/// The tier that the agent took, and what it cost.
fn at_rate(
    common: &Common,
    time: Duration,
    map: &Arc<Map>,
    rate: u64,
) -> anyhow::Result<(String, Point)> {
    let spec = format!("maps: [{{ids: [{}]}}], windowSeconds: 600", map.id()?);
    let running = agent::start(&common.agent, None, &spec)?;
    let pid = running.pid()?;
    let readers = Paced::start(map, rate, 2);
    thread::sleep(WARM_UP);

    let (began, reads) = (Instant::now(), readers.reads());
    let cpu = agent::cpu_seconds(pid)?;
    thread::sleep(time);
    let cpu = agent::cpu_seconds(pid)? - cpu;
    let seconds = began.elapsed().as_secs_f64();
    let reads = readers.reads() - reads;
    let rss_bytes = agent::rss_bytes(pid)?;
    let (bpf_memory_bytes, run_time) = counted(pid)?;

    let all_reads = readers.stop()?;
    thread::sleep(DRAINED);
    let status = agent::status(&running.stop()?)?;
    let tier = status["agents"]["tiers"][0]["tier"].as_str();
    let point = Point {
        asked_per_second: rate,
        reached_per_second: as_f64(reads) / seconds,
        seconds,
        cpu: cpu / seconds,
        rss_bytes,
        bpf_memory_bytes,
        bpf_run_time: run_time.0,
        bpf_mean_nanoseconds: run_time.1,
        reads: all_reads,
        counted: counted_reads(&status),
        lost: lost(&status),
        own: own(&status),
    };
    Ok((tier.context("the agent tells no tier")?.to_owned(), point))
}

/// Memory of the BPF objects of a process; the run time of its programs as a part of a core, and the mean of a run in
/// nanoseconds, while the kernel counts it.
fn counted(pid: Pid) -> anyhow::Result<(u64, (f64, f64))> {
    let statistics = Statistics::switch_on()?;
    let (before, began) = (Objects::of(pid)?, Instant::now());
    thread::sleep(COUNTED);
    let (after, seconds) = (Objects::of(pid)?, began.elapsed().as_secs_f64());
    drop(statistics);
    let run_time = as_f64(after.run_time.saturating_sub(before.run_time));
    let runs = as_f64(after.runs.saturating_sub(before.runs));
    Ok((after.memory, (run_time / 1e9 / seconds, run_time / runs)))
}

/// Lookups in a status.
fn counted_reads(status: &serde_json::Value) -> u64 {
    let rows = status["operations"].as_array().into_iter().flatten();
    let lookups = rows.filter(|it| it["operation"] == "Lookup");
    lookups.filter_map(|it| it["count"].as_u64()).sum()
}

/// Operations that a status tells as lost, for whatever reason.
fn lost(status: &serde_json::Value) -> u64 {
    let kinds = status["losses"].as_array().into_iter().flatten();
    kinds.filter_map(|it| it["count"].as_u64()).sum()
}

fn own(status: &serde_json::Value) -> Own {
    let cost = &status["agents"]["cost"];
    Own {
        cpu_parts_per_million: cost["cpu"]["partsPerMillion"].as_u64(),
        rss_bytes: cost["rss"]["bytes"].as_u64(),
        bpf_memory_bytes: cost["bpfMemory"]["bytes"].as_u64(),
        bpf_run_time_parts_per_million: cost["bpfRunTime"]["partsPerMillion"].as_u64(),
    }
}

/// The kernel's count of run times, which is as it was when this is dropped.
struct Statistics {
    before: String,
}

impl Statistics {
    fn switch_on() -> anyhow::Result<Self> {
        let before =
            fs::read_to_string(STATISTICS).context("could not read kernel.bpf_stats_enabled")?;
        fs::write(STATISTICS, "1").context("could not set kernel.bpf_stats_enabled")?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(STATISTICS, self.before.trim()) {
            eprintln!("kernel.bpf_stats_enabled stays on: {error}");
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

impl Section for Figures {
    const KEY: &'static str = "load";

    fn render(&self, text: &mut String) -> fmt::Result {
        write!(
            text,
            "## What the agent costs a host

The agent as a process of its own, in the tier {}, with one probe on one map that threads on two CPUs read, a bunch every
millisecond. CPU time is that of the process (user and system, all threads) over {:.0} s. The time that its hooks run in
is that of whoever is hooked; the kernel counted it for {} s after that, which slows the hooks a little. In brackets is
what the agent tells of itself at its end (`status.agents.cost`); of CPU time that is the last ten seconds, and of run time
a sample of 0.1 s. *Not counted* are reads, of all from the first to the last, that are missing in the agent's figures, and
in brackets the operations that it tells as lost.

| Reads a second, asked for | reached | CPU, % of a core | RSS, MiB | BPF memory, MiB | BPF run time, % of a core | mean of a run, ns | reads in all | not counted |
|---|---|---|---|---|---|---|---|---|
",
            self.tier,
            self.points.first().map_or(f64::NAN, |it| it.seconds),
            COUNTED.as_secs(),
        )?;
        for it in &self.points {
            writeln!(
                text,
                "| {} | {:.0} | {:.2} ({}) | {:.1} ({}) | {:.1} ({}) | {:.2} ({}) | {:.0} | {} | {} ({}) |",
                it.asked_per_second,
                it.reached_per_second,
                100.0 * it.cpu,
                or_dash(it.own.cpu_parts_per_million, 10_000.0, 2),
                as_f64(it.rss_bytes) / MIB,
                or_dash(it.own.rss_bytes, MIB, 1),
                as_f64(it.bpf_memory_bytes) / MIB,
                or_dash(it.own.bpf_memory_bytes, MIB, 1),
                100.0 * it.bpf_run_time,
                or_dash(it.own.bpf_run_time_parts_per_million, 10_000.0, 2),
                it.bpf_mean_nanoseconds,
                it.reads,
                it.reads.abs_diff(it.counted),
                it.lost,
            )?;
        }
        Ok(())
    }

    fn aims(&self) -> Vec<Aim> {
        let most =
            |figure: fn(&Point) -> f64| self.points.iter().map(figure).fold(f64::NAN, f64::max);
        let cpu = most(|it| 100.0 * it.cpu);
        let without = self.points.iter().find(|it| it.asked_per_second == 0);
        let without = without.map_or(f64::NAN, |it| 100.0 * it.cpu);
        let rss = most(|it| as_f64(it.rss_bytes));
        let memory = most(|it| as_f64(it.bpf_memory_bytes));
        let sum = |figure: fn(&Point) -> u64| self.points.iter().map(figure).sum::<u64>();
        let missing = sum(|it| it.reads.abs_diff(it.counted));
        let lost = sum(|it| it.lost);
        let fastest = most(|it| it.reached_per_second);
        vec![
            Aim {
                what: format!("reads that are not counted, at up to {fastest:.0} a second"),
                aimed: "0, or told as lost".to_owned(),
                measured: format!("{missing} of {}; {lost} told as lost", sum(|it| it.reads)),
                met: yes_or_no(missing <= lost),
            },
            Aim {
                what: "CPU of the agent at any of these rates".to_owned(),
                aimed: format!("≤ {AIM_CPU:.0} % of a core"),
                measured: format!("≤ {cpu:.2} %"),
                met: yes_or_no(cpu <= AIM_CPU),
            },
            Aim {
                what: "the same, flat in the rate of reads".to_owned(),
                aimed: format!("≤ {FLAT} % of a core above no reads"),
                measured: format!("{:+.2} %", cpu - without),
                met: yes_or_no(cpu - without <= FLAT),
            },
            Aim {
                what: "RSS of the agent".to_owned(),
                aimed: format!("≤ {:.0} MiB", AIM_RSS / MIB),
                measured: format!("{:.1} MiB", rss / MIB),
                met: yes_or_no(rss <= AIM_RSS),
            },
            Aim {
                what: "memory of its BPF objects".to_owned(),
                aimed: format!("≤ {:.0} MiB", AIM_BPF / MIB),
                measured: format!("{:.1} MiB", memory / MIB),
                met: yes_or_no(memory <= AIM_BPF),
            },
        ]
    }
}

fn or_dash(figure: Option<u64>, unit: f64, decimals: usize) -> String {
    figure.map_or_else(
        || "-".to_owned(),
        |it| format!("{:.decimals$}", as_f64(it) / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(asked_per_second: u64, cpu: f64) -> Point {
        Point {
            asked_per_second,
            reached_per_second: 0.0,
            seconds: 20.0,
            cpu,
            rss_bytes: 15 << 20,
            bpf_memory_bytes: 9 << 20,
            bpf_run_time: 0.01,
            bpf_mean_nanoseconds: 120.0,
            reads: 1_000,
            counted: 997,
            lost: 3,
            own: Own {
                cpu_parts_per_million: Some(4_000),
                rss_bytes: None,
                bpf_memory_bytes: Some(9 << 20),
                bpf_run_time_parts_per_million: None,
            },
        }
    }

    fn figures() -> Figures {
        Figures {
            tier: "Tracepoint".to_owned(),
            points: vec![point(0, 0.002), point(500_000, 0.005)],
        }
    }

    #[test]
    fn the_dearest_rate_decides_over_the_aims() {
        let met: Vec<String> = figures().aims().into_iter().map(|it| it.met).collect();

        assert_eq!(met, ["yes", "yes", "**no**", "yes", "**no**"]);
        assert_eq!(figures().aims()[2].measured, "+0.30 %");
    }

    #[test]
    fn a_read_that_is_missing_and_not_told_is_a_miss_of_the_aim() {
        let mut figures = figures();
        figures.points[0].lost = 2;

        let aim = &figures.aims()[0];
        assert_eq!(aim.measured, "6 of 2000; 5 told as lost");
        assert_eq!(aim.met, "**no**");
    }

    #[test]
    fn a_figure_that_the_agent_does_not_tell_is_a_dash() {
        let mut text = String::new();
        figures().render(&mut text).unwrap();

        assert!(
            text.contains("| 0.20 (0.40) | 15.0 (-) | 9.0 (9.0) | 1.00 (-) | 120 | 1000 | 3 (3) |"),
            "{text}"
        );
    }
}
