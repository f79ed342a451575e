//! Where the figures come from.

use std::fs;
use std::thread;

use anyhow::Context as _;
use serde::Serialize;

/// What decides over figures.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) cpus: usize,
    pub(crate) preemption: String,
}

pub(crate) fn describe() -> anyhow::Result<Machine> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("could not read the kernel's release")?;
    let processors = fs::read_to_string("/proc/cpuinfo").context("could not read /proc/cpuinfo")?;
    let processor = processors
        .lines()
        .find_map(|it| it.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |it| it.1);
    // Told only where debugfs is mounted and preemption can be chosen at boot.
    let preemption = fs::read_to_string("/sys/kernel/debug/sched/preempt")
        .unwrap_or_else(|_| "not told, as debugfs is not mounted".to_owned());
    Ok(Machine {
        kernel: kernel.trim().to_owned(),
        processor: processor.to_owned(),
        cpus: thread::available_parallelism()?.get(),
        preemption: preemption.trim().to_owned(),
    })
}
