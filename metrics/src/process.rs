//! What every process exports of itself, under the names that all client libraries use.

use std::fmt;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::Sink;
use crate::catalog::{PROCESS_CPU, PROCESS_MEMORY};
use crate::latency::seconds;

pub(crate) fn export(sink: &mut Sink<'_>) -> fmt::Result {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let time = usage.user_time() + usage.system_time();
        let nanoseconds = u64::try_from(time.num_nanoseconds()).unwrap_or_default();
        sink.counters(&PROCESS_CPU, [(vec![], seconds(nanoseconds))])?;
    }
    if let Some(bytes) = resident() {
        sink.gauge(&PROCESS_MEMORY, bytes)?;
    }
    Ok(())
}

fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    let kibibytes: u32 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(f64::from(kibibytes) * 1024.0)
}
