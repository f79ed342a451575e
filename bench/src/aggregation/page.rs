//! The page.

use std::fmt::{self, Write as _};

use maplatency_bpf::Tier;

use super::Strategy;
use super::reader::Distribution;
use super::truth::{Errors, Figures};
use crate::machine::Machine;

const MIB: f64 = 1024.0 * 1024.0;

/// What one strategy cost in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CostRow {
    pub(crate) rss: u64,
    pub(crate) bpf: u64,
    pub(crate) missed: u64,
    pub(crate) reads: u64,
    /// Of one core.
    pub(crate) cpu_share: f64,
    /// What the median read took longer, in nanoseconds.
    pub(crate) added: i64,
}

/// All that was measured with one distribution.
#[derive(Debug)]
pub(crate) struct Outcome {
    distribution: Distribution,
    /// Medians without an agent, a round each.
    pub(crate) alone: Vec<u64>,
    /// By strategy, then by round.
    pub(crate) costs: [Vec<CostRow>; 4],
    pub(crate) errors: Vec<Errors>,
}

impl Outcome {
    pub(crate) fn new(distribution: Distribution) -> Self {
        Self {
            distribution,
            alone: Vec::new(),
            costs: [const { Vec::new() }; 4],
            errors: Vec::new(),
        }
    }
}

pub(crate) fn render(
    machine: &Machine,
    tier: Tier,
    rounds: u32,
    outcomes: &[Outcome],
) -> Result<String, fmt::Error> {
    let Machine {
        kernel,
        processor,
        cpus,
        preemption,
        ..
    } = machine;
    let mut text = String::new();
    writeln!(
        text,
        "{HEAD}
| | |
|---|---|
| Kernel | {kernel} |
| Preemption | {preemption} |
| Processor | {processor}, {cpus} CPUs |
| Tier | {tier} |
| Rounds | {rounds} |

{METHOD}"
    )?;
    for outcome in outcomes {
        section(&mut text, outcome)?;
    }
    Ok(text)
}

fn section(text: &mut String, outcome: &Outcome) -> fmt::Result {
    let (title, words) = match outcome.distribution {
        Distribution::Narrow => (
            "Narrow",
            "Short lookups in a hash with values of 8 bytes, which all do the same.",
        ),
        Distribution::Modes => (
            "Several modes",
            "Lookups in a hash with values of 32 KiB: four of five miss and copy nothing, one hits and copies all.",
        ),
        Distribution::Tail => (
            "Heavy tail",
            "Lookups that copy 128 KiB, one after the other, while two other threads want the reader's CPU all the time.",
        ),
    };
    writeln!(text, "\n## {title}\n\n{words}\n")?;
    costs(text, outcome)?;
    errors(text, outcome)?;
    own_clock(text, outcome)
}

fn costs(text: &mut String, outcome: &Outcome) -> fmt::Result {
    let alone: Vec<f64> = outcome.alone.iter().map(|it| number(*it)).collect();
    writeln!(
        text,
        "Without an agent the median read takes {:.0} ns by the reader's own clock.\n
| Strategy | RSS, MiB | BPF memory, MiB | CPU of the agent, % of a core | reads a second | added to the median read, ns | of what Histogram adds | missed |
|---|---|---|---|---|---|---|---|",
        median(&alone)
    )?;
    let of = |rows: &[CostRow], of: &dyn Fn(&CostRow) -> f64| {
        let values: Vec<f64> = rows.iter().map(of).collect();
        median(&values)
    };
    let added = |rows: &[CostRow]| of(rows, &|it| signed(it.added));
    let by_histogram = added(&outcome.costs[0]);
    for (strategy, rows) in Strategy::ALL.iter().zip(&outcome.costs) {
        let reads: u64 = rows.iter().map(|it| it.reads).sum();
        let missed: u64 = rows.iter().map(|it| it.missed).sum();
        let missed = match strategy {
            Strategy::Histogram | Strategy::Sampled => "-".to_owned(),
            Strategy::SlidingWindow | Strategy::Direct => format!("{missed} of {reads}"),
        };
        let ratio = added(rows) / by_histogram;
        writeln!(
            text,
            "| `{}` | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} | {ratio:.2} | {missed} |",
            strategy.as_str(),
            of(rows, &|it| number(it.rss) / MIB),
            of(rows, &|it| number(it.bpf) / MIB),
            of(rows, &|it| it.cpu_share * 100.0),
            of(rows, &|it| number(it.reads) * 1000.0
                / number(super::COST_MILLISECONDS)),
            added(rows),
        )?;
    }
    writeln!(text)
}

