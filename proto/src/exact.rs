//! Exact figures.

use std::time::Duration;

use maplatency_core::exact::{ExactPercentiles, ExactRow, Latencies, MAX_EXACT_ROWS};

use crate::invalid::{Checked, each, length, nanoseconds, present, range};
use crate::rows::{operation, operation_to_wire};
use crate::wire;

pub(crate) fn exact(wire: Vec<wire::ExactRow>) -> Checked<Vec<ExactRow>> {
    length("exact", wire.len(), MAX_EXACT_ROWS)?;
    each("exact", wire, row)
}

pub(crate) fn exact_to_wire(rows: &[ExactRow]) -> Vec<wire::ExactRow> {
    rows.iter().map(row_to_wire).collect()
}

fn row(wire: wire::ExactRow) -> Checked<ExactRow> {
    let wire::ExactRow {
        map_id,
        operation: operation_number,
        count,
        missed,
        let_go,
        span_nanoseconds,
        until_user,
        kernel_window,
    } = wire;
    // Both or none: they are of the same operations.
    let latencies = (until_user.is_some() || kernel_window.is_some())
        .then(|| {
            Ok(Latencies {
                until_user: percentiles("until_user", until_user)?,
                kernel_window: percentiles("kernel_window", kernel_window)?,
            })
        })
        .transpose()?;
    let least = u64::from(latencies.is_some());
    let most = if latencies.is_some() { u64::MAX } else { 0 };
    Ok(ExactRow {
        map_id: range("map_id", map_id, 1, i32::MAX)?,
        operation: operation("operation", operation_number)?,
        count: range("count", count, least, most)?,
        missed,
        let_go,
        span: Duration::from_nanos(span_nanoseconds),
        latencies,
    })
}

/// Each is at least the one before it.
fn percentiles(field: &str, wire: Option<wire::ExactPercentiles>) -> Checked<ExactPercentiles> {
    let wire::ExactPercentiles {
        p50,
        p90,
        p99,
        p999,
        max,
    } = present(field, wire)?;
    let rising = || {
        Ok(ExactPercentiles {
            p50,
            p90: range("p90", p90, p50, u64::MAX)?,
            p99: range("p99", p99, p90, u64::MAX)?,
            p999: range("p999", p999, p99, u64::MAX)?,
            max: range("max", max, p999, u64::MAX)?,
        })
    };
    rising().map_err(|e: crate::InvalidMessage| e.within(field))
}

fn row_to_wire(row: &ExactRow) -> wire::ExactRow {
    let ExactRow {
        map_id,
        operation,
        count,
        missed,
        let_go,
        span,
        latencies,
    } = row;
    wire::ExactRow {
        map_id: *map_id,
        operation: operation_to_wire(*operation),
        count: *count,
        missed: *missed,
        let_go: *let_go,
        span_nanoseconds: nanoseconds(*span),
        until_user: latencies.map(|it| percentiles_to_wire(it.until_user)),
        kernel_window: latencies.map(|it| percentiles_to_wire(it.kernel_window)),
    }
}

fn percentiles_to_wire(percentiles: ExactPercentiles) -> wire::ExactPercentiles {
    let ExactPercentiles {
        p50,
        p90,
        p99,
        p999,
        max,
    } = percentiles;
    wire::ExactPercentiles {
        p50,
        p90,
        p99,
        p999,
        max,
    }
}
