//! Where figures come from.

use std::fs;
use std::thread;
use std::time::SystemTime;

use anyhow::Context as _;
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// What decides over figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// The date and time of now, to the minute.
pub(crate) fn today() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.get(..16).unwrap_or(&now).replace('T', " ") + " UTC"
}

/// Seconds that the hypervisor has taken from all CPUs together since boot. `None` where nobody tells.
pub(crate) fn stolen_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    let ticks = f64::from(stolen_ticks(&text)?);
    Some(ticks / f64::from(u32::try_from(ticks_per_second).ok()?))
}

/// The eighth figure of the first line: user, nice, system, idle, iowait, irq, softirq, steal.
fn stolen_ticks(stat: &str) -> Option<u32> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    line.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_the_eighth_figure_of_all_cpus() {
        let stat = "cpu  95 0 61 20541 17 1 2 33 0 0\ncpu0 47 0 30 10000 8 0 1 11 0 0\n";
        assert_eq!(stolen_ticks(stat), Some(33));
        assert_eq!(stolen_ticks("cpu0 47 0 30 10000 8 0 1 11 0 0\n"), None);
    }
}
