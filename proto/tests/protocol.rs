//! Reports survive the wire, and every field that breaks the protocol is refused by name.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::collections::BTreeMap;
use std::time::Duration;

use maplatency_core::budget::{Resource, Shed, Step};
use maplatency_core::callers::{CallerIdentity, CallerRow, Container};
use maplatency_core::cost::{BpfRunTime, Cost, CpuTime};
use maplatency_core::crd::spec as crd;
use maplatency_core::exact::{ExactPercentiles, ExactRow, Latencies};
use maplatency_core::measure::{Counts, Place, Rows, SeriesKey, WorstSlice};
use maplatency_core::outliers::{
    Evidence, Instead, Outlier, OutlierCaller, OutlierCounts, Outliers,
};
use maplatency_core::spikes::Spike;
use maplatency_core::{Histogram, MapIdentity, MapLatencyProbeSpec, MapType, Operation, Outcome};
use maplatency_proto::{
    AgentMessage, AssignedProbe, Assignment, Beginning, Hello, InvalidMessage, MAX_CALLER_ROWS,
    MAX_MAPS, MAX_PROBES, MAX_SERIES, OperatorMessage, ProbeReport, Report, wire,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use wire::agent_message::Kind;

fn hello() -> Hello {
    Hello {
        node: "node-a.example".to_owned(),
        epoch: "0123456789abcdef0123456789abcdef".to_owned(),
        version: "0.1.0".to_owned(),
        kernel: "6.18.5+deb14-amd64".to_owned(),
        boot_id: "1b4e28ba-2fa1-11d2-883f-0016d3cca427".to_owned(),
        tier: "Tracepoint".to_owned(),
    }
}

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

fn reports() -> impl Strategy<Value = Report> {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_report_survives_the_wire(report in reports()) {
        use prost::Message as _;

        let sent = AgentMessage::Report(report);
        let bytes = wire::AgentMessage::from(sent.clone()).encode_to_vec();
        let received = AgentMessage::try_from(wire::AgentMessage::decode(bytes.as_slice()).unwrap());
        prop_assert_eq!(received, Ok(sent));
    }
}

#[test]
fn a_hello_survives_the_wire() {
    let sent = AgentMessage::Hello(hello());
    let received = AgentMessage::try_from(wire::AgentMessage::from(sent.clone()));
    assert_eq!(received, Ok(sent));
}

fn assignment() -> Assignment {
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

#[test]
fn an_assignment_survives_the_wire() {
    for sent in [
        OperatorMessage::Assign(assignment()),
        OperatorMessage::Ack(9),
    ] {
        let received = OperatorMessage::try_from(wire::OperatorMessage::from(sent.clone()));
        assert_eq!(received, Ok(sent));
    }
}

#[test]
fn the_node_selector_does_not_travel() {
    let mut assignment = assignment();
    assignment.probes[0].spec.node_selector =
        Some(maplatency_core::crd::spec::NodeSelector::default());
    let received = Assignment::try_from(wire::Assign::from(assignment)).unwrap();
    assert_eq!(received.probes[0].spec.node_selector, None);
}

fn caller() -> CallerRow {
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

fn others() -> CallerRow {
    CallerRow {
        caller: None,
        callers: 12,
        ..caller()
    }
}

fn spike() -> Spike {
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

fn outliers() -> Outliers {
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

/// One row with figures, and one of operations that were all missed.
fn exact() -> Vec<ExactRow> {
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

#[test]
fn callers_spikes_outliers_and_exact_figures_arrive_as_they_were_sent() {
    let sent = wire::AgentMessage {
        kind: Some(Kind::Report(report())),
    };
    let Ok(AgentMessage::Report(received)) = AgentMessage::try_from(sent) else {
        panic!("the report was refused");
    };
    assert_eq!(received.probes[0].callers, [caller(), others()]);
    assert_eq!(received.probes[0].spikes, [spike()]);
    assert_eq!(received.probes[0].outliers, Some(outliers()));
    assert_eq!(received.probes[0].exact, exact());
}

fn refused(message: wire::AgentMessage) -> String {
    AgentMessage::try_from(message).unwrap_err().field
}

#[test]
fn every_malformed_field_of_a_hello_is_named() {
    type Spoil = fn(&mut wire::Hello);
    let cases: [(&str, Spoil); 10] = [
        ("hello.node", |it| it.node = "Node_A".to_owned()),
        ("hello.node", |it| it.node = "a".repeat(254)),
        ("hello.node", |it| it.node.clear()),
        ("hello.epoch", |it| it.epoch = "short".to_owned()),
        ("hello.epoch", |it| it.epoch = "z".repeat(32)),
        ("hello.version", |it| it.version.clear()),
        ("hello.kernel", |it| it.kernel = "6.1\n".to_owned()),
        ("hello.boot_id", |it| it.boot_id = "a b".to_owned()),
        ("hello.boot_id", |it| it.boot_id.clear()),
        ("hello.tier", |it| it.tier = "x".repeat(513)),
    ];
    for (field, spoil) in cases {
        let mut wire = wire::Hello::from(hello());
        spoil(&mut wire);
        let kind = Some(Kind::Hello(wire));
        assert_eq!(refused(wire::AgentMessage { kind }), field);
    }
    assert_eq!(refused(wire::AgentMessage { kind: None }), "kind");
}

fn shed() -> Shed {
    Shed {
        step: Step::Sampling,
        resource: Resource::Memory,
        since_unix_microseconds: 1,
        one_in: 1024,
    }
}

fn report() -> wire::Report {
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

#[test]
fn every_malformed_figure_of_a_cost_is_named() {
    type Spoil = fn(&mut wire::Cost);
    let cases: [(&str, Spoil); 7] = [
        ("rss_bytes", |it| it.rss_bytes = Some(u64::MAX)),
        ("bpf_maps_bytes", |it| it.bpf_maps_bytes = Some(u64::MAX)),
        ("bpf_programs_bytes", |it| {
            it.bpf_programs_bytes = Some(1 << 63);
        }),
        ("cpu.period_nanoseconds", |it| {
            it.cpu.as_mut().unwrap().period_nanoseconds = 0;
        }),
        ("cpu.readers_nanoseconds", |it| {
            it.cpu.as_mut().unwrap().readers_nanoseconds = Some(6);
        }),
        ("bpf_run_time.span_nanoseconds", |it| {
            it.bpf_run_time.as_mut().unwrap().span_nanoseconds = 0;
        }),
        ("bpf_run_time.run_nanoseconds", |it| {
            it.bpf_run_time.as_mut().unwrap().run_nanoseconds = u64::MAX;
        }),
    ];
    for (field, spoil) in cases {
        let mut wire = report();
        spoil(wire.cost.as_mut().unwrap());
        let kind = Some(Kind::Report(wire));
        let expected = format!("report.cost.{field}");
        assert_eq!(refused(wire::AgentMessage { kind }), expected);
    }
}

#[test]
fn an_agent_that_tells_no_cost_is_understood() {
    let wire = wire::Report {
        cost: None,
        ..report()
    };
    assert_eq!(Report::try_from(wire).unwrap().cost, Cost::default());
}

#[test]
fn every_malformed_field_of_a_report_is_named() {
    type Spoil = fn(&mut wire::Report);
    let cases: [(&str, Spoil); 27] = [
        ("report.sequence", |it| it.sequence = 0),
        ("report.losses", |it| _ = it.losses.insert(String::new(), 1)),
        ("report.losses", |it| {
            it.losses = (0..17).map(|n| (format!("k{n}"), 1)).collect();
        }),
        ("report.probes", |it| {
            it.probes = vec![it.probes[0].clone(); MAX_PROBES + 1];
        }),
        ("report.probes[1].uid", |it| {
            it.probes.extend_from_within(..);
        }),
        ("report.probes[0].uid", |it| {
            it.probes[0].uid = "a/b".to_owned();
        }),
        ("report.probes[0].generation", |it| {
            it.probes[0].generation = -1;
        }),
        ("report.probes[0].problems", |it| {
            it.probes[0].problems = vec!["p".to_owned(); 17];
        }),
        ("report.probes[0].problems[0].value", |it| {
            it.probes[0].problems[0].clear();
        }),
        ("report.probes[0].maps", |it| {
            it.probes[0].maps = vec![wire::Map::default(); MAX_MAPS + 1];
        }),
        ("report.probes[0].maps[0].id", |it| {
            it.probes[0].maps[0].id = 0;
        }),
        ("report.probes[0].maps[0].name", |it| {
            it.probes[0].maps[0].name = "x".repeat(46);
        }),
        ("report.probes[0].maps[1].id", |it| {
            it.probes[0].maps.extend_from_within(..);
        }),
        ("report.probes[0].rows", |it| {
            it.probes[0].rows = vec![wire::Row::default(); MAX_SERIES + 1];
        }),
        ("report.probes[0].worst", |it| {
            it.probes[0].worst = vec![wire::WorstSlice::default(); MAX_SERIES + 1];
        }),
        ("report.probes[0].rows[0].map_id", |it| {
            it.probes[0].rows[0].map_id = 0;
        }),
        ("report.probes[0].rows[0].operation", |it| {
            it.probes[0].rows[0].operation = 0;
        }),
        ("report.probes[0].rows[0].operation", |it| {
            it.probes[0].rows[0].operation = 10;
        }),
        ("report.probes[0].rows[0].cpu", |it| {
            it.probes[0].rows[0].cpu = 8192;
        }),
        ("report.probes[0].rows[1].map_id", |it| {
            it.probes[0].rows.extend_from_within(..);
        }),
        ("report.probes[0].rows[0].until_user", |it| {
            it.probes[0].rows[0].until_user = Some(wire::Histogram {
                buckets: vec![1857],
                counts: vec![1],
            });
        }),
        ("report.probes[0].rows[0].until_user", |it| {
            it.probes[0].rows[0].until_user = Some(wire::Histogram {
                buckets: vec![1, 2],
                counts: vec![1],
            });
        }),
        ("report.probes[0].rows[0].active_read", |it| {
            it.probes[0].rows[0].active_read = Some(wire::Histogram {
                buckets: vec![1, 2],
                counts: vec![u64::MAX, 1],
            });
        }),
        (
            "report.probes[0].worst[0].time_lost_parts_per_million",
            |it| {
                it.probes[0].worst[0].time_lost_parts_per_million = 1_000_001;
            },
        ),
        ("report.probes[0].worst[0].start_unix_microseconds", |it| {
            it.probes[0].worst[0].start_unix_microseconds = i64::MAX;
        }),
        ("report.probes[0].beginning.taken_nanoseconds", |it| {
            it.probes[0].beginning.as_mut().unwrap().taken_nanoseconds = 1_000_000_001;
        }),
        ("report.probes[0].beginning.rows[0].cpu", |it| {
            it.probes[0].beginning.as_mut().unwrap().rows[0].cpu = u32::MAX;
        }),
    ];
    for (field, spoil) in cases {
        let mut wire = report();
        spoil(&mut wire);
        let kind = Some(Kind::Report(wire));
        assert_eq!(refused(wire::AgentMessage { kind }), field);
    }
}

#[test]
fn every_malformed_field_of_callers_and_spikes_is_named() {
    type Spoil = fn(&mut wire::Report);
    let cases: [(&str, Spoil); 20] = [
        ("report.probes[0].callers", |it| {
            it.probes[0].callers = vec![wire::CallerRow::default(); MAX_CALLER_ROWS + 1];
        }),
        ("report.probes[0].callers[0].operation", |it| {
            it.probes[0].callers[0].operation = 99;
        }),
        ("report.probes[0].callers[0].caller.pid", |it| {
            it.probes[0].callers[0].caller.as_mut().unwrap().pid = 0;
        }),
        ("report.probes[0].callers[0].caller.container_id", |it| {
            let caller = it.probes[0].callers[0].caller.as_mut().unwrap();
            caller.container_id = Some("../x".to_owned());
        }),
        ("report.probes[0].spikes[0].cpus", |it| {
            it.probes[0].spikes[0].cpus.clear();
        }),
        ("report.probes[0].outliers.slowest[0].evidence", |it| {
            let outliers = it.probes[0].outliers.as_mut().unwrap();
            outliers.slowest[0].evidence = None;
        }),
        (
            "report.probes[0].outliers.slowest[0].evidence.instead.command",
            |it| {
                let outliers = it.probes[0].outliers.as_mut().unwrap();
                let evidence = outliers.slowest[0].evidence.as_mut().unwrap();
                evidence.instead.as_mut().unwrap().command = "x".repeat(46);
            },
        ),
        ("report.probes[0].outliers.slowest", |it| {
            let outliers = it.probes[0].outliers.as_mut().unwrap();
            let one = outliers.slowest[0].clone();
            outliers.slowest = vec![one; 65];
        }),
        ("report.probes[0].spikes[0].count", |it| {
            it.probes[0].spikes[0].count = 0;
        }),
        ("report.shed[0].step", |it| it.shed[0].step = 0),
        ("report.shed[0].resource", |it| it.shed[0].resource = 9),
        ("report.shed[0].one_in", |it| it.shed[0].one_in = 0),
        ("report.shed[1].step", |it| it.shed.extend_from_within(..)),
        ("report.shed", |it| it.shed = vec![it.shed[0]; 4]),
        ("report.probes[0].exact", |it| {
            let exact = &mut it.probes[0].exact;
            *exact = vec![exact[0]; 65];
        }),
        ("report.probes[0].exact[1].count", |it| {
            it.probes[0].exact[1].count = 1;
        }),
        ("report.probes[0].exact[0].count", |it| {
            it.probes[0].exact[0].count = 0;
        }),
        ("report.probes[0].exact[0].kernel_window", |it| {
            it.probes[0].exact[0].kernel_window = None;
        }),
        ("report.probes[0].exact[0].until_user.p90", |it| {
            it.probes[0].exact[0].until_user.as_mut().unwrap().p90 = 0;
        }),
        ("report.probes[0].sampling", |it| {
            it.probes[0].sampling = 1025;
        }),
    ];
    for (field, spoil) in cases {
        let mut wire = report();
        spoil(&mut wire);
        let kind = Some(Kind::Report(wire));
        assert_eq!(refused(wire::AgentMessage { kind }), field);
    }
}

#[test]
fn every_strategy_arrives_as_it_was_sent() {
    for (strategy, one_in, last_operations) in [
        (crd::Strategy::Histogram, None, None),
        (crd::Strategy::Sampled, Some(64), None),
        (crd::Strategy::SlidingWindow, None, Some(256)),
        (crd::Strategy::Direct, None, None),
    ] {
        let mut sent = assignment();
        sent.probes[0].spec.aggregation = Some(crd::Aggregation {
            strategy,
            one_in,
            last_operations,
        });
        assert_eq!(
            Assignment::try_from(wire::Assign::from(sent.clone())),
            Ok(sent)
        );
    }
}

#[test]
fn every_malformed_field_of_an_assignment_is_named() {
    type Spoil = fn(&mut wire::Assign);
    fn spec(assign: &mut wire::Assign) -> &mut wire::Spec {
        assign.probes[0].spec.as_mut().unwrap()
    }
    let cases: [(&str, Spoil); 24] = [
        ("assign.revision", |it| it.revision = 0),
        ("assign.report_period_milliseconds", |it| {
            it.report_period_milliseconds = 0;
        }),
        ("assign.probes", |it| {
            it.probes = vec![it.probes[0].clone(); MAX_PROBES + 1];
        }),
        ("assign.probes[1].uid", |it| {
            it.probes.extend_from_within(..);
        }),
        ("assign.probes[0].name", |it| it.probes[0].name.clear()),
        ("assign.probes[0].uid", |it| it.probes[0].uid.clear()),
        ("assign.probes[0].generation", |it| {
            it.probes[0].generation = -1;
        }),
        ("assign.probes[0].spec", |it| it.probes[0].spec = None),
        ("assign.probes[0].spec.maps", |it| {
            spec(it).maps = vec![wire::MapSelector::default(); 17];
        }),
        ("assign.probes[0].spec.maps[0].names", |it| {
            spec(it).maps[0].names = vec!["x".to_owned(); 17];
        }),
        ("assign.probes[0].spec.maps[0].names[0].value", |it| {
            spec(it).maps[0].names[0].clear();
        }),
        ("assign.probes[0].spec.maps[0].types[1].value", |it| {
            spec(it).maps[0].types[1] = 99;
        }),
        ("assign.probes[0].spec.maps[1].ids[0].value", |it| {
            spec(it).maps[1].ids[0] = 0;
        }),
        ("assign.probes[0].spec.maps[2].pin_paths", |it| {
            spec(it).maps[2].pin_paths = vec!["/x".to_owned(); 17];
        }),
        (
            "assign.probes[0].spec.maps[3].held_by.cgroups[0].value",
            |it| {
                spec(it).maps[3].held_by.as_mut().unwrap().cgroups[0] = "x".repeat(257);
            },
        ),
        ("assign.probes[0].spec.operations[0].value", |it| {
            spec(it).operations[0] = 77;
        }),
        ("assign.probes[0].spec.callers.commands", |it| {
            spec(it).callers.as_mut().unwrap().commands = vec!["x".to_owned(); 9];
        }),
        ("assign.probes[0].spec.active_reads.cpus", |it| {
            spec(it).active_reads.as_mut().unwrap().cpus.clear();
        }),
        (
            "assign.probes[0].spec.active_reads.period_milliseconds",
            |it| {
                spec(it).active_reads.as_mut().unwrap().period_milliseconds = 1;
            },
        ),
        ("assign.probes[0].spec.active_reads.method", |it| {
            spec(it).active_reads.as_mut().unwrap().method = 0;
        }),
        ("assign.probes[0].spec.aggregation.strategy", |it| {
            spec(it).aggregation.as_mut().unwrap().strategy = 0;
        }),
        ("assign.probes[0].spec.aggregation.one_in", |it| {
            spec(it).aggregation.as_mut().unwrap().one_in = Some(1);
        }),
        ("assign.probes[0].spec.aggregation.last_operations", |it| {
            spec(it).aggregation.as_mut().unwrap().last_operations = Some(255);
        }),
        ("assign.probes[0].spec.window_seconds", |it| {
            spec(it).window_seconds = 1;
        }),
    ];
    for (field, spoil) in cases {
        let mut wire = wire::Assign::from(assignment());
        spoil(&mut wire);
        assert_eq!(Assignment::try_from(wire).unwrap_err().field, field);
    }
}

#[test]
fn a_refusal_reads_as_a_sentence() {
    let error: InvalidMessage = Hello::try_from(wire::Hello {
        node: "Node_A".to_owned(),
        ..hello().into()
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "hello.node is not a DNS-1123 subdomain of at most 253 characters"
    );
}

#[test]
fn a_map_of_a_type_that_this_version_does_not_know_still_counts() {
    let mut wire = report();
    wire.probes[0].maps[0].r#type = 77;
    let report = Report::try_from(wire).unwrap();
    assert_eq!(report.probes[0].maps[0].map_type, None);
}
