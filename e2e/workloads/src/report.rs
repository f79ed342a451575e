//! The result, for people and for programs.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::Args;
use crate::clock::{MILLISECOND, SECOND};
use crate::cpu;
use crate::refresher::{Refresh, Refreshes};
use crate::session::Outcome;
use crate::stats::{Percentiles, SLOW_FACTOR, Slow, Stats, WorstSecond};

/// The line that says that the map is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename = "ready", rename_all = "camelCase")]
pub(crate) struct Ready<'a> {
    pid: u32,
    map_id: u32,
    map_name: &'a str,
}

impl<'a> Ready<'a> {
    /// Of this process and this map.
    pub(crate) fn new(map_name: &'a str, map_id: u32) -> Self {
        Self {
            pid: std::process::id(),
            map_id,
            map_name,
        }
    }

    /// As one line of JSON.
    pub(crate) fn json(&self) -> Result<String> {
        serde_json::to_string(self).context("could not write the ready line as JSON")
    }

    /// For people.
    pub(crate) fn text(&self, args: &Args) -> String {
        let until = match (args.duration, args.reads) {
            (Some(time), None) => format!("for {}", humantime::format_duration(time)),
            (None, Some(reads)) => format!("{} times", grouped(reads)),
            (Some(time), Some(reads)) => format!(
                "{} times or for {}",
                grouped(reads),
                humantime::format_duration(time)
            ),
            (None, None) => "until SIGINT".to_owned(),
        };
        let Self {
            pid,
            map_id,
            map_name,
        } = self;
        format!("Reading map {map_name} (id {map_id}) {until}, pid {pid}")
    }
}

/// Everything that a run has shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename = "result", rename_all = "camelCase")]
pub(crate) struct Report<'a> {
    pid: u32,
    map_id: u32,
    map_name: &'a str,
    entries: u32,
    reader_thread_id: i32,
    reader_cpu: usize,
    cpu_seen: &'a [usize],
    reads_per_second_wanted: u64,
    reads: u64,
    misses: u64,
    errors: u64,
    first_error: Option<String>,
    unrecorded_reads: u64,
    start_monotonic_nanoseconds: u64,
    elapsed_nanoseconds: u64,
    reads_per_second: f64,
    clock_cost_nanoseconds: u64,
    #[serde(flatten)]
    latencies: Percentiles,
    slow: Slow,
    worst_second: WorstSecond,
    late_starts: Option<LateStarts>,
    involuntary_switches: i64,
    voluntary_switches: i64,
    refresher: Option<Refresher<'a>>,
    hogs: u16,
    hog_cpu: Option<usize>,
}

/// How late a paced reader began its reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct LateStarts {
    #[serde(flatten)]
    delays: Percentiles,
    skipped_reads: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Refresher<'a> {
    cpu: usize,
    period_nanoseconds: u64,
    refreshes: u64,
    failed_refreshes: u64,
    first_error: Option<String>,
    mean_duration_nanoseconds: u64,
    max_duration_nanoseconds: u64,
    list: &'a [Refresh],
}

impl<'a> Refresher<'a> {
    fn new(args: &Args, cpu: usize, refreshes: &'a Refreshes) -> Self {
        let Refreshes {
            list,
            complete,
            failed,
            first_error,
        } = refreshes;
        let durations = list.iter().map(|it| it.duration_nanoseconds);
        Self {
            cpu,
            period_nanoseconds: u64::try_from(args.refresh_period.as_nanos()).unwrap_or(u64::MAX),
            refreshes: *complete,
            failed_refreshes: *failed,
            first_error: first_error.as_ref().map(chain),
            mean_duration_nanoseconds: durations
                .clone()
                .sum::<u64>()
                .checked_div(list.len() as u64)
                .unwrap_or(0),
            max_duration_nanoseconds: durations.max().unwrap_or(0),
            list,
        }
    }
}

