//! Spikes, each as a line that says what a person would.

use maplatency_core::crd::spikes::SpikeStatus;

use super::{clock_time, duration, name, share};

/// The section, or nothing where there is no spike.
pub(super) fn section(spikes: &[SpikeStatus]) -> Option<String> {
    let lines: String = spikes.iter().map(line).collect();
    (!lines.is_empty()).then(|| format!("\nSPIKES, by share of the window's time lost\n{lines}"))
}

fn line(spike: &SpikeStatus) -> String {
    let SpikeStatus {
        node: _,
        map,
        operation,
        cpus,
        count,
        last_time,
        period_nanoseconds,
        duration_nanoseconds,
        p99_nanoseconds,
        max_nanoseconds: _,
        time_lost_parts_per_million,
    } = spike;
    let length = duration(*duration_nanoseconds);
    let last = clock_time(last_time);
    let when = match (period_nanoseconds, count) {
        (Some(period), _) => format!(
            "every {} for {length}, last at {last} UTC",
            duration(*period)
        ),
        (None, 1) => format!("once for {length} at {last} UTC"),
        (None, count) => format!("{count} times for {length}, last at {last} UTC"),
    };
    let each: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    let noun = if each.len() == 1 { "CPU" } else { "CPUs" };
    format!(
        "{operation} on {} (id {}), {noun} {}: {when}:\n  P99 {} inside, {} of the time lost\n",
        name(map),
        map.id,
        each.join(", "),
        duration(*p99_nanoseconds),
        share(*time_lost_parts_per_million),
    )
}
