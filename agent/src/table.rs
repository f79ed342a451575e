//! A status as text for a terminal of 100 columns.

mod callers;
mod cost;
mod exact;
mod objectives;
mod outliers;
mod spikes;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use maplatency_core::budget::Shed;
use maplatency_core::cost::Cost;
use maplatency_core::crd::objectives::Objective;
use maplatency_core::crd::status::{
    LossCount, MapLatencyProbeStatus, MapReference, OperationStatus, Percentiles, SlowRow,
    WorstSecond,
};
use maplatency_core::{Operation, Outcome, units};

use crate::host::Host;

/// Stands for what was not measured.
const NOTHING: &str = "-";
/// Maps that are named in the header; of the rest only the number is told.
const NAMED: usize = 4;
/// Between two columns.
const GAP: &str = "  ";

/// What a table tells besides the status.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The probe's name.
    pub probe: &'a str,
    /// The host.
    pub host: &'a Host,
    /// How the agent measures.
    pub tier: &'a str,
    /// Length of the window.
    pub window: Duration,
    /// How much of it has passed.
    pub span: Duration,
    /// Time since measuring began.
    pub elapsed: Duration,
    /// What the user wants of latencies.
    pub objectives: &'a [Objective],
    /// Whether the agent reads by itself.
    pub reads_actively: bool,
    /// Which maps are looked for, in words.
    pub wanted: &'a str,
    /// Names of the maps that match, with their ids.
    pub maps: &'a [String],
    /// How many maps matched earlier in the window and are gone.
    pub gone: usize,
    /// What keeps the probe from measuring all that it asks for.
    pub problems: &'a [String],
    /// Rows of the slowest to show at most.
    pub slowest: usize,
    /// What the agent costs.
    pub cost: Cost,
    /// What it leaves out to stay within its budget.
    pub shed: &'a [Shed],
}

/// The whole table, each line with its newline.
pub fn render(status: &MapLatencyProbeStatus, facts: &Facts<'_>) -> String {
    let mut parts = vec![header(status, facts)];
    parts.extend(facts.problems.iter().map(|it| format!("Problem: {it}\n")));
    parts.extend(status.sampled_one_in.map(|it| {
        format!(
            "Counts are estimates: one operation in {it} is counted, by chance, for all of them.\n"
        )
    }));
    if status.matched_maps == 0 && facts.gone > 0 {
        parts.push(format!(
            "\nNo map matches now; {} matched earlier in the window. Looking again every second.\n",
            facts.gone
        ));
    } else if status.matched_maps == 0 {
        parts.push(format!(
            "\nNo map matches yet. Looked for {}; looking again every second.\n",
            facts.wanted
        ));
    } else if status.operations.is_empty() {
        parts.push("\nNo operation on these maps so far.\n".to_owned());
    }
    if !status.operations.is_empty() {
        let rows = operation_rows(&status.operations, facts.reads_actively);
        parts.push(format!("\n{}", grid(OPERATION_COLUMNS, &rows)));
    }
    parts.extend(status.operations.iter().filter_map(batches));
    parts.extend(status.operations.iter().filter_map(migrations));
    parts.extend(objectives::section(facts.objectives, &status.objectives));
    parts.extend(exact::section(&status.exact));
    parts.extend(spikes::section(&status.spikes));
    parts.extend(status.outliers.as_ref().and_then(outliers::section));
    let worst: Vec<String> = status.operations.iter().filter_map(worst_second).collect();
    if !worst.is_empty() {
        parts.push(format!("\nWORST SECOND\n{}", worst.concat()));
    }
    if !status.slowest.is_empty() {
        let rows: Vec<_> = status
            .slowest
            .iter()
            .take(facts.slowest)
            .map(slow_row)
            .collect();
        parts.push(format!(
            "\nSLOWEST, by share of time lost\n{}",
            grid(SLOWEST_COLUMNS, &rows)
        ));
    }
    parts.extend(callers::section(&status.callers));
    parts.extend(cost::shed(facts.shed));
    parts.extend(cost::line(&facts.cost).map(|it| format!("\n{it}")));
    parts.concat().chars().map(shown).collect()
}

