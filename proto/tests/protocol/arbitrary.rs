//! Reports with any figures that the protocol allows.

use std::time::Duration;

use maplatency_core::cost::{BpfRunTime, Cost, CpuTime};
use maplatency_core::measure::{Counts, Place, Rows, SeriesKey, WorstSlice};
use maplatency_core::{Histogram, MapIdentity, MapType, Operation, Outcome};
use maplatency_proto::{Beginning, ProbeReport, Report};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::samples::shed;

fn histograms() -> impl Strategy<Value = Histogram> {
    vec(0u64..1 << 36, 0..20).prop_map(|it| it.into_iter().collect())
}

fn keys() -> impl Strategy<Value = SeriesKey> {
    (places(), 0usize..9).prop_map(|(place, outcome)| SeriesKey {
        map_id: place.map_id,
        operation: place.operation,
        cpu: place.cpu,
        outcome: Outcome::ALL[outcome],
    })
}

fn places() -> impl Strategy<Value = Place> {
    (1u32..1000, 0usize..9, 0u32..8192).prop_map(|(map_id, operation, cpu)| Place {
        map_id,
        operation: Operation::ALL[operation],
        cpu,
    })
}

prop_compose! {
    fn counts()(
        kernel_window in histograms(),
        until_user in histograms(),
        active_read in histograms(),
        active_delay in histograms(),
        entries: u64,
        moved: u64,
    ) -> Counts {
        Counts { kernel_window, until_user, entries, moved, active_read, active_delay }
    }
}

fn rows() -> impl Strategy<Value = Rows> {
    btree_map(keys(), counts(), 0..6)
}

prop_compose! {
    fn worst()(
        start_unix_microseconds in 0i64..4_000_000_000_000_000,
        count: u64,
        p99_nanoseconds: u64,
        max_nanoseconds: u64,
        time_lost_parts_per_million in 0u64..=1_000_000,
    ) -> WorstSlice {
        WorstSlice {
            start_unix_microseconds, count, p99_nanoseconds, max_nanoseconds, time_lost_parts_per_million,
        }
    }
}

fn maps() -> impl Strategy<Value = Vec<MapIdentity>> {
    let map_type = prop::option::of((1u32..=33).prop_map(|it| MapType::from_number(it).unwrap()));
    btree_map(1u32..5000, ("[a-z_]{0,15}", map_type), 0..5).prop_map(|maps| {
        maps.into_iter()
            .map(|(id, (name, map_type))| MapIdentity { id, name, map_type })
            .collect()
    })
}

prop_compose! {
    fn probes(taken: u64)(
        generation in 0i64..,
        maps in maps(),
        rows in rows(),
        worst in btree_map(places(), worst(), 0..4),
        beginning in prop::option::of((0..=taken, rows())),
        problems in vec("[A-Za-zµ ]{1,40}", 0..3),
    ) -> ProbeReport {
        ProbeReport {
            uid: String::new(),
            generation,
            maps,
            rows,
            worst,
            beginning: beginning.map(|(taken, rows)| Beginning { taken: Duration::from_nanos(taken), rows }),
            problems,
            rows_withheld: false,
            callers: vec![],
            spikes: vec![],
            outliers: None,
            sampling: 1,
            exact: vec![],
        }
    }
}

pub(crate) fn reports() -> impl Strategy<Value = Report> {
    any::<u64>()
        .prop_flat_map(|taken| {
            (
                Just(taken),
                1u64..,
                any::<u64>(),
                btree_map("[0-9a-f-]{1,36}", probes(taken), 0..4),
                btree_map("[A-Za-z_]{1,20}", any::<u64>(), 0..5),
                costs(),
            )
        })
        .prop_map(|(taken, sequence, revision, probes, losses, cost)| Report {
            sequence,
            revision,
            taken: Duration::from_nanos(taken),
            probes: probes
                .into_iter()
                .map(|(uid, it)| ProbeReport { uid, ..it })
                .collect(),
            losses,
            cost,
            shed: vec![shed()],
        })
}

fn costs() -> impl Strategy<Value = Cost> {
    let number = || 1..i64::MAX.unsigned_abs();
    let bytes = move || prop::option::of(number());
    let cpu = (number(), number(), any::<bool>());
    let run = (number(), number(), any::<u64>());
    (
        prop::option::of(cpu),
        bytes(),
        bytes(),
        bytes(),
        prop::option::of(run),
    )
        .prop_map(
            |(cpu, rss_bytes, bpf_maps_bytes, bpf_programs_bytes, run)| Cost {
                cpu: cpu.map(|(period, total, reads)| CpuTime {
                    period_nanoseconds: period,
                    total_nanoseconds: total,
                    readers_nanoseconds: reads.then_some(total / 2),
                }),
                rss_bytes,
                bpf_maps_bytes,
                bpf_programs_bytes,
                bpf_run_time: run.map(|(span, time, runs)| BpfRunTime {
                    span_nanoseconds: span,
                    run_nanoseconds: time,
                    runs,
                }),
            },
        )
}
