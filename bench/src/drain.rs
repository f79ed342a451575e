//! What reading the counts costs, against the number of blocks in use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use maplatency_agent::engine::{Engine, TierChoice};
use maplatency_core::MapLatencyProbeSpec;
use maplatency_core::histogram::BLOCK;
use maplatency_core::measure::Rows;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::Common;
use crate::agent;
use crate::page::Section;
use crate::series::{self, Series};
use crate::stats::{Line, median, spread};

/// Maps, with about twenty blocks each on two CPUs. Of the 8,192 blocks of an agent 7,168 are for callers that have a
/// number, which the last one comes close to.
const MAPS: [u32; 4] = [4, 32, 128, 300];
/// For which of them the whole agent is measured, which takes as long as it takes to fill a window.
const WHOLE: [u32; 2] = [32, 300];
const BLOCKS_PER_AGENT: f64 = 8192.0;
/// For the figures that are computed.
const MANY_CPUS: f64 = 128.0;
const RANGES: f64 = 2.0;
/// Until the default window is full: what a slice costs depends on how many seconds are in it.
const WARM_UP: Duration = Duration::from_secs(62);
const SECOND: Duration = Duration::from_secs(1);

const HELP: &str = "\
A child process does lookups, updates and steps on 4 to 300 maps, on two CPUs.
First this program loads the hooks itself and times the drain alone. With 32 and
300 maps an agent of its own then measures the same; once its window of 60 s is
full, the CPU time of its process tells what a whole slice costs. Three minutes.";

/// How to measure what reading the counts costs.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// How often the drain is timed for each number of maps.
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// For how long the CPU time of the agent is measured for each number of maps.
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    time: Duration,
}

/// One number of maps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    maps: u32,
    /// Blocks in use: map × operation × outcome × CPU × range of latencies.
    blocks: u32,
    /// CPU time of one drain, in milliseconds, of each round.
    drain: Vec<f64>,
    /// The whole agent with the same, where that was measured.
    agent: Option<Whole>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    /// CPU time of the process per second, in milliseconds.
    cpu: f64,
    rss_bytes: u64,
}

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    points: Vec<Point>,
}

pub(crate) fn measure(common: &Common, args: &Args) -> anyhow::Result<Figures> {
    let mut points = Vec::new();
    for maps in MAPS {
        let mut series = Series::start(maps)?;
        let (blocks, drain) = alone(&mut series, args.rounds)?;
        eprintln!(
            "drain: {blocks} blocks on {maps} maps, {} ms each time",
            spread(&drain, 3)
        );
        let agent = WHOLE.contains(&maps).then(|| {
            eprintln!("drain: {maps} maps, the agent with a full window");
            whole(common, &mut series, args.time)
        });
        points.push(Point {
            maps,
            blocks,
            drain,
            agent: agent.transpose()?,
        });
    }
    Ok(Figures { points })
}

/// The drain alone: how many blocks there are in the end, and its CPU time in milliseconds.
fn alone(series: &mut Series, rounds: u32) -> anyhow::Result<(u32, Vec<f64>)> {
    let spec = format!(
        "{{\"maps\": [{{\"names\": [\"{}\"]}}], \"operations\": [\"Lookup\", \"Update\", \"GetNextKey\"]}}",
        series::NAME
    );
    let spec: MapLatencyProbeSpec = serde_json::from_str(&spec)?;
    let mut engine = Engine::load(TierChoice::Auto)?;
    let instance = engine.add(&spec.check()?)?;
    let ids: BTreeSet<u32> = series.ids.iter().copied().collect();
    let newest = ids.last().copied().context("a child without maps")?;
    let shown = BTreeMap::from([(instance, ids)]);
    engine.set_targets(&shown, newest)?;
    let mut drain = Vec::new();
    let mut blocks = 0;
    // The first time every block is new.
    for round in 0..=rounds {
        series.pass()?;
        let began = thread_time()?;
        let drained = engine.drain(&shown)?;
        let took = thread_time()?.saturating_sub(began);
        if round > 0 {
            drain.push(took.as_secs_f64() * 1e3);
        }
        blocks = drained.rows.get(&instance).map_or(0, blocks_of);
    }
    Ok((blocks, drain))
}

/// How many blocks rows of one caller take.
fn blocks_of(rows: &Rows) -> u32 {
    let blocks = rows.values().map(|it| {
        let both = it.kernel_window.buckets().chain(it.until_user.buckets());
        let blocks: BTreeSet<u16> = both.map(|it| it.0 / BLOCK).collect();
        u32::try_from(blocks.len()).unwrap_or(u32::MAX)
    });
    blocks.sum()
}

