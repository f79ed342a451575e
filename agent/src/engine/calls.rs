//! What system calls the host makes, which decides between two tiers.

use std::thread;
use std::time::Duration;

use aya::maps::PerCpuArray;
use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf};

use super::load_error::{self, LoadError};
use super::parts;

/// For how long system calls are counted.
const WATCH: Duration = Duration::from_secs(1);
/// From this share of bpf(2) on the raw tracepoints of all system calls cost less than those of bpf(2) alone, by
/// docs/performance.md: they spare 0.13 µs in each bpf(2) and add 0.055 µs to any other call.
const MOST: f64 = 0.30;
/// Too few to tell.
const FEW: u64 = 1_000;

/// System calls of all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calls {
    bpf: u64,
    others: u64,
}

impl Calls {
    /// Counts for a second.
    pub(super) fn watch(ebpf: &mut Ebpf, btf: &Btf) -> Result<Self, LoadError> {
        let refused = |step| load_error::refused(step, "count_calls");
        let program: &mut BtfTracePoint = parts::program(ebpf, "count_calls");
        program.load("sys_enter", btf).map_err(refused("load"))?;
        let link = program.attach().map_err(refused("attach"))?;
        thread::sleep(WATCH);
        program.detach(link).map_err(refused("detach"))?;
        program.unload().map_err(refused("unload"))?;
        let counts = parts::typed(ebpf, "call_counts", PerCpuArray::<_, u64>::try_from)?;
        let sum = |key| {
            let counts = counts.get(&key, 0).map_err(|source| LoadError::Map {
                map: "call_counts",
                source: source.into(),
            });
            Ok::<u64, LoadError>(counts?.iter().sum())
        };
        Ok(Self {
            others: sum(0)?,
            bpf: sum(1)?,
        })
    }

    /// The share of bpf(2), from 0 to 1.
    #[allow(
        clippy::cast_precision_loss,
        reason = "nobody makes 2^52 calls in a second"
    )]
    pub(super) fn share(self) -> f64 {
        self.bpf as f64 / (self.bpf + self.others).max(1) as f64
    }

    /// Whether so many are bpf(2) that hooks on all system calls cost less.
    pub(super) fn are_bpf_enough(self) -> bool {
        self.bpf >= FEW && self.share() > MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_calls_of_which_enough_are_bpf_decide() {
        for (bpf, others, enough) in [
            (0, 0, false),
            (999, 0, false),
            (1_000, 0, true),
            (30_000, 70_000, false),
            (31_000, 69_000, true),
        ] {
            assert_eq!(
                Calls { bpf, others }.are_bpf_enough(),
                enough,
                "{bpf} and {others}"
            );
        }
    }
}
