//! What an agent costs its node.

/// What one agent costs. A figure that could not be taken is absent, and never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// CPU time of the agent's process. The hooks run in the time of whoever is hooked, and are not in it.
    pub cpu: Option<CpuTime>,
    /// Memory of the agent's process that is resident, in bytes.
    pub rss_bytes: Option<u64>,
    /// Memory of the agent's BPF maps as the kernel accounts for it, in bytes.
    pub bpf_maps_bytes: Option<u64>,
    /// Memory of the agent's BPF programs as the kernel accounts for it, in bytes.
    pub bpf_programs_bytes: Option<u64>,
    /// How long the agent's BPF programs ran, on all CPUs together.
    pub bpf_run_time: Option<BpfRunTime>,
}

/// CPU time of a process within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTime {
    /// Length of the period, in nanoseconds.
    pub period_nanoseconds: u64,
    /// User and system time of all threads, in nanoseconds.
    pub total_nanoseconds: u64,
    /// How much of it is that of pinned readers, in nanoseconds. They do what `spec.activeReads` asks for.
    pub readers_nanoseconds: Option<u64>,
}

/// Run time of BPF programs within a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfRunTime {
    /// Length of the span, in nanoseconds.
    pub span_nanoseconds: u64,
    /// How long the programs ran in it, in nanoseconds.
    pub run_nanoseconds: u64,
    /// How often they ran.
    pub runs: u64,
}

impl Cost {
    /// Memory of maps and programs together, in bytes.
    pub fn bpf_memory_bytes(&self) -> Option<u64> {
        Some(
            self.bpf_maps_bytes?
                .saturating_add(self.bpf_programs_bytes?),
        )
    }
}

impl CpuTime {
    /// All threads, in parts per million of one core.
    pub fn parts_per_million(&self) -> u64 {
        parts_per_million(self.total_nanoseconds, self.period_nanoseconds)
    }

    /// Pinned readers alone, in parts per million of one core.
    pub fn readers_parts_per_million(&self) -> Option<u64> {
        let readers = self.readers_nanoseconds?;
        Some(parts_per_million(readers, self.period_nanoseconds))
    }
}

impl BpfRunTime {
    /// Parts per million of one core.
    pub fn parts_per_million(&self) -> u64 {
        parts_per_million(self.run_nanoseconds, self.span_nanoseconds)
    }

    /// Mean time of one run, in nanoseconds; `None` if there was no run.
    pub fn mean_nanoseconds(&self) -> Option<u64> {
        self.run_nanoseconds.checked_div(self.runs)
    }
}

/// Unlike a share of a window this one has no upper end: several cores can be busy at once.
fn parts_per_million(part: u64, whole: u64) -> u64 {
    let parts = (u128::from(part) * 1_000_000).checked_div(u128::from(whole));
    parts.map_or(0, |it| u64::try_from(it).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_busy_cores_are_more_than_all_of_one() {
        let cpu = CpuTime {
            period_nanoseconds: 2_000,
            total_nanoseconds: 5_000,
            readers_nanoseconds: Some(1),
        };
        assert_eq!(cpu.parts_per_million(), 2_500_000);
        assert_eq!(cpu.readers_parts_per_million(), Some(500));
    }

    #[test]
    fn without_a_run_there_is_no_mean() {
        let mut run = BpfRunTime {
            span_nanoseconds: 1_000_000,
            run_nanoseconds: 900,
            runs: 3,
        };
        assert_eq!(
            (run.parts_per_million(), run.mean_nanoseconds()),
            (900, Some(300))
        );
        run = BpfRunTime {
            run_nanoseconds: 0,
            runs: 0,
            ..run
        };
        assert_eq!((run.parts_per_million(), run.mean_nanoseconds()), (0, None));
    }

    #[test]
    fn half_a_sum_of_memory_is_none() {
        let mut cost = Cost {
            bpf_maps_bytes: Some(4096),
            ..Cost::default()
        };
        assert_eq!(cost.bpf_memory_bytes(), None);
        cost.bpf_programs_bytes = Some(8192);
        assert_eq!(cost.bpf_memory_bytes(), Some(12_288));
    }
}
