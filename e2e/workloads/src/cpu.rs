//! Which CPUs there are, and pinning a thread to one of them.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use maplatency_bpf::sys::parse_cpu_list;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// The calling thread, where the scheduler's calls take a thread id.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Finds out whether `cpu`, the value of `option`, is one that this process may run on.
pub(crate) fn check(option: &str, cpu: usize) -> Result<()> {
    let allowed = members(&allowed()?);
    if allowed.contains(&cpu) {
        return Ok(());
    }
    let online = fs::read_to_string(ONLINE).with_context(|| format!("could not read {ONLINE}"))?;
    let online = parse_cpu_list(&online).with_context(|| format!("{ONLINE} is garbled"))?;
    let allowed = list(&allowed);
    if online.contains(&cpu) {
        bail!("{option}: this process is not allowed on CPU {cpu}, only on {allowed}");
    }
    bail!("{option}: CPU {cpu} is not online, this process is allowed on {allowed}");
}

/// Pins the calling thread to `cpu` and makes sure that the kernel agrees.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)
        .with_context(|| format!("there is no CPU {cpu}"))?;
    sched_setaffinity(THIS_THREAD, &only)
        .with_context(|| format!("could not pin a thread to CPU {cpu}"))?;
    let now = allowed()?;
    ensure!(
        now == only,
        "the kernel pinned a thread to {} instead of CPU {cpu}",
        list(&members(&now))
    );
    Ok(())
}

fn allowed() -> Result<CpuSet> {
    sched_getaffinity(THIS_THREAD).context("could not read the CPUs that this process may use")
}

/// The CPUs of a set in ascending order.
pub(crate) fn members(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect()
}

/// Writes CPUs as people and the kernel do: `CPUs 0-3,8`.
pub(crate) fn list(cpus: &[usize]) -> String {
    let ranges: Vec<String> = cpus
        .chunk_by(|before, after| before + 1 == *after)
        .map(|range| match range {
            [] => String::new(),
            [only] => only.to_string(),
            [first, .., last] => format!("{first}-{last}"),
        })
        .collect();
    let noun = if cpus.len() == 1 { "CPU" } else { "CPUs" };
    format!("{noun} {}", ranges.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_listed_in_the_kernels_notation() {
        assert_eq!(list(&[3]), "CPU 3");
        assert_eq!(list(&[0, 1]), "CPUs 0-1");
        assert_eq!(list(&[0, 2, 3, 4, 8]), "CPUs 0,2-4,8");
    }

    #[test]
    fn a_pinned_thread_may_run_on_that_cpu_only() {
        let cpus = std::thread::spawn(|| {
            let cpu = members(&allowed().unwrap())[0];
            pin(cpu).unwrap();
            (vec![cpu], members(&allowed().unwrap()))
        });

        let (wanted, got) = cpus.join().unwrap();
        assert_eq!(wanted, got);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused_with_the_option_and_the_alternatives() {
        let message = check("--reader-cpu", 1023).unwrap_err().to_string();

        assert!(message.starts_with("--reader-cpu: CPU 1023 is not online"));
        assert!(message.contains("allowed on CPU"), "{message}");
    }
}
