//! Exact figures: whole nanoseconds, and how much of the truth they are of.

use std::time::Duration;

use maplatency_core::crd::exact::ExactStatus;
use maplatency_core::crd::status::Percentiles;

use super::{Column, NOTHING, grid, name};

/// Maps and operations that are shown.
const SHOWN: usize = 4;

const COLUMNS: &[Column] = &[
    Column::left("MAP"),
    Column::left("OPERATION"),
    Column::left("LATENCY"),
    Column::right("COUNT"),
    Column::right("P50"),
    Column::right("P90"),
    Column::right("P99"),
    Column::right("P99.9"),
    Column::right("MAX"),
];

/// The section, or nothing where no exact figures are asked for.
pub(super) fn section(exact: &[ExactStatus]) -> Option<String> {
    if exact.is_empty() {
        return None;
    }
    let shown = exact.iter().take(SHOWN);
    let rows: Vec<Vec<String>> = shown.clone().flat_map(rows).collect();
    let notes: String = shown.map(note).collect();
    Some(format!(
        "\nEXACT, of single operations, in nanoseconds\n{}{notes}",
        grid(COLUMNS, &rows)
    ))
}

/// Both latencies below each other.
fn rows(exact: &ExactStatus) -> [Vec<String>; 2] {
    let row = |ends: [&str; 3], percentiles: Option<&Percentiles>| {
        let mut row: Vec<String> = ends.map(str::to_owned).to_vec();
        row.push(count(exact));
        row.extend(match percentiles {
            None => [NOTHING; 5].map(str::to_owned),
            Some(it) => [
                it.p50_nanoseconds,
                it.p90_nanoseconds,
                it.p99_nanoseconds,
                it.p999_nanoseconds,
                it.max_nanoseconds,
            ]
            .map(grouped),
        });
        row
    };
    let map = format!("{} (id {})", name(&exact.map), exact.map.id);
    let operation = exact.operation.as_str();
    [
        row([&map, operation, "until user"], exact.until_user.as_ref()),
        row(["", "", "kernel window"], exact.kernel_window.as_ref()),
    ]
}

/// How many operations, and of how many if not of all.
fn count(exact: &ExactStatus) -> String {
    let count = grouped(exact.count);
    match exact.missed {
        0 => count,
        missed => format!("{count} of {}", grouped(exact.count.saturating_add(missed))),
    }
}

/// Which operations those are, and which are not among them.
fn note(exact: &ExactStatus) -> String {
    let ExactStatus {
        node: _,
        map,
        operation,
        count: _,
        missed,
        let_go,
        span_nanoseconds,
        until_user: _,
        kernel_window: _,
    } = exact;
    let span = Duration::from_nanos(span_nanoseconds.unsigned_abs());
    let span = span.as_secs_f64();
    let missed = match missed {
        0 => String::new(),
        missed => format!("; INCOMPLETE, {} missed", grouped(*missed)),
    };
    let let_go = match let_go {
        0 => String::new(),
        let_go => format!("; {} older ones let go for room", grouped(*let_go)),
    };
    format!(
        "{operation} on id {}: within {span:.3}s{missed}{let_go}\n",
        map.id
    )
}

/// With a comma after every thousand.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use maplatency_core::Operation;
    use maplatency_core::crd::status::MapReference;

    fn exact(missed: i64, let_go: i64) -> ExactStatus {
        let percentiles = |scale: i64| Percentiles {
            p50_nanoseconds: scale,
            p90_nanoseconds: 2 * scale,
            p99_nanoseconds: 3 * scale,
            p999_nanoseconds: 999 * scale,
            max_nanoseconds: 1_234 * scale,
        };
        ExactStatus {
            node: "node-a".to_owned(),
            map: MapReference {
                id: 7,
                name: "ct".to_owned(),
                map_type: None,
            },
            operation: Operation::Lookup,
            count: 4_096,
            missed,
            let_go,
            span_nanoseconds: 1_234_567_890,
            until_user: Some(percentiles(1_423)),
            kernel_window: Some(percentiles(901)),
        }
    }

    #[test]
    fn no_nanosecond_is_rounded_and_what_is_missing_is_said() {
        let nothing = ExactStatus {
            count: 0,
            until_user: None,
            kernel_window: None,
            ..exact(12, 0)
        };
        let all = [exact(0, 0), exact(31, 1_000), nothing];
        assert_snapshot!(section(&all).unwrap(), @r"

        EXACT, of single operations, in nanoseconds
        MAP        OPERATION  LATENCY                 COUNT    P50    P90    P99      P99.9        MAX
        ct (id 7)  Lookup     until user              4,096  1,423  2,846  4,269  1,421,577  1,755,982
                              kernel window           4,096    901  1,802  2,703    900,099  1,111,834
        ct (id 7)  Lookup     until user     4,096 of 4,127  1,423  2,846  4,269  1,421,577  1,755,982
                              kernel window  4,096 of 4,127    901  1,802  2,703    900,099  1,111,834
        ct (id 7)  Lookup     until user            0 of 12      -      -      -          -          -
                              kernel window         0 of 12      -      -      -          -          -
        Lookup on id 7: within 1.235s
        Lookup on id 7: within 1.235s; INCOMPLETE, 31 missed; 1,000 older ones let go for room
        Lookup on id 7: within 1.235s; INCOMPLETE, 12 missed
        ");
    }

    #[test]
    fn without_exact_figures_there_is_nothing_to_tell() {
        assert_eq!(section(&[]), None);
    }

    #[test]
    fn thousands_are_told_apart() {
        let all = [0, 999, 1_000, 12_345_678].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "12,345,678"]);
    }
}
