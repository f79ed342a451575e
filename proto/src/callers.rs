//! Who called.

use maplatency_core::callers::{CallerIdentity, CallerRow, Container};

use crate::invalid::{
    Checked, each, form, hexadecimal_id, kernel_name, length, parts_per_million, range,
    unix_microseconds,
};
use crate::rows::{operation, operation_to_wire};
use crate::{MAX_CALLER_ROWS, wire};

pub(crate) fn callers(rows: Vec<wire::CallerRow>) -> Checked<Vec<CallerRow>> {
    length("callers", rows.len(), MAX_CALLER_ROWS)?;
    each("callers", rows, row)
}

pub(crate) fn callers_to_wire(rows: Vec<CallerRow>) -> Vec<wire::CallerRow> {
    rows.into_iter().map(row_to_wire).collect()
}

fn row(wire: wire::CallerRow) -> Checked<CallerRow> {
    let wire::CallerRow {
        map_id,
        operation: operation_number,
        caller,
        callers,
        count,
        p50_nanoseconds,
        p99_nanoseconds,
        max_nanoseconds,
        time_spent_parts_per_million,
        time_lost_parts_per_million,
    } = wire;
    Ok(CallerRow {
        map_id: range("map_id", map_id, 1, i32::MAX)?,
        operation: operation("operation", operation_number)?,
        caller: caller
            .map(|it| identity(it).map_err(|e| e.within("caller")))
            .transpose()?,
        callers,
        count,
        p50_nanoseconds,
        p99_nanoseconds,
        max_nanoseconds,
        time_spent_parts_per_million,
        time_lost_parts_per_million: parts_per_million(
            "time_lost_parts_per_million",
            time_lost_parts_per_million,
        )?,
    })
}

fn row_to_wire(row: CallerRow) -> wire::CallerRow {
    let CallerRow {
        map_id,
        operation,
        caller,
        callers,
        count,
        p50_nanoseconds,
        p99_nanoseconds,
        max_nanoseconds,
        time_spent_parts_per_million,
        time_lost_parts_per_million,
    } = row;
    wire::CallerRow {
        map_id,
        operation: operation_to_wire(operation),
        caller: caller.map(identity_to_wire),
        callers,
        count,
        p50_nanoseconds,
        p99_nanoseconds,
        max_nanoseconds,
        time_spent_parts_per_million,
        time_lost_parts_per_million,
    }
}

fn identity(wire: wire::Caller) -> Checked<CallerIdentity> {
    let wire::Caller {
        pid,
        start_unix_microseconds,
        command,
        cgroup_id,
        cgroup,
        pod_uid,
        container_id,
    } = wire;
    let id =
        |field: &str, text: Option<String>| text.map(|it| hexadecimal_id(field, it)).transpose();
    Ok(CallerIdentity {
        pid: range("pid", pid, 1, i32::MAX)?,
        start_unix_microseconds: unix_microseconds(
            "start_unix_microseconds",
            start_unix_microseconds,
        )?,
        command: kernel_name("command", command)?,
        cgroup_id,
        // Four names of 95 bytes; a byte that is no UTF-8 becomes three.
        cgroup: form("cgroup", cgroup, "at most 1143 bytes", |it| {
            it.len() <= 1_143
        })?,
        container: Container {
            pod_uid: id("pod_uid", pod_uid)?,
            container_id: id("container_id", container_id)?,
        },
    })
}

fn identity_to_wire(caller: CallerIdentity) -> wire::Caller {
    let CallerIdentity {
        pid,
        start_unix_microseconds,
        command,
        cgroup_id,
        cgroup,
        container: Container {
            pod_uid,
            container_id,
        },
    } = caller;
    wire::Caller {
        pid,
        start_unix_microseconds,
        command,
        cgroup_id,
        cgroup,
        pod_uid,
        container_id,
    }
}
