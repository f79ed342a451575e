//! Exact figures. They are never merged: nobody can compute the percentiles of a whole from those of its parts.

use std::cmp::Reverse;

use crate::crd::exact::ExactStatus;
use crate::crd::status::Percentiles;
use crate::exact::{ExactPercentiles, ExactRow, Latencies};
use crate::node_window::NodeWindow;

use super::{reference, signed};

/// Rows kept in `status.exact`.
const ROWS: usize = 10;

pub(super) fn status(windows: &[NodeWindow]) -> Vec<ExactStatus> {
    let mut all: Vec<(&NodeWindow, &ExactRow)> = windows
        .iter()
        .flat_map(|window| window.exact.iter().map(move |it| (window, it)))
        .collect();
    all.sort_by_key(|(_, it)| Reverse((it.count, it.missed)));
    all.truncate(ROWS);
    all.into_iter()
        .map(|(window, it)| row(window, it))
        .collect()
}

fn row(window: &NodeWindow, row: &ExactRow) -> ExactStatus {
    let ExactRow {
        map_id,
        operation,
        count,
        missed,
        let_go,
        span,
        latencies,
    } = row;
    let of = |of: fn(&Latencies) -> &ExactPercentiles| latencies.as_ref().map(of).map(percentiles);
    ExactStatus {
        node: window.node.clone(),
        map: reference(window, *map_id),
        operation: *operation,
        count: signed(*count),
        missed: signed(*missed),
        let_go: signed(*let_go),
        span_nanoseconds: signed(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        until_user: of(|it| &it.until_user),
        kernel_window: of(|it| &it.kernel_window),
    }
}

fn percentiles(exact: &ExactPercentiles) -> Percentiles {
    let ExactPercentiles {
        p50,
        p90,
        p99,
        p999,
        max,
    } = *exact;
    Percentiles {
        p50_nanoseconds: signed(p50),
        p90_nanoseconds: signed(p90),
        p99_nanoseconds: signed(p99),
        p999_nanoseconds: signed(p999),
        max_nanoseconds: signed(max),
    }
}
