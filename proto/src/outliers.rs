//! Outliers.

use std::sync::Arc;

use maplatency_core::callers::Container;
use maplatency_core::outliers::{
    Evidence, Instead, MAX_OUTLIERS, Outlier, OutlierCaller, OutlierCounts, Outliers,
};

use crate::invalid::{
    Checked, each, hexadecimal_id, kernel_name, length, present, range, unix_microseconds,
};
use crate::rows::{operation, operation_to_wire, outcome, outcome_to_wire};
use crate::{MAX_CPU, wire};

pub(crate) fn outliers(wire: wire::Outliers) -> Checked<Outliers> {
    let wire::Outliers {
        told,
        held_back,
        dropped,
        slowest,
    } = wire;
    length("slowest", slowest.len(), MAX_OUTLIERS)?;
    Ok(Outliers {
        counts: OutlierCounts {
            told,
            held_back,
            dropped,
        },
        slowest: each("slowest", slowest, |it| outlier(it).map(Arc::new))?,
    })
}

pub(crate) fn outliers_to_wire(outliers: Outliers) -> wire::Outliers {
    let Outliers {
        counts:
            OutlierCounts {
                told,
                held_back,
                dropped,
            },
        slowest,
    } = outliers;
    wire::Outliers {
        told,
        held_back,
        dropped,
        slowest: slowest.iter().map(|it| outlier_to_wire(it)).collect(),
    }
}

fn outlier(wire: wire::Outlier) -> Checked<Outlier> {
    let wire::Outlier {
        map_id,
        operation: operation_number,
        outcome: outcome_number,
        begin_unix_microseconds,
        until_user_nanoseconds,
        kernel_window_nanoseconds,
        key_size,
        entries,
        cpu,
        cpu_after,
        pid,
        tid,
        command,
        cgroup_id,
        pod_uid,
        container_id,
        evidence,
    } = wire;
    let id =
        |field: &str, text: Option<String>| text.map(|it| hexadecimal_id(field, it)).transpose();
    Ok(Outlier {
        map_id: range("map_id", map_id, 1, i32::MAX)?,
        operation: operation("operation", operation_number)?,
        outcome: outcome("outcome", outcome_number)?,
        begin_unix_microseconds: unix_microseconds(
            "begin_unix_microseconds",
            begin_unix_microseconds,
        )?,
        until_user_nanoseconds,
        kernel_window_nanoseconds,
        key_size,
        entries,
        cpu: range("cpu", cpu, 0, MAX_CPU)?,
        cpu_after: range("cpu_after", cpu_after, 0, MAX_CPU)?,
        caller: OutlierCaller {
            pid: range("pid", pid, 0, i32::MAX)?,
            tid: range("tid", tid, 0, i32::MAX)?,
            command: kernel_name("command", command)?,
            cgroup_id,
            container: Container {
                pod_uid: id("pod_uid", pod_uid)?,
                container_id: id("container_id", container_id)?,
            },
        },
        evidence: evidence_from_wire(present("evidence", evidence)?)
            .map_err(|e| e.within("evidence"))?,
    })
}

fn outlier_to_wire(outlier: &Outlier) -> wire::Outlier {
    let Outlier {
        map_id,
        operation,
        outcome,
        begin_unix_microseconds,
        until_user_nanoseconds,
        kernel_window_nanoseconds,
        key_size,
        entries,
        cpu,
        cpu_after,
        caller:
            OutlierCaller {
                pid,
                tid,
                command,
                cgroup_id,
                container:
                    Container {
                        pod_uid,
                        container_id,
                    },
            },
        evidence,
    } = outlier.clone();
    wire::Outlier {
        map_id,
        operation: operation_to_wire(operation),
        outcome: outcome_to_wire(outcome),
        begin_unix_microseconds,
        until_user_nanoseconds,
        kernel_window_nanoseconds,
        key_size,
        entries,
        cpu,
        cpu_after,
        pid,
        tid,
        command,
        cgroup_id,
        pod_uid,
        container_id,
        evidence: Some(evidence_to_wire(evidence)),
    }
}

fn evidence_from_wire(wire: wire::Evidence) -> Checked<Evidence> {
    let wire::Evidence {
        off_cpu_nanoseconds,
        run_delay_nanoseconds,
        voluntary_switches,
        involuntary_switches,
        migrations,
        minor_faults,
        major_faults,
        instead,
    } = wire;
    let instead = instead.map(|it| {
        Ok(Instead {
            pid: range("instead.pid", it.pid, 0, i32::MAX)?,
            command: kernel_name("instead.command", it.command)?,
            nanoseconds: it.nanoseconds,
        })
    });
    Ok(Evidence {
        off_cpu_nanoseconds,
        run_delay_nanoseconds,
        voluntary_switches,
        involuntary_switches,
        migrations,
        minor_faults,
        major_faults,
        instead: instead.transpose()?,
    })
}

fn evidence_to_wire(evidence: Evidence) -> wire::Evidence {
    let Evidence {
        off_cpu_nanoseconds,
        run_delay_nanoseconds,
        voluntary_switches,
        involuntary_switches,
        migrations,
        minor_faults,
        major_faults,
        instead,
    } = evidence;
    wire::Evidence {
        off_cpu_nanoseconds,
        run_delay_nanoseconds,
        voluntary_switches,
        involuntary_switches,
        migrations,
        minor_faults,
        major_faults,
        instead: instead.map(
            |Instead {
                 pid,
                 command,
                 nanoseconds,
             }| wire::Instead {
                pid,
                command,
                nanoseconds,
            },
        ),
    }
}
