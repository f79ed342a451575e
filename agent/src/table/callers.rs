//! Who called, as rows of the table.

use maplatency_core::crd::callers::{CallerStatus, ProcessStatus};
use maplatency_core::units;

use super::{Column, NOTHING, duration, grid, name, share};

/// Longest name of a cgroup that fits.
const PLACE: usize = 22;
/// Digits of a uid or an id, as `docker ps` and `crictl ps` cut them.
const DIGITS: usize = 12;

const COLUMNS: &[Column] = &[
    Column::left("COMMAND"),
    Column::right("PID"),
    Column::left("IN"),
    Column::left("MAP"),
    Column::left("OPERATION"),
    Column::right("COUNT"),
    Column::right("P50"),
    Column::right("P99"),
    Column::right("MAX"),
    Column::right("SPENT"),
];

/// The section, or nothing where nobody called.
pub(super) fn section(callers: &[CallerStatus]) -> Option<String> {
    let rows: Vec<_> = callers.iter().map(row).collect();
    (!rows.is_empty()).then(|| {
        format!(
            "\nCALLERS, by share of the window's time spent in operations\n{}",
            grid(COLUMNS, &rows)
        )
    })
}

fn row(caller: &CallerStatus) -> Vec<String> {
    let CallerStatus {
        node: _,
        map,
        operation,
        process,
        callers,
        count,
        p50_nanoseconds,
        p99_nanoseconds,
        max_nanoseconds,
        time_spent_parts_per_million,
        time_lost_parts_per_million: _,
    } = caller;
    let mut row = match process {
        Some(it) => vec![it.command.clone(), it.pid.to_string(), place(it)],
        None => vec![
            format!("{callers} others"),
            NOTHING.to_owned(),
            NOTHING.to_owned(),
        ],
    };
    row.extend([
        name(map).to_owned(),
        operation.to_string(),
        units::count(count.unsigned_abs()),
        duration(*p50_nanoseconds),
        duration(*p99_nanoseconds),
        duration(*max_nanoseconds),
        share(*time_spent_parts_per_million),
    ]);
    row
}

/// The container, or the cgroup's own name.
fn place(process: &ProcessStatus) -> String {
    let start = |text: &str, length: usize| text.chars().take(length).collect::<String>();
    match (&process.container_id, &process.pod_uid, &process.cgroup) {
        (Some(id), _, _) => format!("container {}", start(id, DIGITS)),
        (None, Some(uid), _) => format!("pod {}", start(uid, DIGITS)),
        (None, None, Some(path)) => {
            let own = path.rsplit('/').next().unwrap_or(path);
            if own.chars().count() <= PLACE {
                own.to_owned()
            } else {
                format!("{}…", start(own, PLACE - 1))
            }
        }
        (None, None, None) => NOTHING.to_owned(),
    }
}
