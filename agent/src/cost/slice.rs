//! What one slice cost, for the budget.

use std::time::Duration;

use maplatency_core::budget::{Budget, Figures};
use maplatency_core::cost::{BpfRunTime, CpuTime};

use super::Meter;
use super::process::{self, CpuTimes};
use crate::clock;

/// Shorter slices tell too little of a rate.
const SHORTEST: Duration = Duration::from_millis(500);

/// Looks at this process once a slice, as far as there is a budget.
pub(crate) struct SliceCost {
    budget: Budget,
    cpu: CpuTimes,
    begun: Duration,
    operations: u64,
}

impl SliceCost {
    pub(crate) fn begin(budget: Budget) -> Self {
        Self {
            budget,
            cpu: CpuTimes::begin(),
            begun: clock::monotonic(),
            operations: 0,
        }
    }

    /// What the slice cost that ends now, with so many operations in it, one in `one_in` of them looked at. `None` if there is no budget, or the slice
    /// was short; it then counts with the next.
    pub(crate) fn take(&mut self, meter: &Meter, operations: u64, one_in: u32) -> Option<Figures> {
        self.operations = self.operations.saturating_add(operations);
        let now = clock::monotonic();
        let length = now.saturating_sub(self.begun);
        if self.budget == Budget::default() || length < SHORTEST {
            return None;
        }
        self.begun = now;
        let operations = std::mem::take(&mut self.operations);
        let known = meter.latest();
        let cpu = self.budget.cpu.and_then(|_| self.cpu.since_last());
        let hooks = known.bpf_run_time.as_ref();
        let hooks = hooks.map_or(0, BpfRunTime::parts_per_million);
        let memory = self.budget.memory.and_then(|_| process::rss_bytes());
        let per_second = u128::from(operations) * 1_000 / length.as_millis();
        Some(Figures {
            at_unix_microseconds: clock::unix_microseconds(),
            cpu: cpu.map(|it| without_readers(&it).saturating_add(hooks)),
            memory: memory.map(|it| it.saturating_add(known.bpf_memory_bytes().unwrap_or(0))),
            operations: u64::try_from(per_second).unwrap_or(u64::MAX),
            one_in,
            looks: meter.looks(),
        })
    }
}

/// Readers do what a spec asks for, and nothing that is left out spares them.
fn without_readers(cpu: &CpuTime) -> u64 {
    let readers = cpu.readers_parts_per_million().unwrap_or(0);
    cpu.parts_per_million().saturating_sub(readers)
}