impl<'a> Report<'a> {
    /// Puts together what a run has shown.
    pub(crate) fn new(args: &Args, ready: &Ready<'a>, outcome: &'a Outcome, stats: &Stats) -> Self {
        let reading = &outcome.reading;
        Self {
            pid: ready.pid,
            map_id: ready.map_id,
            map_name: ready.map_name,
            entries: args.entries,
            reader_thread_id: reading.thread_id,
            reader_cpu: args.reader_cpu,
            cpu_seen: &reading.cpus,
            reads_per_second_wanted: args.rate,
            reads: reading.tally.reads,
            misses: reading.tally.misses,
            errors: reading.tally.errors,
            first_error: reading.tally.first_error.as_ref().map(chain),
            unrecorded_reads: reading.record.unrecorded(),
            start_monotonic_nanoseconds: reading.record.origin(),
            elapsed_nanoseconds: reading.elapsed,
            reads_per_second: per_second(reading.tally.reads, reading.elapsed),
            clock_cost_nanoseconds: outcome.clock_cost,
            latencies: stats.latencies,
            slow: stats.slow,
            worst_second: stats.worst_second,
            late_starts: stats.delays.map(|delays| LateStarts {
                delays,
                skipped_reads: reading.skipped,
            }),
            involuntary_switches: reading.involuntary_switches,
            voluntary_switches: reading.voluntary_switches,
            refresher: outcome
                .refreshes
                .as_ref()
                .map(|(cpu, refreshes)| Refresher::new(args, *cpu, refreshes)),
            hogs: args.hogs,
            hog_cpu: (args.hogs > 0).then(|| args.hog_cpu.unwrap_or(args.reader_cpu)),
        }
    }

    /// As one line of JSON.
    pub(crate) fn json(&self) -> Result<String> {
        serde_json::to_string(self).context("could not write the result as JSON")
    }

    /// As a table.
    pub(crate) fn text(&self) -> String {
        let mut rows = vec![("map", self.map_row()), ("reader", self.reader_row())];
        rows.push(("refresher", self.refresher_row()));
        if let Some(cpu) = self.hog_cpu {
            rows.push(("hogs", format!("{} on CPU {cpu}", self.hogs)));
        }
        rows.push(("", String::new()));
        rows.extend(percentile_rows(&self.latencies));
        rows.push(("", String::new()));
        rows.push(("reads", self.reads_row()));
        rows.extend(self.first_error.clone().map(|error| ("", error)));
        rows.push(("time lost", self.slow_row()));
        rows.push(("worst second", self.worst_second_row()));
        rows.extend(self.late_starts.map(|late| ("late starts", late.row())));
        rows.push(("switches", self.switches_row()));
        rows.push(("clock", self.clock_row()));
        table(&rows)
    }

    fn map_row(&self) -> String {
        format!(
            "{} (id {}), per-CPU hash, {} entries",
            self.map_name,
            self.map_id,
            grouped(u64::from(self.entries))
        )
    }

    fn reader_row(&self) -> String {
        format!(
            "pid {}, thread {}, seen on {}",
            self.pid,
            self.reader_thread_id,
            cpu::list(self.cpu_seen)
        )
    }

    fn refresher_row(&self) -> String {
        let Some(refresher) = &self.refresher else {
            return "none".to_owned();
        };
        let mut row = format!(
            "on CPU {}, every {}: ",
            refresher.cpu,
            time(refresher.period_nanoseconds)
        );
        match refresher.refreshes {
            0 => row.push_str("no refresh complete"),
            1 => write!(
                row,
                "1 refresh, {}",
                time(refresher.max_duration_nanoseconds)
            )
            .unwrap_or_default(),
            count => write!(
                row,
                "{} refreshes, mean {}, longest {}",
                grouped(count),
                time(refresher.mean_duration_nanoseconds),
                time(refresher.max_duration_nanoseconds)
            )
            .unwrap_or_default(),
        }
        if let Some(error) = &refresher.first_error {
            write!(row, "; {} failed: {error}", refresher.failed_refreshes).unwrap_or_default();
        }
        row
    }

    fn reads_row(&self) -> String {
        let wanted = match self.reads_per_second_wanted {
            0 => "unpaced".to_owned(),
            rate => format!("wanted {}", grouped(rate)),
        };
        let mut row = format!(
            "{} in {}, {}/s ({wanted}), {} misses, {} errors",
            grouped(self.reads),
            time(self.elapsed_nanoseconds),
            grouped(rounded(self.reads_per_second)),
            grouped(self.misses),
            grouped(self.errors)
        );
        if self.unrecorded_reads > 0 {
            write!(
                row,
                "; the record was full, the last {} are in no figure but this",
                grouped(self.unrecorded_reads)
            )
            .unwrap_or_default();
        }
        row
    }

