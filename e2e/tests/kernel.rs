//! The probes in this kernel against a reader that times every read itself.

use anyhow::{Context as _, Result, bail};
use maplatency_agent::engine::{LoadError, TierChoice};
use maplatency_agent::monitor::{Monitor, MonitorError};
use maplatency_bpf::Tier;
use maplatency_core::histogram::{Histogram, Percentile, midpoint};
use maplatency_e2e::measure::{BothSides, both_sides};
use maplatency_e2e::not_run;
use maplatency_e2e::workload::Truth;

/// Reads of a microsecond or two, of few entries, so that their length does not depend on what is cached.
const SHORT: [&str; 9] = [
    "--rate",
    "0",
    "--no-refresh",
    "--reader-cpu",
    "1",
    "--entries",
    "1000",
    "--reads",
    "1000000",
];
/// Reads of values of 32 KiB per CPU. Beside their length the way into the kernel is short, so every percentile is
/// that of reads, and so many of them are hit by interrupts that P99.9 lies among those.
const LONG: [&str; 11] = [
    "--rate",
    "0",
    "--no-refresh",
    "--reader-cpu",
    "1",
    "--entries",
    "32",
    "--reads",
    "500000",
    "--value-size",
    "32768",
];
/// Short bursts, so that well over one read in a thousand is stalled and P99.9 lies among the stalls.
const HOGS: [&str; 6] = ["--hogs", "3", "--hog-run", "400us", "--hog-sleep", "400us"];
/// Times that a machine is given to be steady.
const ATTEMPTS: usize = 5;

/// Short reads beside hogs, as many as there are in a time: how many stalls there are does not depend on how fast reads are.
fn stalled() -> Vec<&'static str> {
    let endless = SHORT.len() - 2;
    [&SHORT[..endless], &["--for", "8s"], &HOGS].concat()
}

/// A percentile, what the reader says of it, and what the probes say.
struct Row {
    name: &'static str,
    caller: u64,
    probes: u64,
    /// 5 %, or what reading the clock costs.
    /// What the probes say a little below and above the percentile.
    between: (u64, u64),
    allowed: u64,
}

impl Row {
    fn agrees(&self, constant: u64) -> bool {
        let (low, high) = self.between;
        let from = (low + constant).saturating_sub(self.allowed);
        (from..=high + constant + self.allowed).contains(&self.caller)
    }
}

/// Between which ranks the caller's P99 may lie with the probes, in reads per million.
///
/// Where the scheduler and timers disturb reads of 6 µs, the P99 lies among the reads that are hit. Of what hits a
/// read, a twentieth hits the 0.3 µs between the caller's clock and the hooks, which only the caller feels: it has so
/// many more reads beyond any value there. Where values rise by a tenth between two such ranks, 5 % are little.
const AROUND_P99: (u64, u64) = (988_000, 992_000);

fn rows(sides: &BothSides) -> Result<Vec<Row>> {
    let truth = &sides.truth;
    let seen = &sides.seen.until_user;
    let exactly = |percentile| seen.percentile(percentile).map(|it| (it, it, it));
    let p99 = seen.percentile(Percentile::P99);
    let around_p99 = p99.zip(at(seen, AROUND_P99.0)).zip(at(seen, AROUND_P99.1));
    [
        ("P50", exactly(Percentile::P50), truth.p50_nanoseconds),
        ("P90", exactly(Percentile::P90), truth.p90_nanoseconds),
        (
            "P99",
            around_p99.map(|((it, low), high)| (it, low, high)),
            truth.p99_nanoseconds,
        ),
        ("P99.9", exactly(Percentile::P999), truth.p999_nanoseconds),
    ]
    .into_iter()
    .map(|(name, probes, caller)| {
        let (probes, low, high) = probes.context("the probes saw no read")?;
        Ok(Row {
            name,
            caller,
            probes,
            between: (low, high),
            allowed: (caller / 20).max(truth.clock_cost_nanoseconds),
        })
    })
    .collect()
}

/// The value with so many parts per million of all values up to it.
fn at(histogram: &Histogram, parts_per_million: u64) -> Option<u64> {
    let rank = (histogram.count() * parts_per_million).div_ceil(1_000_000);
    let mut seen = 0;
    let mut buckets = histogram.buckets();
    let (bucket, _) = buckets.find(|it| {
        seen += it.1;
        seen >= rank
    })?;
    Some(midpoint(bucket))
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
    truth.p90_nanoseconds * 100 <= truth.p50_nanoseconds * 112
}

/// Measures a reader. The count has to be right.
async fn measured(monitor: &Monitor, name: &str, arguments: &[&str]) -> Result<BothSides> {
    let sides = both_sides(monitor, name, arguments).await?;
    let reads = sides.truth.reads;
    assert_eq!(
        sides.seen.until_user.count(),
        reads,
        "no read is lost or counted twice"
    );
    assert_eq!(sides.seen.kernel_window.count(), reads);
    assert_eq!(sides.lost, 0);
    Ok(sides)
}

