//! One message of each kind, with something in every field.

use std::collections::BTreeMap;
use std::time::Duration;

use maplatency_core::budget::{Resource, Shed, Step};
use maplatency_core::callers::{CallerIdentity, CallerRow, Container};
use maplatency_core::cost::{BpfRunTime, Cost, CpuTime};
use maplatency_core::exact::{ExactPercentiles, ExactRow, Latencies};
use maplatency_core::measure::{Counts, Rows, SeriesKey, WorstSlice};
use maplatency_core::outliers::{
    Evidence, Instead, Outlier, OutlierCaller, OutlierCounts, Outliers,
};
use maplatency_core::spikes::Spike;
use maplatency_core::{MapIdentity, MapLatencyProbeSpec, Operation, Outcome};
use maplatency_proto::{AssignedProbe, Assignment, Beginning, Hello, ProbeReport, Report, wire};

pub(crate) fn hello() -> Hello {
    Hello {
        node: "node-a.example".to_owned(),
        epoch: "0123456789abcdef0123456789abcdef".to_owned(),
        version: "0.1.0".to_owned(),
        kernel: "6.18.5+deb14-amd64".to_owned(),
        boot_id: "1b4e28ba-2fa1-11d2-883f-0016d3cca427".to_owned(),
        tier: "Tracepoint".to_owned(),
        problem: Some("the kernel has no BTF".to_owned()),
    }
}

pub(crate) fn assignment() -> Assignment {
    let spec: MapLatencyProbeSpec = serde_yaml::from_str(
        "
        maps: [{names: ['ct_*'], types: [Hash, Arena]}, {ids: [7]}, {pinPaths: ['/sys/fs/bpf/**']},
               {heldBy: {commands: [cilium-agent], cgroups: ['**/cri-*']}}]
        operations: [Lookup, Update]
        callers: {excludeCommands: ['bpftool']}
        activeReads: {cpus: 0-3, periodMilliseconds: 50, method: Lookup}
        aggregation: {strategy: Sampled, oneIn: 64}
        windowSeconds: 30
        ",
    )
    .unwrap();
    Assignment {
        revision: 1_700_000_000_000,
        report_period: Duration::from_secs(2),
        probes: vec![AssignedProbe {
            name: "conntrack".to_owned(),
            uid: "5c5b-1".to_owned(),
            generation: 3,
            spec,
        }],
    }
}

pub(crate) fn caller() -> CallerRow {
    CallerRow {
        map_id: 1,
        operation: Operation::Lookup,
        caller: Some(CallerIdentity {
            pid: 7,
            start_unix_microseconds: 1,
            command: "curl".to_owned(),
            cgroup_id: 3,
            cgroup: "kubepods/pod/container".to_owned(),
            container: Container {
                pod_uid: Some("1b4e28ba-2fa1-11d2-883f-0016d3cca427".to_owned()),
                container_id: Some("0123456789abcdef".to_owned()),
            },
        }),
        callers: 1,
        count: 2,
        p50_nanoseconds: 500,
        p99_nanoseconds: 700,
        max_nanoseconds: 700,
        time_spent_parts_per_million: 2_000_000,
        time_lost_parts_per_million: 10,
    }
}

pub(crate) fn others() -> CallerRow {
    CallerRow {
        caller: None,
        callers: 12,
        ..caller()
    }
}

pub(crate) fn spike() -> Spike {
    Spike {
        map_id: 1,
        operation: Operation::Lookup,
        cpus: [0, 3].into(),
        count: 5,
        last_unix_microseconds: 9,
        period: Some(Duration::from_secs(4)),
        duration: Duration::from_millis(41),
        p99_nanoseconds: 4_000_000,
        max_nanoseconds: 5_000_000,
        time_lost_parts_per_million: 11_000,
    }
}

