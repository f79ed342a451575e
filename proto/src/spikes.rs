//! Spikes.

use std::time::Duration;

use maplatency_core::spikes::{MAX_SPIKES, Spike};

use crate::invalid::{
    Checked, each, length, nanoseconds, parts_per_million, range, unix_microseconds,
};
use crate::rows::{operation, operation_to_wire};
use crate::{InvalidMessage, MAX_CPU, MAX_CPUS_OF_SPIKE, Problem, wire};

pub(crate) fn spikes(wire: Vec<wire::Spike>) -> Checked<Vec<Spike>> {
    length("spikes", wire.len(), MAX_SPIKES)?;
    each("spikes", wire, spike)
}

pub(crate) fn spikes_to_wire(spikes: Vec<Spike>) -> Vec<wire::Spike> {
    spikes.into_iter().map(spike_to_wire).collect()
}

fn spike(wire: wire::Spike) -> Checked<Spike> {
    let wire::Spike {
        map_id,
        operation: operation_number,
        cpus,
        count,
        last_unix_microseconds,
        period_nanoseconds,
        duration_nanoseconds,
        p99_nanoseconds,
        max_nanoseconds,
        time_lost_parts_per_million,
    } = wire;
    length("cpus", cpus.len(), MAX_CPUS_OF_SPIKE)?;
    if cpus.is_empty() {
        return Err(InvalidMessage::new(
            "cpus",
            Problem::Form("at least one CPU"),
        ));
    }
    Ok(Spike {
        map_id: range("map_id", map_id, 1, i32::MAX)?,
        operation: operation("operation", operation_number)?,
        cpus: each("cpus", cpus, |it| range("value", it, 0, MAX_CPU))?
            .into_iter()
            .collect(),
        count: range("count", count, 1, u64::MAX)?,
        last_unix_microseconds: unix_microseconds(
            "last_unix_microseconds",
            last_unix_microseconds,
        )?,
        period: period_nanoseconds.map(Duration::from_nanos),
        duration: Duration::from_nanos(duration_nanoseconds),
        p99_nanoseconds,
        max_nanoseconds,
        time_lost_parts_per_million: parts_per_million(
            "time_lost_parts_per_million",
            time_lost_parts_per_million,
        )?,
    })
}

fn spike_to_wire(spike: Spike) -> wire::Spike {
    let Spike {
        map_id,
        operation,
        cpus,
        count,
        last_unix_microseconds,
        period,
        duration,
        p99_nanoseconds,
        max_nanoseconds,
        time_lost_parts_per_million,
    } = spike;
    wire::Spike {
        map_id,
        operation: operation_to_wire(operation),
        cpus: cpus.into_iter().take(MAX_CPUS_OF_SPIKE).collect(),
        count,
        last_unix_microseconds,
        period_nanoseconds: period.map(nanoseconds),
        duration_nanoseconds: nanoseconds(duration),
        p99_nanoseconds,
        max_nanoseconds,
        time_lost_parts_per_million,
    }
}
