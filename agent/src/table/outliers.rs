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
            "\nOUTLIERS {}; the slowest of {} told, {} held back, {} dropped\n{lines}",
            number(*count),
            number(*count - held_back - dropped),
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
        "{} {operation} on {} (id {}) by {command} (pid {pid}), {moved}, {} UTC:\n  kernel window {}; {}\n",
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
            "off CPU {}, of that {} ready to run",
            duration(*off_cpu_nanoseconds),
            duration(*run_delay_nanoseconds)
        ));
    }
    if let Some(instead) = ran_instead {
        let (command, pid) = (&instead.command, instead.pid);
        let ran = duration(instead.nanoseconds);
        // One of many that ran meanwhile is not the reason.
        parts.push(if 2 * instead.nanoseconds >= *off_cpu_nanoseconds {
            format!("{command} (pid {pid}) ran {ran}")
        } else {
            format!("longest at a stretch ran {command} (pid {pid}), {ran}")
        });
    }
    let mut counts = Vec::new();
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
            counts.push(format!("{count} {what}{ending}"));
        }
    }
    match (parts.join(", "), counts.join(", ")) {
        (times, counts) if times.is_empty() && counts.is_empty() => {
            "neither switched out nor faulted".to_owned()
        }
        (times, counts) if times.is_empty() => counts,
        (times, counts) if counts.is_empty() => times,
        (times, counts) => format!("{times},\n  {counts}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::Timestamp;
    use maplatency_core::crd::outliers::RanInsteadStatus;
    use maplatency_core::crd::status::MapReference;
    use maplatency_core::{Operation, Outcome};

    fn outlier(evidence: EvidenceStatus) -> OutlierStatus {
        OutlierStatus {
            node: "node-a".to_owned(),
            time: MicroTime(Timestamp::from_microsecond(0).unwrap()),
            map: MapReference {
                id: 7,
                name: "ct".to_owned(),
                map_type: None,
            },
            operation: Operation::Lookup,
            outcome: Outcome::Success,
            until_user_nanoseconds: 4_000_000,
            kernel_window_nanoseconds: 900,
            cpu: 0,
            cpu_after: 0,
            key_size: 4,
            entries: 0,
            pid: 11,
            tid: 12,
            command: "reader".to_owned(),
            pod_uid: None,
            evidence,
        }
    }

    #[test]
    fn what_was_seen_is_told_and_nothing_else() {
        let waited = EvidenceStatus {
            off_cpu_nanoseconds: 3_990_000,
            run_delay_nanoseconds: 3_980_000,
            involuntary_switches: 1,
            migrations: 2,
            ran_instead: Some(RanInsteadStatus {
                pid: 13,
                command: "hog".to_owned(),
                nanoseconds: 2_500_000,
            }),
            ..EvidenceStatus::default()
        };
        let moved = OutlierStatus {
            cpu_after: 3,
            ..outlier(waited)
        };
        let outliers = OutliersStatus {
            count: 1_200,
            held_back: 7,
            dropped: 0,
            slowest: vec![moved, outlier(EvidenceStatus::default())],
        };
        assert_snapshot!(section(&outliers).unwrap(), @r"

        OUTLIERS 1.20k; the slowest of 1.19k told, 7 held back, 0 dropped
        4.00ms Lookup on ct (id 7) by reader (pid 11), CPU 0 to 3, 00:00:00 UTC:
          kernel window 900ns; off CPU 3.99ms, of that 3.98ms ready to run, hog (pid 13) ran 2.50ms,
          1 involuntary switch, 2 migrations
        4.00ms Lookup on ct (id 7) by reader (pid 11), CPU 0, 00:00:00 UTC:
          kernel window 900ns; neither switched out nor faulted
        ");
    }

    #[test]
    fn one_of_many_that_ran_meanwhile_is_not_told_as_the_reason() {
        let ran = |nanoseconds| {
            happened(&EvidenceStatus {
                off_cpu_nanoseconds: 2_000_000,
                ran_instead: Some(RanInsteadStatus {
                    pid: 13,
                    command: "hog".to_owned(),
                    nanoseconds,
                }),
                ..EvidenceStatus::default()
            })
        };
        assert!(ran(1_000_000).ends_with("hog (pid 13) ran 1.00ms"));
        assert!(ran(999_000).ends_with("longest at a stretch ran hog (pid 13), 999µs"));
    }

    #[test]
    fn without_outliers_there_is_nothing_to_tell() {
        assert_eq!(section(&OutliersStatus::default()), None);
    }
}