pub(crate) fn outliers() -> Outliers {
    let container = Container {
        pod_uid: Some("0-a".to_owned()),
        container_id: None,
    };
    let outlier = Outlier {
        map_id: 1,
        operation: Operation::LookupBatch,
        outcome: Outcome::Success,
        begin_unix_microseconds: 7,
        until_user_nanoseconds: 4_000_000,
        kernel_window_nanoseconds: 900,
        key_size: 4,
        entries: 32,
        cpu: 0,
        cpu_after: 1,
        caller: OutlierCaller {
            pid: 11,
            tid: 12,
            command: "reader".to_owned(),
            cgroup_id: 5,
            container,
        },
        evidence: Evidence {
            off_cpu_nanoseconds: 3_000_000,
            run_delay_nanoseconds: 2_000_000,
            voluntary_switches: 1,
            involuntary_switches: 2,
            migrations: 3,
            minor_faults: 4,
            major_faults: 5,
            instead: Some(Instead {
                pid: 13,
                command: "hog".to_owned(),
                nanoseconds: 1_000_000,
            }),
        },
    };
    Outliers {
        counts: OutlierCounts {
            told: 1,
            held_back: 2,
            dropped: 3,
        },
        slowest: vec![outlier.into()],
    }
}

pub(crate) fn shed() -> Shed {
    Shed {
        step: Step::Sampling,
        resource: Resource::Memory,
        since_unix_microseconds: 1,
        one_in: 1024,
    }
}

/// One row with figures, and one of operations that were all missed.
pub(crate) fn exact() -> Vec<ExactRow> {
    let percentiles = ExactPercentiles {
        p50: 1,
        p90: 2,
        p99: 3,
        p999: 3,
        max: u64::MAX,
    };
    let row = ExactRow {
        map_id: 1,
        operation: Operation::Lookup,
        count: 4096,
        missed: 7,
        let_go: 8,
        span: Duration::from_nanos(9),
        latencies: Some(Latencies {
            until_user: percentiles,
            kernel_window: percentiles,
        }),
    };
    let missed = ExactRow {
        operation: Operation::Update,
        count: 0,
        latencies: None,
        ..row.clone()
    };
    vec![row, missed]
}

pub(crate) fn report() -> wire::Report {
    let key = SeriesKey {
        map_id: 1,
        operation: Operation::Lookup,
        cpu: 0,
        outcome: Outcome::Success,
    };
    let counts = Counts {
        until_user: [500, 700].into_iter().collect(),
        ..Counts::default()
    };
    let worst = WorstSlice {
        start_unix_microseconds: 1,
        count: 2,
        p99_nanoseconds: 700,
        max_nanoseconds: 700,
        time_lost_parts_per_million: 0,
    };
    let rows = Rows::from([(key, counts)]);
    Report {
        sequence: 1,
        revision: 1,
        taken: Duration::from_secs(1),
        probes: vec![ProbeReport {
            uid: "u".to_owned(),
            generation: 1,
            maps: vec![MapIdentity {
                id: 1,
                name: "ct".to_owned(),
                map_type: None,
            }],
            rows: rows.clone(),
            worst: BTreeMap::from([(key.place(), worst)]),
            beginning: Some(Beginning {
                taken: Duration::ZERO,
                rows,
            }),
            problems: vec!["p".to_owned()],
            rows_withheld: false,
            callers: vec![caller(), others()],
            spikes: vec![spike()],
            outliers: Some(outliers()),
            sampling: 1,
            exact: exact(),
        }],
        losses: BTreeMap::from([("Attr".to_owned(), 1)]),
        cost: Cost {
            cpu: Some(CpuTime {
                period_nanoseconds: 10,
                total_nanoseconds: 5,
                readers_nanoseconds: Some(2),
            }),
            bpf_run_time: Some(BpfRunTime {
                span_nanoseconds: 10,
                run_nanoseconds: 5,
                runs: 1,
            }),
            ..Cost::default()
        },
        shed: vec![shed()],
    }
    .into()
}
