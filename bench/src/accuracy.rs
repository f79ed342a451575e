//! Both latencies against what the caller's own clock says, on every tier that this kernel takes.

mod text;

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use anyhow::Context as _;
use maplatency_agent::engine::{Refusal, TierChoice};
use maplatency_agent::monitor::{Monitor, MonitorError};
use maplatency_bpf::Tier;
use maplatency_core::histogram::{Histogram, Percentile, midpoint};
use nix::unistd::getppid;
use serde::{Deserialize, Serialize};

use crate::Common;
use crate::page::Section;
use crate::reader;
use crate::stats::median;
use crate::watch::{self, BothSides};
use crate::workload::Workload;

/// Bare system calls that are timed.
const BARE_CALLS: usize = 20_000;
/// The CPU of the readers.
const CPU: u32 = 1;
/// Short bursts, so that well over one read in a thousand is stalled and P99.9 lies among the stalls.
const HOGS: [&str; 6] = ["--hogs", "3", "--hog-run", "400us", "--hog-sleep", "400us"];
const PERCENTILES: [(&str, Percentile); 4] = [
    ("P50", Percentile::P50),
    ("P90", Percentile::P90),
    ("P99", Percentile::P99),
    ("P99.9", Percentile::P999),
];

const HELP: &str = "\
Per round and tier: a quiet reader of short values, whose median gives the
constant between the caller's clock and the hooks; then readers of short and of
long values, alone and beside three bursty CPU hogs, each held against its own
record of every read. Some four minutes; --rounds 1 takes one.";

/// How to compare latencies.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// How often each reader is compared.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// A part of the usual number of reads in each comparison, in per cent; few reads say little of P99.9.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    reads: u32,
}

/// Whose reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Reader {
    /// Reads of a microsecond or two, of few entries, so that their length does not depend on what is cached.
    Short,
    /// Reads of values of 32 KiB per CPU. Beside their length the way into the kernel is short.
    Long,
}

/// What runs beside it on its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Load {
    Alone,
    Hogs,
}

/// One reader under one tier, over all rounds. Nanoseconds, per percentile.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    tier: String,
    reader: Reader,
    load: Load,
    caller: [Vec<f64>; 4],
    /// The probes' until user, without the constant.
    until_user: [Vec<f64>; 4],
    kernel_window: [Vec<f64>; 4],
    /// How many in a hundred of the probes' figures, with the constant, are up to the caller's.
    rank: [Vec<f64>; 4],
}

/// One tier over all rounds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TierFigures {
    tier: String,
    /// What the caller's median is above that of the probes, of a quiet reader of short values.
    constant: Vec<f64>,
}

/// A reader that nothing measures, over all rounds. Medians in nanoseconds, by its own clock.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unmeasured {
    reader: Reader,
    caller: Vec<f64>,
    /// A bare system call, with caches as such a read leaves them.
    bare_call: Vec<f64>,
}

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    rounds: u32,
    /// Tiers that the kernel refused, and why.
    absent: Vec<String>,
    tiers: Vec<TierFigures>,
    rows: Vec<Row>,
    unmeasured: Vec<Unmeasured>,
    /// Reads that were compared.
    reads: u64,
    /// By how many the counts differed, and how many operations were lost.
    miscounted: u64,
    lost: u64,
}

impl Section for Figures {
    const KEY: &'static str = "accuracy";

    fn render(&self, text: &mut String) -> fmt::Result {
        self.write(text)
    }
}

impl Reader {
    const ALL: [Self; 2] = [Self::Short, Self::Long];

    /// How much a read copies, for two CPUs.
    fn copied(self) -> usize {
        match self {
            Self::Short => 16,
            Self::Long => 64 * 1024,
        }
    }

    fn arguments(self, per_cent: u32) -> Vec<String> {
        let (entries, size, reads) = match self {
            Self::Short => (1000, 8, 600_000),
            Self::Long => (32, 32_768, 200_000),
        };
        let reads = u64::from(per_cent) * reads / 100;
        let rest = format!(
            "--rate 0 --no-refresh --reader-cpu {CPU} --entries {entries} --value-size {size} --reads {reads}"
        );
        rest.split(' ').map(str::to_owned).collect()
    }
}

/// What the caller's clock says of a system call that does nothing, after so many bytes were copied: nanoseconds.
fn bare_call(copied: usize) -> f64 {
    let (from, mut to) = (vec![1_u8; copied], vec![0_u8; copied]);
    let times: Vec<f64> = (0..BARE_CALLS)
        .map(|_| {
            black_box(&mut to).copy_from_slice(black_box(&from));
            let began = Instant::now();
            black_box(getppid());
            began.elapsed().as_secs_f64() * 1e9
        })
        .collect();
    median(&times)
}

pub(crate) fn measure(common: &Common, args: &Args) -> anyhow::Result<Figures> {
    let mut comparison = Comparison::new(common, args);
    let mut tiers = Vec::new();
    for tier in Tier::ALL {
        match Monitor::start(TierChoice::Only(tier)) {
            Ok(_) => tiers.push(tier),
            Err(MonitorError::Load(error)) => {
                let refusal = Refusal::new(tier, &error);
                comparison.figures.absent.push(format!("tier {refusal}"));
            }
            Err(other) => return Err(other.into()),
        }
    }
    for round in 1..=args.rounds {
        eprintln!("accuracy: round {round} of {}: unmeasured", args.rounds);
        comparison.unmeasured()?;
        for tier in &tiers {
            eprintln!("accuracy: round {round} of {}: tier {tier}", args.rounds);
            comparison.round(*tier)?;
        }
    }
    Ok(comparison.figures)
}

