//! The probes in this kernel against a reader that times every read itself.

use anyhow::{Context as _, Result};
use maplatency_agent::monitor::Monitor;
use maplatency_core::histogram::Percentile;
use maplatency_e2e::measure::{BothSides, both_sides};
use maplatency_e2e::not_run;
use maplatency_e2e::workload::Truth;

/// A reader as fast as it can, of few entries, so that the length of a read does not depend on what is cached.
const READER: [&str; 7] = [
    "--rate",
    "0",
    "--no-refresh",
    "--entries",
    "1000",
    "--reader-cpu",
    "1",
];
/// Times that a measurement is tried before a machine counts as never steady.
const ATTEMPTS: usize = 8;

/// A percentile, what the reader says of it, and what the probes say.
struct Row {
    name: &'static str,
    caller: u64,
    probes: u64,
    /// 5 %, or what reading the clock costs.
    allowed: u64,
}

impl Row {
    fn agrees(&self, constant: u64) -> bool {
        self.caller.abs_diff(self.probes + constant) <= self.allowed
    }
}

fn rows(sides: &BothSides) -> Result<Vec<Row>> {
    let truth = &sides.truth;
    [
        ("P50", Percentile::P50, truth.p50_nanoseconds),
        ("P90", Percentile::P90, truth.p90_nanoseconds),
        ("P99", Percentile::P99, truth.p99_nanoseconds),
        ("P99.9", Percentile::P999, truth.p999_nanoseconds),
    ]
    .into_iter()
    .map(|(name, percentile, caller)| {
        let probes = sides.seen.until_user.percentile(percentile);
        Ok(Row {
            name,
            caller,
            probes: probes.context("the probes saw no read")?,
            allowed: (caller / 20).max(truth.clock_cost_nanoseconds),
        })
    })
    .collect()
}

/// What lies between the caller's clock and the system call, on both sides of a read: two halves of reading the
/// clock, and the way into and out of the kernel up to the hooks. It is measured on a quiet reader as the
/// difference of the medians, and taken as the same for every read.
fn constant(sides: &BothSides) -> Result<u64> {
    let median = &rows(sides)?[0];
    median
        .caller
        .checked_sub(median.probes)
        .context("a caller never sees less than the probes")
}

/// Whether the reader ran on a steady machine, by its own record alone.
///
/// Beside another busy virtual CPU of the same core the machine changes its speed by half from one second to the
/// next, and with it the way into the kernel, which then is no constant.
fn is_steady(truth: &Truth) -> bool {
    truth.p90_nanoseconds * 100 <= truth.p50_nanoseconds * 125
}

/// Whether interrupts hit so few reads that P99.9 lies below them.
///
/// An interrupt that falls between the caller's clock and the hooks lengthens the caller's reading alone. The timer
/// tick hits about one read in 2,000. Much above that, P99.9 lies at the edge of those reads, where it tells how
/// often the two windows were hit and not how long a read took.
fn is_undisturbed(truth: &Truth) -> bool {
    truth.slow.reads * 10_000 <= truth.reads * 7
}

/// Whether so many reads were stalled that P99.9 lies among them.
fn is_stalled(truth: &Truth) -> bool {
    truth.slow.reads * 1_000 >= truth.reads * 2
}

/// Measures until the reader's own record says that the machine let it. The count has to be right every time.
async fn measured(
    monitor: &Monitor,
    name: &str,
    more: &[&str],
    holds: fn(&Truth) -> bool,
) -> Result<(BothSides, bool)> {
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        let arguments = [&READER[..], more].concat();
        let sides = both_sides(monitor, &format!("{name}-{attempt}"), &arguments).await?;
        assert_eq!(
            sides.seen.until_user.count(),
            sides.truth.reads,
            "no read is lost or counted twice"
        );
        assert_eq!(sides.seen.kernel_window.count(), sides.truth.reads);
        assert_eq!(sides.lost, 0);
        let fits = holds(&sides.truth);
        last = Some((sides, fits));
        if fits {
            break;
        }
    }
    last.context("at least one attempt")
}

/// Prints both sides, and gives the percentiles that do not agree.
fn compare(what: &str, sides: &BothSides, constant: u64) -> Result<Vec<&'static str>> {
    println!("{what}: {} reads, constant {constant} ns", sides.truth.reads);
    let rows = rows(sides)?;
    for row in &rows {
        println!(
            "  {:6} caller {:>9} ns   probes and constant {:>9} ns   allowed ±{}",
            row.name,
            row.caller,
            row.probes + constant,
            row.allowed
        );
    }
    Ok(rows
        .iter()
        .filter(|it| !it.agrees(constant))
        .map(|it| it.name)
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn until_back_in_user_agrees_with_the_callers_own_clock() -> Result<()> {
    let monitor = Monitor::start()?;
    let quiet = |truth: &Truth| is_steady(truth) && is_undisturbed(truth);
    let reads = ["--reads", "1000000"];
    let (calibration, calm) = measured(&monitor, "calibration", &reads, quiet).await?;
    let constant = constant(&calibration)?;

    let (alone, undisturbed) = measured(&monitor, "alone", &reads, quiet).await?;
    let differ = compare("a reader alone", &alone, constant)?;
    if calm && undisturbed {
        assert!(differ.is_empty(), "{differ:?} differ");
    } else {
        not_run(
            "percentiles of a reader alone",
            &format!("this machine was never quiet in {ATTEMPTS} attempts; the counts were exact, {differ:?} differed"),
        )?;
    }

    // Short bursts, so that well over one read in a thousand is stalled and P99.9 lies among the stalls.
    let hogs = [&reads[..], &["--hogs", "3", "--hog-run", "400us", "--hog-sleep", "400us"]].concat();
    let stalled = |truth: &Truth| is_steady(truth) && is_stalled(truth);
    let (beside, steady) = measured(&monitor, "hogs", &hogs, stalled).await?;
    let differ = compare("a reader beside hogs", &beside, constant)?;
    if calm && steady {
        assert!(differ.is_empty(), "{differ:?} differ");
    } else {
        not_run(
            "percentiles of a reader beside hogs",
            &format!("this machine was never steady in {ATTEMPTS} attempts; the counts were exact, {differ:?} differed"),
        )?;
    }

    // On its way back to user mode, after the exit of the system call, is where the scheduler stops the reader.
    let stall = 100_000;
    let kernel = beside.seen.kernel_window.count_above(stall);
    let user = beside.seen.until_user.count_above(stall);
    println!("  reads over 0.1 ms: {kernel} in the kernel window, {user} until back in user");
    assert!(user >= 500, "the hogs stalled the reader only {user} times");
    assert!(kernel * 10 < user, "the kernel window sees {kernel} of {user} stalls");
    monitor.stop()?;
    Ok(())
}