fn errors(text: &mut String, outcome: &Outcome) -> fmt::Result {
    writeln!(
        text,
        "| Error against all operations, % | P50 | P99 | P99.9 |\n|---|---|---|---|"
    )?;
    for (at, strategy) in Strategy::ALL.iter().enumerate() {
        let [p50, p99, p999] = worst(&outcome.errors, |it| (it.told[at], it.truth));
        writeln!(text, "| `{}` | {p50} | {p99} | {p999} |", strategy.as_str())?;
    }
    writeln!(text)
}

fn own_clock(text: &mut String, outcome: &Outcome) -> fmt::Result {
    writeln!(
        text,
        "| Check from outside, ns | P50 | P99 | P99.9 |\n|---|---|---|---|"
    )?;
    let row = |of: fn(&Errors) -> Figures| {
        let at = |it: usize| {
            let values: Vec<f64> = outcome.errors.iter().map(|e| number(of(e)[it])).collect();
            median(&values)
        };
        format!("{:.0} | {:.0} | {:.0}", at(0), at(1), at(2))
    };
    writeln!(
        text,
        "| all operations, as handed over (*until user*) | {} |\n| the reader's own clock | {} |",
        row(|it| it.truth),
        row(|it| it.reader)
    )
}

/// The error of the round in which it was largest.
fn worst(errors: &[Errors], of: impl Fn(&Errors) -> (Figures, Figures)) -> [String; 3] {
    std::array::from_fn(|at| {
        let of_round = |it: &Errors| {
            let (told, truth) = of(it);
            (number(told[at]) / number(truth[at]) - 1.0) * 100.0
        };
        let all = errors.iter().map(of_round);
        let worst = all.max_by(|a, b| a.abs().total_cmp(&b.abs()));
        worst.map_or_else(|| "-".to_owned(), |it| format!("{it:+.2}"))
    })
}

#[allow(
    clippy::cast_precision_loss,
    reason = "figures with three digits are told"
)]
fn number(value: u64) -> f64 {
    value as f64
}

#[allow(
    clippy::cast_precision_loss,
    reason = "figures with three digits are told"
)]
fn signed(value: i64) -> f64 {
    value as f64
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

const HEAD: &str = "\
# Strategies of aggregation

`spec.aggregation.strategy` says how operations become figures. Whatever it is, every operation counts (with `Sampled`,
every one that is chosen), reports stay cumulative, and merging over CPUs, nodes and seconds stays exact.

| Strategy | What it adds or leaves out | Choose it |
|---|---|---|
| `Histogram` (default) | nothing | as long as 0.79 % is close enough, and for whatever is merged: several nodes, a fleet, a comparison over time |
| `Sampled` | counts one operation in `oneIn` for all of them | where callers make so many operations that measuring each costs too much, and rare slow operations may be missed |
| `SlidingWindow` | exact percentiles of the newest `lastOperations` on each map, besides | to see what a map does right now, to the nanosecond: after a change, or where steps of 0.79 % hide a difference |
| `Direct` | exact percentiles of every operation in the window, besides; `run --operations FILE` writes them all | for a short look at one map, and to work on single operations with your own tools |

`SlidingWindow` forgets quickly: at 100,000 operations a second the newest 4,096 are 41 ms. Its P99.9 is that of four
operations beyond it, so it jumps about; `Direct` and `Histogram` have the whole window. Both hand every operation over to
the agent, which takes a ring buffer of 4 MiB in the kernel, 8 MiB of mapped memory in the agent, CPU time of the agent for
each operation, and 24 bytes for each one kept. What could not be handed over is counted and told as missed. What each
figure means is in [measurement.md](measurement.md#exact-figures).

Written by `make aggregation`, which takes about four minutes and needs an idle machine. Figures are true for one machine;
what strategies cost against each other holds better than nanoseconds.
";

const METHOD: &str = "\
A program makes 100,000 lookups a second, with a heavy tail as many as it can, and times each of them itself. All fields of
the spec but the strategy have their defaults.

**Cost.** Each strategy runs in an agent of its own, for two seconds of reads in every round, right after the same reads
without an agent. RSS is that of the agent's process at the end of the reads, BPF memory is what the agent tells of itself,
CPU is the process's time during the reads. *Added* is by how much the median read took longer by the reader's own clock.
Given are medians over the rounds, and of missed operations the sum.

**Error.** One agent runs all four strategies beside each other on 200,000 reads of every round (50,000 with a heavy
tail), so they see the same operations with the same latencies. The truth is all of these operations, as the kernel side
handed them over to `Direct`; if one was missed, there is no page. So `Direct` has no error by definition, `Histogram` has
that of its buckets, `Sampled` that of chance and of buckets, `SlidingWindow` that the newest operations are not all. Given
is the worst round.

**Check from outside.** What the reader's own clock said of the same reads. It contains two readings of a clock and the way
into and out of the kernel, which no hook sees, so it is a little more.";
