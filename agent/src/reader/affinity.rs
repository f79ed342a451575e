//! Pinning a thread to a CPU, and saying clearly why one cannot be used.

use std::collections::BTreeSet;
use std::fs;

use maplatency_bpf::sys::parse_cpu_list;
use maplatency_core::validate::CpuChoice;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Why a CPU cannot be read from.
#[derive(Debug, thiserror::Error)]
pub enum AffinityError {
    /// No such CPU.
    #[error("CPU {cpu} does not exist on this host; it has the CPUs {possible}")]
    Missing {
        /// The CPU asked for.
        cpu: u32,
        /// Those there are.
        possible: String,
    },
    /// Switched off.
    #[error("CPU {cpu} is offline; the CPUs {online} are online")]
    Offline {
        /// The CPU asked for.
        cpu: u32,
        /// Those there are.
        online: String,
    },
    /// Not for this process.
    #[error(
        "CPU {cpu} is online, but this process may only run on the CPUs {allowed}; a cpuset or an affinity mask keeps it from the others"
    )]
    Disallowed {
        /// The CPU asked for.
        cpu: u32,
        /// Those allowed.
        allowed: String,
    },
    /// The kernel answered something else than what was set.
    #[error("CPU {cpu} was set as the thread's only one, but the kernel says {actual}")]
    NotPinned {
        /// The CPU asked for.
        cpu: u32,
        /// What the kernel says.
        actual: String,
    },
    /// The kernel refused.
    #[error("could not pin a thread to CPU {cpu}")]
    Pin {
        /// The CPU asked for.
        cpu: u32,
        /// Why.
        source: nix::Error,
    },
    /// The CPUs of the host are unknown.
    #[error("could not read the CPUs of this host from {0}")]
    Unknown(&'static str),
}

/// The CPUs of a choice that can be read from, and why others cannot.
pub fn usable(choice: &CpuChoice) -> Result<(BTreeSet<u32>, Vec<AffinityError>), AffinityError> {
    let (possible, online) = (listed(POSSIBLE)?, listed(ONLINE)?);
    let allowed = allowed()?;
    let wanted = match choice {
        CpuChoice::All => return Ok((online.intersection(&allowed).copied().collect(), vec![])),
        CpuChoice::These(cpus) => cpus,
    };
    let (mut usable, mut refused) = (BTreeSet::new(), Vec::new());
    for &cpu in wanted {
        if !possible.contains(&cpu) {
            refused.push(AffinityError::Missing {
                cpu,
                possible: text(&possible),
            });
        } else if !online.contains(&cpu) {
            refused.push(AffinityError::Offline {
                cpu,
                online: text(&online),
            });
        } else if !allowed.contains(&cpu) {
            refused.push(AffinityError::Disallowed {
                cpu,
                allowed: text(&allowed),
            });
        } else {
            usable.insert(cpu);
        }
    }
    Ok((usable, refused))
}

/// Pins the calling thread to one CPU and checks that it is.
pub fn pin(cpu: u32) -> Result<(), AffinityError> {
    let refused = |source| AffinityError::Pin { cpu, source };
    let mut set = CpuSet::new();
    set.set(cpu as usize).map_err(refused)?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(refused)?;
    let actual = allowed()?;
    if actual != BTreeSet::from([cpu]) {
        return Err(AffinityError::NotPinned {
            cpu,
            actual: text(&actual),
        });
    }
    Ok(())
}

/// The CPUs that the calling thread may run on.
fn allowed() -> Result<BTreeSet<u32>, AffinityError> {
    let set = sched_getaffinity(Pid::from_raw(0))
        .map_err(|_| AffinityError::Unknown("sched_getaffinity(2)"))?;
    Ok((0u32..)
        .take(CpuSet::count())
        .filter(|cpu| set.is_set(*cpu as usize).unwrap_or(false))
        .collect())
}

fn listed(path: &'static str) -> Result<BTreeSet<u32>, AffinityError> {
    let text = fs::read_to_string(path).map_err(|_| AffinityError::Unknown(path))?;
    let cpus = parse_cpu_list(text.trim()).ok_or(AffinityError::Unknown(path))?;
    Ok(cpus
        .into_iter()
        .filter_map(|it| u32::try_from(it).ok())
        .collect())
}

/// As the kernel writes it: `0-3,7`.
fn text(cpus: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let parts: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_written_as_the_kernel_writes_them() {
        assert_eq!(text(&BTreeSet::from([0, 1, 2, 5, 7, 8])), "0-2,5,7-8");
        assert_eq!(text(&BTreeSet::new()), "");
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_named_with_those_that_do() {
        let (usable, refused) = usable(&CpuChoice::These(BTreeSet::from([0, 8000]))).unwrap();
        assert_eq!(usable, BTreeSet::from([0]));
        let message = refused[0].to_string();
        assert!(
            message.starts_with("CPU 8000 does not exist on this host; it has the CPUs 0"),
            "{message}"
        );
    }
}
