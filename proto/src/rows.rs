//! Rows of histograms, and the operations that key them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use maplatency_core::measure::{Counts, Place, Rows, SeriesKey, WorstSlice};
use maplatency_core::{Histogram, Operation, Outcome};

use crate::invalid::{Checked, Problem, parts_per_million, range, repeated, unix_microseconds};
use crate::{InvalidMessage, MAX_CPU, wire};

pub(crate) fn rows(wire: Vec<wire::Row>) -> Checked<Rows> {
    keyed("rows", wire, |row| {
        let wire::Row {
            map_id,
            operation,
            cpu,
            kernel_window,
            until_user,
            active_read,
            active_delay,
            outcome: outcome_number,
            entries,
            moved,
        } = row;
        let counts = Counts {
            kernel_window: histogram("kernel_window", kernel_window)?,
            until_user: histogram("until_user", until_user)?,
            entries,
            moved,
            active_read: histogram("active_read", active_read)?,
            active_delay: histogram("active_delay", active_delay)?,
        };
        let Place {
            map_id,
            operation,
            cpu,
        } = place(map_id, operation, cpu)?;
        let key = SeriesKey {
            map_id,
            operation,
            cpu,
            outcome: outcome("outcome", outcome_number)?,
        };
        Ok((key, counts))
    })
}

pub(crate) fn rows_to_wire(rows: Rows) -> Vec<wire::Row> {
    rows.into_iter()
        .map(|(key, counts)| {
            let Counts {
                kernel_window,
                until_user,
                entries,
                moved,
                active_read,
                active_delay,
            } = &counts;
            wire::Row {
                map_id: key.map_id,
                operation: operation_to_wire(key.operation),
                cpu: key.cpu,
                kernel_window: histogram_to_wire(kernel_window),
                until_user: histogram_to_wire(until_user),
                active_read: histogram_to_wire(active_read),
                active_delay: histogram_to_wire(active_delay),
                outcome: outcome_to_wire(key.outcome),
                entries: *entries,
                moved: *moved,
            }
        })
        .collect()
}

pub(crate) fn worst(wire: Vec<wire::WorstSlice>) -> Checked<BTreeMap<Place, WorstSlice>> {
    keyed("worst", wire, |slice| {
        let wire::WorstSlice {
            map_id,
            operation,
            cpu,
            start_unix_microseconds,
            count,
            p99_nanoseconds,
            max_nanoseconds,
            time_lost_parts_per_million,
        } = slice;
        let worst = WorstSlice {
            start_unix_microseconds: unix_microseconds(
                "start_unix_microseconds",
                start_unix_microseconds,
            )?,
            count,
            p99_nanoseconds,
            max_nanoseconds,
            time_lost_parts_per_million: parts_per_million(
                "time_lost_parts_per_million",
                time_lost_parts_per_million,
            )?,
        };
        Ok((place(map_id, operation, cpu)?, worst))
    })
}

pub(crate) fn worst_to_wire(worst: BTreeMap<Place, WorstSlice>) -> Vec<wire::WorstSlice> {
    worst
        .into_iter()
        .map(|(key, slice)| {
            let WorstSlice {
                start_unix_microseconds,
                count,
                p99_nanoseconds,
                max_nanoseconds,
                time_lost_parts_per_million,
            } = slice;
            wire::WorstSlice {
                map_id: key.map_id,
                operation: operation_to_wire(key.operation),
                cpu: key.cpu,
                start_unix_microseconds,
                count,
                p99_nanoseconds,
                max_nanoseconds,
                time_lost_parts_per_million,
            }
        })
        .collect()
}

pub(crate) fn operation(field: &str, wire: i32) -> Checked<Operation> {
    Operation::ALL
        .into_iter()
        .find(|it| operation_to_wire(*it) == wire)
        .ok_or_else(|| InvalidMessage::new(field, Problem::Unknown(wire.into())))
}

pub(crate) fn operation_to_wire(operation: Operation) -> i32 {
    let wire = match operation {
        Operation::Lookup => wire::Operation::Lookup,
        Operation::LookupAndDelete => wire::Operation::LookupAndDelete,
        Operation::LookupBatch => wire::Operation::LookupBatch,
        Operation::LookupAndDeleteBatch => wire::Operation::LookupAndDeleteBatch,
        Operation::GetNextKey => wire::Operation::GetNextKey,
        Operation::Update => wire::Operation::Update,
        Operation::UpdateBatch => wire::Operation::UpdateBatch,
        Operation::Delete => wire::Operation::Delete,
        Operation::DeleteBatch => wire::Operation::DeleteBatch,
    };
    wire.into()
}

pub(crate) fn outcome(field: &str, wire: i32) -> Checked<Outcome> {
    Outcome::ALL
        .into_iter()
        .find(|it| outcome_to_wire(*it) == wire)
        .ok_or_else(|| InvalidMessage::new(field, Problem::Unknown(wire.into())))
}

pub(crate) fn outcome_to_wire(outcome: Outcome) -> i32 {
    let wire = match outcome {
        Outcome::Success => wire::Outcome::Success,
        Outcome::NotFound => wire::Outcome::NotFound,
        Outcome::Full => wire::Outcome::Full,
        Outcome::Exists => wire::Outcome::Exists,
        Outcome::Busy => wire::Outcome::Busy,
        Outcome::NoMemory => wire::Outcome::NoMemory,
        Outcome::Invalid => wire::Outcome::Invalid,
        Outcome::Denied => wire::Outcome::Denied,
        Outcome::OtherError => wire::Outcome::OtherError,
    };
    wire.into()
}

fn place(map_id: u32, operation_number: i32, cpu: u32) -> Checked<Place> {
    Ok(Place {
        map_id: range("map_id", map_id, 1, i32::MAX)?,
        operation: operation("operation", operation_number)?,
        cpu: range("cpu", cpu, 0, MAX_CPU)?,
    })
}

/// Converts items into a map, each key once.
fn keyed<T, K: Ord, V>(
    field: &str,
    items: Vec<T>,
    convert: impl Fn(T) -> Checked<(K, V)>,
) -> Checked<BTreeMap<K, V>> {
    let mut map = BTreeMap::new();
    for (at, item) in items.into_iter().enumerate() {
        let (key, value) = convert(item).map_err(|e| e.within(format_args!("{field}[{at}]")))?;
        match map.entry(key) {
            Entry::Vacant(free) => free.insert(value),
            Entry::Occupied(_) => return Err(repeated(field, at, "map_id")),
        };
    }
    Ok(map)
}

/// An absent histogram is an empty one.
fn histogram(field: &str, wire: Option<wire::Histogram>) -> Checked<Histogram> {
    let wire::Histogram { buckets, counts } = wire.unwrap_or_default();
    let invalid = |problem| InvalidMessage::new(field, Problem::Histogram(problem));
    if buckets.len() != counts.len() {
        return Err(invalid(
            maplatency_core::histogram::InvalidHistogram::LengthsDiffer {
                buckets: buckets.len(),
                counts: counts.len(),
            },
        ));
    }
    Histogram::from_buckets(buckets.into_iter().zip(counts)).map_err(invalid)
}

fn histogram_to_wire(histogram: &Histogram) -> Option<wire::Histogram> {
    if histogram.is_empty() {
        return None;
    }
    let (buckets, counts) = histogram
        .buckets()
        .map(|(bucket, count)| (u32::from(bucket), count))
        .unzip();
    Some(wire::Histogram { buckets, counts })
}