fn thread_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// An agent that measures the same, with its window full.
fn whole(common: &Common, series: &mut Series, time: Duration) -> anyhow::Result<Whole> {
    let spec = format!(
        "maps: [{{names: [{}]}}], {}",
        series::NAME,
        series::OPERATIONS
    );
    let running = agent::start(&common.agent, None, &spec)?;
    let pid = running.pid()?;
    let mut keep_busy = |time: Duration| -> anyhow::Result<f64> {
        let (began, cpu) = (Instant::now(), agent::cpu_seconds(pid)?);
        while began.elapsed() < time {
            series.pass()?;
            thread::sleep(SECOND);
        }
        Ok((agent::cpu_seconds(pid)? - cpu) / began.elapsed().as_secs_f64())
    };
    keep_busy(WARM_UP)?;
    let whole = Whole {
        cpu: keep_busy(time)? * 1e3,
        rss_bytes: agent::rss_bytes(pid)?,
    };
    running.stop()?;
    Ok(whole)
}

impl Section for Figures {
    const KEY: &'static str = "drain";

    fn render(&self, text: &mut String) -> fmt::Result {
        text.push_str(
            "## What reading the counts costs

Once a second the agent reads all blocks in use. A child process does lookups that hit and that miss, updates and steps to
the next key on the maps, on two CPUs, so that every block has changed. *A drain* is the CPU time of that reading alone,
the median of the rounds; *the agent* is that of its whole process with the same maps, once its window of 60 s is full: it
also lists maps, moves windows on, and looks for worst seconds and spikes. Its memory goes for what each second of the window
added to each row.

| Maps | Blocks in use | a drain, ms | the agent, ms per second | RSS, MiB |
|---|---|---|---|---|
",
        );
        for Point {
            maps,
            blocks,
            drain,
            agent,
        } in &self.points
        {
            let (cpu, rss) = agent.map_or_else(
                || ("-".to_owned(), "-".to_owned()),
                |it| (format!("{:.1}", it.cpu), (it.rss_bytes >> 20).to_string()),
            );
            let drain = spread(drain, 2);
            writeln!(text, "| {maps} | {blocks} | {drain} | {cpu} | {rss} |")?;
        }
        let points = |figure: fn(&Point) -> Option<f64>| -> Vec<(f64, f64)> {
            let points = self.points.iter();
            points
                .filter_map(|it| Some((f64::from(it.blocks), figure(it)?)))
                .collect()
        };
        let drain = Line::through(&points(|it| Some(median(&it.drain))));
        let agent = Line::through(&points(|it| Some(it.agent?.cpu)));
        match drain.zip(agent) {
            Some((drain, agent)) => computed(text, drain, agent),
            None => Ok(()),
        }
    }
}

/// What follows for a machine with many CPUs.
fn computed(text: &mut String, drain: Line, agent: Line) -> fmt::Result {
    let series = MANY_CPUS * RANGES;
    write!(
        text,
        "
By the straight line with the least squares, a drain takes {:.2} µs per block, and the agent {:.2} µs a second per block.

**Computed from these lines, and not measured, for {MANY_CPUS:.0} possible CPUs.** CPUs only multiply blocks (one for each map
× probe × operation × outcome × caller × CPU × range of latencies that occurred), and there are {BLOCKS_PER_AGENT:.0} of them
whatever the number of CPUs. The loss counters, which are read per CPU, are not in it.

| On {MANY_CPUS:.0} CPUs | Blocks | a drain, ms | the agent, ms per second |
|---|---|---|---|
",
        drain.per_unit * 1e3,
        agent.per_unit * 1e3,
    )?;
    for (what, blocks) in [
        ("one series that hits two ranges on each CPU", series),
        ("eight such series", 8.0 * series),
        ("all blocks in use, as 32 such series do", BLOCKS_PER_AGENT),
    ] {
        // Few blocks may lie where the line is below zero.
        let (drain, agent) = (drain.at(blocks).max(0.0), agent.at(blocks).max(0.0));
        writeln!(text, "| {what} | {blocks:.0} | {drain:.1} | {agent:.1} |")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use maplatency_core::measure::{Counts, SeriesKey};
    use maplatency_core::vocabulary::{Operation, Outcome};

    fn point(blocks: u32, drain: f64, agent: f64) -> Point {
        Point {
            maps: blocks / 16,
            blocks,
            drain: vec![drain],
            agent: Some(Whole {
                cpu: agent,
                rss_bytes: 12 << 20,
            }),
        }
    }

    #[test]
    fn figures_for_many_cpus_follow_the_line() {
        let figures = Figures {
            points: vec![point(64, 0.164, 2.64), point(6400, 6.5, 66.0)],
        };
        let mut text = String::new();
        figures.render(&mut text).unwrap();

        assert!(
            text.contains("| all blocks in use, as 32 such series do | 8192 | 8.3 | 83.9 |"),
            "{text}"
        );
        assert!(
            text.contains("a drain takes 1.00 µs per block, and the agent 10.00 µs"),
            "{text}"
        );
    }

    #[test]
    fn a_block_that_both_latencies_hit_counts_once() {
        let key = SeriesKey {
            map_id: 1,
            operation: Operation::Lookup,
            cpu: 0,
            outcome: Outcome::Success,
        };
        let mut counts = Counts::default();
        // 600 and 700 ns are of one power of two, 1,500 is of the next.
        counts.kernel_window.record(600);
        counts.until_user.record(700);
        counts.until_user.record(1_500);

        assert_eq!(blocks_of(&Rows::from([(key, counts)])), 2);
    }
}