/// Anybody may give a process or a cgroup a name that moves the cursor, colours the screen or turns the text around.
fn shown(it: char) -> char {
    let turns =
        matches!(it, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if turns || it.is_control() && it != '\n' {
        char::REPLACEMENT_CHARACTER
    } else {
        it
    }
}

fn header(status: &MapLatencyProbeStatus, facts: &Facts<'_>) -> String {
    let Host {
        node,
        kernel,
        boot_id: _,
    } = facts.host;
    let maps = match facts.maps {
        [] => "none".to_owned(),
        names if names.len() <= NAMED => names.join(", "),
        names => format!(
            "{}, and {} more",
            names[..NAMED].join(", "),
            names.len() - NAMED
        ),
    };
    format!(
        "{} on {node}   kernel {kernel}   tier {}\nwindow {} of {}   elapsed {}   {}\nmaps {}: {maps}\n",
        facts.probe,
        facts.tier,
        seconds(facts.span.min(facts.window)),
        seconds(facts.window),
        seconds(facts.elapsed),
        unrecorded(&status.losses),
        status.matched_maps,
    )
}

/// Whole seconds, as windows are written.
fn seconds(duration: Duration) -> String {
    format!("{:.0}s", duration.as_secs_f64())
}

fn unrecorded(losses: &[LossCount]) -> String {
    if losses.is_empty() {
        return "unrecorded 0".to_owned();
    }
    let kinds: Vec<String> = losses
        .iter()
        .map(|it| format!("{} {}", it.kind, it.count))
        .collect();
    format!("unrecorded {}", kinds.join(", "))
}

const OPERATION_COLUMNS: &[Column] = &[
    Column::left("OPERATION"),
    Column::left("LATENCY"),
    Column::right("COUNT"),
    Column::right("P50"),
    Column::right("P90"),
    Column::right("P99"),
    Column::right("P99.9"),
    Column::right("MAX"),
];

fn operation_rows(operations: &[OperationStatus], reads_actively: bool) -> Vec<Vec<String>> {
    // Active reads are lookups, so no other operation has rows for them.
    let rows =
        |it: &OperationStatus| rows_of(it, reads_actively && it.operation == Operation::Lookup);
    operations.iter().flat_map(rows).collect()
}

/// Callers' two latencies below each other, so that what only one of them sees stands out.
fn rows_of(status: &OperationStatus, reads_actively: bool) -> Vec<Vec<String>> {
    let OperationStatus {
        operation,
        count,
        until_user,
        kernel_window,
        outcomes,
        entries: _,
        moved: _,
        worst_second: _,
        active,
    } = status;
    // Both latencies are taken of the same operations.
    let mut rows = vec![
        latency(
            operation.as_str(),
            "until user",
            *count,
            until_user.as_ref(),
        ),
        latency("", "kernel window", *count, kernel_window.as_ref()),
    ];
    // Until back in user mode, too. Where all calls did what they were called for there is nothing to add.
    let failed = outcomes.iter().filter(|it| it.outcome != Outcome::Success);
    rows.extend(failed.map(|it| {
        let name = format!("  {}", it.outcome);
        latency("", &name, it.count, Some(&it.until_user))
    }));
    if reads_actively || active.is_some() {
        let count = active.as_ref().map_or(0, |it| it.count);
        rows.push(latency(
            "",
            "active read",
            count,
            active.as_ref().map(|it| &it.read),
        ));
        rows.push(latency(
            "",
            "start delay",
            count,
            active.as_ref().map(|it| &it.start_delay),
        ));
    }
    rows
}

/// What one call of a batch moved, and what an element cost.
fn batches(status: &OperationStatus) -> Option<String> {
    let entries = status.entries?;
    Some(format!(
        "{}: {} entries, {} a call, {} an entry\n",
        status.operation,
        units::count(entries.count.unsigned_abs()),
        entries.count / status.count.max(1),
        duration(entries.mean_nanoseconds),
    ))
}

fn migrations(status: &OperationStatus) -> Option<String> {
    (status.moved > 0).then(|| {
        format!(
            "{}: {} of {} ended on another CPU than they began on\n",
            status.operation,
            units::count(status.moved.unsigned_abs()),
            units::count(status.count.unsigned_abs()),
        )
    })
}

fn latency(
    operation: &str,
    name: &str,
    count: i64,
    percentiles: Option<&Percentiles>,
) -> Vec<String> {
    let mut row = vec![
        operation.to_owned(),
        name.to_owned(),
        units::count(count.unsigned_abs()),
    ];
    match percentiles {
        None => row.extend([NOTHING; 5].map(str::to_owned)),
        Some(it) => row.extend(
            [
                it.p50_nanoseconds,
                it.p90_nanoseconds,
                it.p99_nanoseconds,
                it.p999_nanoseconds,
                it.max_nanoseconds,
            ]
            .map(duration),
        ),
    }
    row
}

fn worst_second(status: &OperationStatus) -> Option<String> {
    let WorstSecond {
        start_time,
        node: _,
        map,
        cpu,
        count: _,
        p99_nanoseconds,
        max_nanoseconds,
        time_lost_parts_per_million,
    } = status.worst_second.as_ref()?;
    Some(format!(
        "{} on {} (id {}), CPU {cpu}, at {} UTC: P99 {}, max {}, {} of that second lost\n",
        status.operation,
        name(map),
        map.id,
        clock_time(start_time),
        duration(*p99_nanoseconds),
        duration(*max_nanoseconds),
        share(*time_lost_parts_per_million),
    ))
}

fn clock_time(time: &MicroTime) -> String {
    time.0.strftime("%H:%M:%S").to_string()
}

const SLOWEST_COLUMNS: &[Column] = &[
    Column::left("MAP"),
    Column::right("ID"),
    Column::left("OPERATION"),
    Column::right("CPU"),
    Column::right("COUNT"),
    Column::right("P50"),
    Column::right("P99"),
    Column::right("P99.9"),
    Column::right("MAX"),
    Column::right("LOST"),
];

fn slow_row(row: &SlowRow) -> Vec<String> {
    let SlowRow {
        map,
        operation,
        node: _,
        cpu,
        count,
        until_user,
        time_lost_parts_per_million,
    } = row;
    vec![
        name(map).to_owned(),
        map.id.to_string(),
        operation.to_string(),
        cpu.to_string(),
        units::count(count.unsigned_abs()),
        duration(until_user.p50_nanoseconds),
        duration(until_user.p99_nanoseconds),
        duration(until_user.p999_nanoseconds),
        duration(until_user.max_nanoseconds),
        share(*time_lost_parts_per_million),
    ]
}

/// The kernel lets a map go without a name.
fn name(map: &MapReference) -> &str {
    if map.name.is_empty() {
        NOTHING
    } else {
        &map.name
    }
}

fn duration(nanoseconds: i64) -> String {
    units::duration(nanoseconds.unsigned_abs())
}

fn share(parts_per_million: i64) -> String {
    units::share(parts_per_million.unsigned_abs())
}

/// A column: its head, and on which side its cells stand.
struct Column {
    head: &'static str,
    right: bool,
}

impl Column {
    const fn left(head: &'static str) -> Self {
        Self { head, right: false }
    }

    const fn right(head: &'static str) -> Self {
        Self { head, right: true }
    }
}

/// Lines of equally wide columns. Every character is taken as one column wide, `µ` too.
fn grid(columns: &[Column], rows: &[Vec<String>]) -> String {
    let heads: Vec<String> = columns.iter().map(|it| it.head.to_owned()).collect();
    let width = |at: usize| {
        let cells = rows
            .iter()
            .chain([&heads])
            .map(|row| row[at].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in [&heads].into_iter().chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(columns.iter().zip(&widths))
            .map(|(cell, (column, width))| {
                if column.right {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        text += cells.join(GAP).trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
