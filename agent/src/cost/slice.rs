//! What one slice cost, for the budget.

use std::time::Duration;

use maplatency_core::budget::{Budget, Figures};
use maplatency_core::cost::{BpfRunTime, CpuTime};

use super::Meter;
use super::process::{self, CpuTimes};
use crate::clock;

/// Shorter slices tell too little of a rate.
const SHORTEST: Duration = Duration::from_millis(500);

/// Slices between two requests to the allocator to give memory back.
const TRIM: u32 = 5;

/// Looks at this process once a slice, as far as there is a budget.
pub(crate) struct SliceCost {
    budget: Budget,
    /// Slices since memory was given back last.
    untrimmed: u32,
    cpu: CpuTimes,
    begun: Duration,
    operations: u64,
}

impl SliceCost {
    pub(crate) fn begin(budget: Budget) -> Self {
        Self {
            budget,
            untrimmed: TRIM,
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
        let bpf = known.bpf_memory_bytes().unwrap_or(0);
        let memory = self.budget.memory.and_then(|it| self.memory(it, bpf));
        let per_second = u128::from(operations) * 1_000 / length.as_millis();
        Some(Figures {
            at_unix_microseconds: clock::unix_microseconds(),
            cpu: cpu.map(|it| without_readers(&it).saturating_add(hooks)),
            memory,
            operations: u64::try_from(per_second).unwrap_or(u64::MAX),
            one_in,
            looks: meter.looks(),
        })
    }

    /// Memory of this process and of its BPF objects, of which `bpf` is known.
    ///
    /// The allocator keeps what was freed, and it stays resident. Near the budget that would leave things out for memory
    /// that nobody uses, and keep them left out when what took it has long gone.
    fn memory(&mut self, budget: u64, bpf: u64) -> Option<u64> {
        let memory = || Some(process::rss_bytes()?.saturating_add(bpf));
        self.untrimmed = self.untrimmed.saturating_add(1);
        let is_near = memory()? > budget - budget / 5;
        if is_near && self.untrimmed >= TRIM {
            self.untrimmed = 0;
            crate::heap::trim();
        }
        memory()
    }
}

/// Readers do what a spec asks for, and nothing that is left out spares them.
fn without_readers(cpu: &CpuTime) -> u64 {
    let readers = cpu.readers_parts_per_million().unwrap_or(0);
    cpu.parts_per_million().saturating_sub(readers)
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    const CHUNK: usize = 4096;
    const CHUNKS: usize = 8192;

    #[test]
    fn near_the_budget_only_memory_that_is_used_counts() {
        let budget = Budget {
            cpu: None,
            memory: Some(1 << 20),
        };
        let mut cost = SliceCost::begin(budget);
        let mut chunks: Vec<Vec<u8>> = (0..CHUNKS).map(|_| vec![1; CHUNK]).collect();
        // What lies behind them keeps the allocator from giving them back by itself.
        let last = chunks.pop();
        let used = process::rss_bytes().unwrap();
        drop(chunks);
        let kept = process::rss_bytes().unwrap();
        let half = (CHUNK * CHUNKS / 2) as u64;
        assert!(kept + half > used, "{kept} of {used} bytes are kept");

        let told = cost.memory(1 << 20, 1_000).unwrap();
        assert!(told + half < used, "{told} of {used} bytes");
        // Not in every slice.
        let untrimmed = cost.untrimmed;
        cost.memory(1 << 20, 1_000).unwrap();
        assert_eq!((untrimmed, cost.untrimmed), (0, 1));
        drop(last);
    }

    #[test]
    fn far_from_the_budget_the_allocator_is_left_alone() {
        let mut cost = SliceCost::begin(Budget::default());
        let told = cost.memory(u64::MAX, 1_000).unwrap();
        assert!(told > 1_000);
        assert!(cost.untrimmed > TRIM);
    }
}
