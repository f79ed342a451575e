//! Slow operations one by one, each with what is known of it in a line that a person understands.

use maplatency_core::crd::outliers::{EvidenceStatus, OutlierStatus, OutliersStatus};

use super::{clock_time, duration, name};
use maplatency_core::units;

/// Outliers that are shown.
const SHOWN: usize = 3;

/// The section, or nothing where there is no outlier.
pub(super) fn section(outliers: &OutliersStatus) -> Option<String> {
    let OutliersStatus {
        count,
        held_back,
        dropped,
        slowest,
    } = outliers;
    let number = |it: i64| units::count(it.unsigned_abs());
    (*count > 0).then(|| {
        let lines: String = slowest.iter().take(SHOWN).map(line).collect();
        format!(
            "\nOUTLIERS, the slowest of {}; {} held back, {} dropped\n{lines}",
            number(*count),
            number(*held_back),
            number(*dropped)
        )
    })
}

fn line(outlier: &OutlierStatus) -> String {
    let OutlierStatus {
        node: _,
        time,
        map,
        operation,
        outcome: _,
        until_user_nanoseconds,
        kernel_window_nanoseconds,
        cpu,
        cpu_after,
        key_size: _,
        entries: _,
        pid,
        tid: _,
        command,
        pod_uid: _,
        evidence,
    } = outlier;
    let moved = if cpu == cpu_after {
        format!("CPU {cpu}")
    } else {
        format!("CPU {cpu} to {cpu_after}")
    };
    format!(
        "{} {operation} on {} (id {}) by {command} (pid {pid}), {moved}, {} UTC:\n  {} in the kernel window; {}\n",
        duration(*until_user_nanoseconds),
        name(map),
        map.id,
        clock_time(time),
        duration(*kernel_window_nanoseconds),
        happened(evidence),
    )
}

/// What was seen, and nothing that was not.
fn happened(evidence: &EvidenceStatus) -> String {
    let EvidenceStatus {
        off_cpu_nanoseconds,
        run_delay_nanoseconds,
        voluntary_switches,
        involuntary_switches,
        migrations,
        minor_faults,
        major_faults,
        ran_instead,
    } = evidence;
    let mut parts = Vec::new();
    if *off_cpu_nanoseconds > 0 {
        parts.push(format!(
            "{} off the CPU ({} waiting for one)",
            duration(*off_cpu_nanoseconds),
            duration(*run_delay_nanoseconds)
        ));
    }
    if let Some(instead) = ran_instead {
        parts.push(format!(
            "{} (pid {}) ran for {}",
            instead.command,
            instead.pid,
            duration(instead.nanoseconds)
        ));
    }
    for (count, what) in [
        (voluntary_switches, "voluntary switch"),
        (involuntary_switches, "involuntary switch"),
        (migrations, "migration"),
        (minor_faults, "minor fault"),
        (major_faults, "major fault"),
    ] {
        let ending = match (count, what.ends_with("ch")) {
            (1, _) => "",
            (_, true) => "es",
            (_, false) => "s",
        };
        if *count > 0 {
            parts.push(format!("{count} {what}{ending}"));
        }
    }
    if parts.is_empty() {
        return "neither switched out nor faulted".to_owned();
    }
    parts.join(", ")
}
