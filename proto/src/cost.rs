//! What an agent costs, on the wire.

use maplatency_core::cost::{BpfRunTime, Cost, CpuTime};

use crate::invalid::{Checked, range};
use crate::{InvalidMessage, wire};

/// The resource knows signed numbers only.
const MAX: u64 = i64::MAX.unsigned_abs();

pub(crate) fn cost(wire: Option<wire::Cost>) -> Checked<Cost> {
    let Some(wire::Cost {
        cpu,
        rss_bytes,
        bpf_maps_bytes,
        bpf_programs_bytes,
        bpf_run_time,
    }) = wire
    else {
        // An agent of a version that does not tell.
        return Ok(Cost::default());
    };
    let bytes = |field, value: Option<u64>| value.map(|it| range(field, it, 0, MAX)).transpose();
    let fields = || {
        Ok(Cost {
            cpu: cpu.map(cpu_time).transpose()?,
            rss_bytes: bytes("rss_bytes", rss_bytes)?,
            bpf_maps_bytes: bytes("bpf_maps_bytes", bpf_maps_bytes)?,
            bpf_programs_bytes: bytes("bpf_programs_bytes", bpf_programs_bytes)?,
            bpf_run_time: bpf_run_time.map(run_time).transpose()?,
        })
    };
    fields().map_err(|e: InvalidMessage| e.within("cost"))
}

fn cpu_time(wire: wire::CpuTime) -> Checked<CpuTime> {
    let wire::CpuTime {
        period_nanoseconds: period,
        total_nanoseconds: total,
        readers_nanoseconds: readers,
    } = wire;
    let fields = || {
        Ok(CpuTime {
            period_nanoseconds: range("period_nanoseconds", period, 1, MAX)?,
            total_nanoseconds: range("total_nanoseconds", total, 0, MAX)?,
            readers_nanoseconds: readers
                .map(|it| range("readers_nanoseconds", it, 0, total))
                .transpose()?,
        })
    };
    fields().map_err(|e: InvalidMessage| e.within("cpu"))
}

fn run_time(wire: wire::BpfRunTime) -> Checked<BpfRunTime> {
    let wire::BpfRunTime {
        span_nanoseconds: span,
        run_nanoseconds: run,
        runs,
    } = wire;
    let fields = || {
        Ok(BpfRunTime {
            span_nanoseconds: range("span_nanoseconds", span, 1, MAX)?,
            run_nanoseconds: range("run_nanoseconds", run, 0, MAX)?,
            runs,
        })
    };
    fields().map_err(|e: InvalidMessage| e.within("bpf_run_time"))
}

pub(crate) fn cost_to_wire(cost: Cost) -> wire::Cost {
    let Cost {
        cpu,
        rss_bytes,
        bpf_maps_bytes,
        bpf_programs_bytes,
        bpf_run_time,
    } = cost;
    wire::Cost {
        cpu: cpu.map(
            |CpuTime {
                 period_nanoseconds,
                 total_nanoseconds,
                 readers_nanoseconds,
             }| wire::CpuTime {
                period_nanoseconds,
                total_nanoseconds,
                readers_nanoseconds,
            },
        ),
        rss_bytes,
        bpf_maps_bytes,
        bpf_programs_bytes,
        bpf_run_time: bpf_run_time.map(
            |BpfRunTime {
                 span_nanoseconds,
                 run_nanoseconds,
                 runs,
             }| wire::BpfRunTime {
                span_nanoseconds,
                run_nanoseconds,
                runs,
            },
        ),
    }
}
