//! The slowest operations of all nodes.

use std::cmp::Reverse;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use crate::crd::outliers::{EvidenceStatus, OutlierStatus, OutliersStatus, RanInsteadStatus};
use crate::node_window::NodeWindow;
use crate::outliers::{Evidence, Outlier, OutlierCaller};

use super::{cpu_number, reference, signed};

/// Outliers kept in `status.outliers.slowest`.
const SLOWEST: usize = 10;

/// `None` where no node was asked for any.
pub(super) fn status(windows: &[NodeWindow]) -> Option<OutliersStatus> {
    let mut all = windows
        .iter()
        .filter_map(|it| Some((it, it.outliers.as_ref()?)));
    let mut status = OutliersStatus::default();
    let mut slowest: Vec<(&NodeWindow, &Outlier)> = Vec::new();
    let mut nodes = 0;
    for (window, outliers) in &mut all {
        let counts = outliers.counts;
        nodes += 1;
        status.held_back = status.held_back.saturating_add(signed(counts.held_back));
        status.dropped = status.dropped.saturating_add(signed(counts.dropped));
        let count = counts
            .told
            .saturating_add(counts.held_back)
            .saturating_add(counts.dropped);
        status.count = status.count.saturating_add(signed(count));
        slowest.extend(outliers.slowest.iter().map(|it| (window, &**it)));
    }
    slowest.sort_by_key(|it| Reverse(it.1.until_user_nanoseconds));
    slowest.truncate(SLOWEST);
    status.slowest = slowest
        .into_iter()
        .filter_map(|(window, it)| outlier(window, it))
        .collect();
    (nodes > 0).then_some(status)
}

fn outlier(window: &NodeWindow, outlier: &Outlier) -> Option<OutlierStatus> {
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
                cgroup_id: _,
                container,
            },
        evidence,
    } = outlier;
    Some(OutlierStatus {
        node: window.node.clone(),
        time: MicroTime(Timestamp::from_microsecond(*begin_unix_microseconds).ok()?),
        map: reference(window, *map_id),
        operation: *operation,
        outcome: *outcome,
        until_user_nanoseconds: signed(*until_user_nanoseconds),
        kernel_window_nanoseconds: signed(*kernel_window_nanoseconds),
        cpu: cpu_number(*cpu),
        cpu_after: cpu_number(*cpu_after),
        key_size: i64::from(*key_size),
        entries: i64::from(*entries),
        pid: i64::from(*pid),
        tid: i64::from(*tid),
        command: command.clone(),
        pod_uid: container.pod_uid.clone(),
        evidence: evidence_status(evidence),
    })
}

fn evidence_status(evidence: &Evidence) -> EvidenceStatus {
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
    EvidenceStatus {
        off_cpu_nanoseconds: signed(*off_cpu_nanoseconds),
        run_delay_nanoseconds: signed(*run_delay_nanoseconds),
        voluntary_switches: i64::from(*voluntary_switches),
        involuntary_switches: i64::from(*involuntary_switches),
        migrations: i64::from(*migrations),
        minor_faults: i64::from(*minor_faults),
        major_faults: i64::from(*major_faults),
        ran_instead: instead.as_ref().map(|it| RanInsteadStatus {
            pid: i64::from(it.pid),
            command: it.command.clone(),
            nanoseconds: signed(it.nanoseconds),
        }),
    }
}
