//! Every field of a report that breaks the protocol is refused by name.

use maplatency_proto::{MAX_CALLER_ROWS, MAX_MAPS, MAX_PROBES, MAX_SERIES, wire};
use wire::agent_message::Kind;

use super::refused::refused;
use super::samples::report;

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