struct Comparison<'a> {
    common: &'a Common,
    per_cent: u32,
    figures: Figures,
}

impl<'a> Comparison<'a> {
    fn new(common: &'a Common, args: &Args) -> Self {
        Self {
            common,
            per_cent: args.reads,
            figures: Figures {
                rounds: args.rounds,
                absent: vec![],
                tiers: vec![],
                rows: vec![],
                unmeasured: vec![],
                reads: 0,
                miscounted: 0,
                lost: 0,
            },
        }
    }

    fn workload(&self, reader: Reader, load: Load) -> anyhow::Result<Workload> {
        let arguments = reader.arguments(self.per_cent);
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if load == Load::Hogs {
            arguments.extend(HOGS);
        }
        Workload::start(&self.common.workload, &arguments)
    }

    /// Reads that no hook sees, and what a system call costs that does nothing.
    fn unmeasured(&mut self) -> anyhow::Result<()> {
        for reader in Reader::ALL {
            let mut workload = self.workload(reader, Load::Alone)?;
            workload.go()?;
            let truth = workload.truth()?;
            let bare_call = reader::on_cpu(CPU, move || bare_call(reader.copied()))?;
            let new = || Unmeasured {
                reader,
                caller: vec![],
                bare_call: vec![],
            };
            let row = find_or(&mut self.figures.unmeasured, |it| it.reader == reader, new);
            row.caller.push(as_f64(truth.percentiles()[0]));
            row.bare_call.push(bare_call);
        }
        Ok(())
    }

    /// All readers under one tier.
    fn round(&mut self, tier: Tier) -> anyhow::Result<()> {
        let monitor = Monitor::start(TierChoice::Only(tier))?;
        let calibration = self.compare(&monitor, Reader::Short, Load::Alone)?;
        let constant = as_f64(calibration.truth.percentiles()[0])
            - percentile(&calibration.seen.until_user, Percentile::P50)?;
        let new = || TierFigures {
            tier: tier.to_string(),
            constant: vec![],
        };
        find_or(&mut self.figures.tiers, |it| it.tier == tier.as_str(), new)
            .constant
            .push(constant);
        for load in [Load::Alone, Load::Hogs] {
            for reader in Reader::ALL {
                let sides = self.compare(&monitor, reader, load)?;
                self.row(tier, reader, load).add(&sides, constant)?;
            }
        }
        Ok(monitor.stop()?)
    }

    fn compare(
        &mut self,
        monitor: &Monitor,
        reader: Reader,
        load: Load,
    ) -> anyhow::Result<BothSides> {
        let mut workload = self.workload(reader, load)?;
        // A probe of its own for each, so that nothing of the one before is in it.
        let name = format!("{reader:?}-{load:?}-{}", workload.map_id).to_lowercase();
        let sides = watch::both_sides(monitor, &name, &mut workload)?;
        let reads = sides.truth.reads;
        self.figures.reads += reads;
        self.figures.miscounted += sides.seen.until_user.count().abs_diff(reads)
            + sides.seen.kernel_window.count().abs_diff(reads);
        self.figures.lost += sides.lost;
        Ok(sides)
    }

    fn row(&mut self, tier: Tier, reader: Reader, load: Load) -> &mut Row {
        let is_it = |it: &Row| it.tier == tier.as_str() && it.reader == reader && it.load == load;
        let new = || Row {
            tier: tier.to_string(),
            reader,
            load,
            caller: Default::default(),
            until_user: Default::default(),
            kernel_window: Default::default(),
            rank: Default::default(),
        };
        find_or(&mut self.figures.rows, is_it, new)
    }
}

impl Row {
    fn add(&mut self, sides: &BothSides, constant: f64) -> anyhow::Result<()> {
        let truth = sides.truth.percentiles();
        for (index, (_, which)) in PERCENTILES.into_iter().enumerate() {
            self.caller[index].push(as_f64(truth[index]));
            self.until_user[index].push(percentile(&sides.seen.until_user, which)?);
            self.kernel_window[index].push(percentile(&sides.seen.kernel_window, which)?);
            let up_to = as_f64(truth[index]) - constant;
            self.rank[index].push(rank_of(&sides.seen.until_user, up_to));
        }
        Ok(())
    }
}

/// The element that is wanted, which is made where there is none.
fn find_or<T>(list: &mut Vec<T>, is_it: impl Fn(&T) -> bool, new: impl FnOnce() -> T) -> &mut T {
    let at = list.iter().position(is_it).unwrap_or_else(|| {
        list.push(new());
        list.len() - 1
    });
    &mut list[at]
}

/// How many of a hundred are at most so long.
fn rank_of(histogram: &Histogram, up_to: f64) -> f64 {
    let (mut below, mut all) = (0, 0);
    for (bucket, count) in histogram.buckets() {
        all += count;
        if as_f64(midpoint(bucket)) <= up_to {
            below += count;
        }
    }
    100.0 * as_f64(below) / as_f64(all)
}

fn percentile(histogram: &Histogram, which: Percentile) -> anyhow::Result<f64> {
    let value = histogram.percentile(which);
    Ok(as_f64(value.context("the probes saw no read")?))
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_the_share_of_all_that_are_up_to_a_value() {
        let histogram: Histogram = [10, 20, 30, 40].into_iter().collect();

        assert!((rank_of(&histogram, 30.5) - 75.0).abs() < 1e-9);
        assert!(rank_of(&histogram, 5.0).abs() < 1e-9);
    }
}