/// Measures short reads until the machine is steady, which the last of the attempts may not be either.
async fn steady(monitor: &Monitor, name: &str) -> Result<BothSides> {
    for attempt in 1..ATTEMPTS {
        let sides = measured(monitor, &format!("{name}-{attempt}"), &SHORT).await?;
        if is_steady(&sides.truth) {
            return Ok(sides);
        }
    }
    measured(monitor, name, &SHORT).await
}

/// Prints both sides, and gives the percentiles that do not agree.
fn compare(what: &str, sides: &BothSides, constant: u64) -> Result<Vec<&'static str>> {
    println!(
        "{what}: {} reads, constant {constant} ns",
        sides.truth.reads
    );
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

/// Measures until all four percentiles agree at once.
///
/// A percentile that lies among interrupts or stalls rests on a few hundred reads, and whether the machine is disturbed
/// between the caller's clock and the hooks is chance. An error of the probes would show every time.
async fn agrees(monitor: &Monitor, what: &str, arguments: &[&str], constant: u64) -> Result<()> {
    let mut differed = Vec::new();
    for attempt in 1..=ATTEMPTS {
        let sides = measured(monitor, &format!("{what} {attempt}"), arguments).await?;
        let differ = compare(what, &sides, constant)?;
        if differ.is_empty() {
            return Ok(());
        }
        differed.push(differ);
    }
    bail!("{what}: more than 5 % apart in every attempt: {differed:?}")
}

/// Measures the constant on one quiet reader, and holds P50 and P90 of another one to it. Gives the constant.
///
/// P99 and above of short reads are interrupts that hit the read or the way to it, so they are left to long reads.
async fn short_reads_agree(monitor: &Monitor) -> Result<u64> {
    let mut differed = Vec::new();
    let mut last = 0;
    for attempt in 1..=ATTEMPTS {
        let calibration = steady(monitor, &format!("calibration {attempt}")).await?;
        let short = steady(monitor, &format!("short {attempt}")).await?;
        last = constant(&calibration)?;
        let mut differ = compare("a reader of short values alone", &short, last)?;
        differ.retain(|it| ["P50", "P90"].contains(it));
        if differ.is_empty() {
            return Ok(last);
        }
        if is_steady(&calibration.truth) && is_steady(&short.truth) {
            differed.push(differ);
        }
    }
    if differed.is_empty() {
        let reason =
            format!("the machine was never steady in {ATTEMPTS} attempts; the counts were exact");
        not_run("percentiles of short reads", &reason)?;
        return Ok(last);
    }
    bail!("short reads: more than 5 % apart in every attempt: {differed:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn until_back_in_user_agrees_with_the_callers_own_clock() -> Result<()> {
    let monitor = Monitor::start(TierChoice::Auto)?;
    let constant = short_reads_agree(&monitor).await?;
    agrees(&monitor, "a reader alone", &LONG, constant).await?;
    let hogs = [&LONG[..], &HOGS].concat();
    agrees(&monitor, "a reader beside hogs", &hogs, constant).await?;
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_window_misses_stalls_that_until_back_in_user_sees() -> Result<()> {
    let monitor = Monitor::start(TierChoice::Auto)?;
    let beside = measured(&monitor, "hogs", &stalled()).await?;

    // On its way back to user mode, after the exit of the system call, is where the scheduler stops the reader.
    let stall = 100_000;
    let kernel = beside.seen.kernel_window.count_above(stall);
    let user = beside.seen.until_user.count_above(stall);
    println!("reads over 0.1 ms: {kernel} in the kernel window, {user} until back in user");
    assert!(user >= 500, "the hogs stalled the reader only {user} times");
    assert!(
        kernel * 10 < user,
        "the kernel window sees {kernel} of {user} stalls"
    );
    monitor.stop()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tier_that_this_kernel_takes_counts_every_read() -> Result<()> {
    for tier in Tier::ALL {
        let monitor = match Monitor::start(TierChoice::Only(tier)) {
            Ok(monitor) => monitor,
            Err(MonitorError::Load(LoadError::OnlyTier { source, .. })) => {
                let LoadError::Program { step, source, .. } = *source else {
                    return Err(source.into());
                };
                let reason = format!("the kernel refuses it at {step}: {}", without_log(&source));
                not_run(&format!("tier {tier}"), &reason)?;
                continue;
            }
            Err(other) => return Err(other.into()),
        };
        measured(&monitor, &format!("{tier} alone"), &SHORT).await?;
        let beside = measured(&monitor, &format!("{tier} beside hogs"), &stalled()).await?;
        let stalls = beside.seen.until_user.count_above(100_000);
        assert!(stalls >= 500, "{tier} saw {stalls} stalls only");
        monitor.stop()?;
    }
    Ok(())
}

/// What an error says, without the verifier's log.
fn without_log(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let end = text.find(". Verifier output").unwrap_or(text.len());
    text[..end].to_owned()
}