    fn slow_row(&self) -> String {
        let Slow {
            threshold_nanoseconds,
            reads,
            lost_nanoseconds,
            lost_share,
        } = self.slow;
        format!(
            "{} of the run: {} by {} reads over {} ({SLOW_FACTOR} x P50)",
            percent(lost_share),
            time(lost_nanoseconds),
            grouped(reads),
            time(threshold_nanoseconds)
        )
    }

    fn worst_second_row(&self) -> String {
        let WorstSecond {
            start_nanoseconds,
            reads,
            p99_nanoseconds,
            max_nanoseconds,
            lost_nanoseconds: _,
            lost_share,
        } = self.worst_second;
        let more_than_there_is = if lost_share > 1.0 {
            " (a read counts whole where it began)"
        } else {
            ""
        };
        format!(
            "from {} s on: {} lost{more_than_there_is}, P99 {}, max {}, {} reads",
            start_nanoseconds / SECOND,
            percent(lost_share),
            time(p99_nanoseconds),
            time(max_nanoseconds),
            grouped(reads)
        )
    }

    fn switches_row(&self) -> String {
        format!(
            "{} involuntary, {} voluntary",
            self.involuntary_switches, self.voluntary_switches
        )
    }

    fn clock_row(&self) -> String {
        format!(
            "{}, contained in every read above",
            time(self.clock_cost_nanoseconds)
        )
    }
}

impl LateStarts {
    fn row(&self) -> String {
        format!(
            "P50 {}, P99 {}, P99.99 {}, max {}; {} reads skipped",
            time(self.delays.p50),
            time(self.delays.p99),
            time(self.delays.p9999),
            time(self.delays.max),
            grouped(self.skipped_reads)
        )
    }
}

fn percentile_rows(latencies: &Percentiles) -> [(&'static str, String); 6] {
    let Percentiles {
        min: _,
        p50,
        p90,
        p99,
        p999,
        p9999,
        max,
    } = *latencies;
    [
        ("P50", p50),
        ("P90", p90),
        ("P99", p99),
        ("P99.9", p999),
        ("P99.99", p9999),
        ("max", max),
    ]
    .map(|(name, value)| (name, format!("{:>9}", time(value))))
}

fn table(rows: &[(&str, String)]) -> String {
    let lines: Vec<String> = rows
        .iter()
        .map(|(name, value)| format!("{name:<13} {value}").trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// An error with its causes, as one line.
fn chain(error: &maplatency_bpf::sys::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        write!(text, ": {cause}").unwrap_or_default();
        source = cause.source();
    }
    text
}

/// Three significant digits and the unit that suits them: `512 ns`, `2.05 µs`, `40.0 ms`.
fn time(nanoseconds: u64) -> String {
    let (unit, name) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..MILLISECOND => (1_000, "µs"),
        MILLISECOND..SECOND => (MILLISECOND, "ms"),
        _ => (SECOND, "s"),
    };
    let hundredths = u128::from(nanoseconds) * 100 / u128::from(unit);
    let (whole, part) = (hundredths / 100, hundredths % 100);
    match whole {
        0..10 => format!("{whole}.{part:02} {name}"),
        10..100 => format!("{whole}.{} {name}", part / 10),
        _ => format!("{whole} {name}"),
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent < 1.0 { 3 } else { 1 };
    format!("{percent:.digits$} %")
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a rate needs no more than the 15 digits of an f64"
)]
fn per_second(count: u64, nanoseconds: u64) -> f64 {
    if nanoseconds == 0 {
        return 0.0;
    }
    count as f64 / (nanoseconds as f64 / SECOND as f64)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is never negative and far below 2^64"
)]
fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (2_057, "2.05 µs"),
            (40_049, "40.0 µs"),
            (999_999, "999 µs"),
            (3_524_000, "3.52 ms"),
            (10_000_000_000, "10.0 s"),
        ];
        for (nanoseconds, text) in cases {
            assert_eq!(time(nanoseconds), text);
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (60_000, "60,000")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn small_shares_keep_their_digits() {
        assert_eq!(percent(0.000_31), "0.031 %");
        assert_eq!(percent(0.0125), "1.2 %");
    }

    #[test]
    fn the_ready_line_is_what_scripts_wait_for() {
        let ready = Ready {
            pid: 12,
            map_id: 7,
            map_name: "demo_conntrack",
        };

        assert_eq!(
            ready.json().unwrap(),
            r#"{"event":"ready","pid":12,"mapId":7,"mapName":"demo_conntrack"}"#
        );
    }
}
