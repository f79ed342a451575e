//! What a table says, as it stands on a screen.

use super::*;
use insta::assert_snapshot;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use maplatency_core::MapType;
use maplatency_core::crd::objectives::{ObjectiveState, ObjectiveStatus};
use maplatency_core::crd::status::ActiveStatus;

fn host() -> Host {
    Host {
        node: "node-a".to_owned(),
        kernel: "6.12.38-cloud-amd64".to_owned(),
        boot_id: String::new(),
    }
}

fn facts<'a>(host: &'a Host, maps: &'a [String]) -> Facts<'a> {
    Facts {
        probe: "conntrack",
        host,
        tier: "Tracepoint",
        window: Duration::from_mins(1),
        span: Duration::from_millis(60_200),
        elapsed: Duration::from_millis(75_400),
        objectives: &[],
        reads_actively: true,
        wanted: "name ct_* and type PerCpuHash",
        maps,
        gone: 0,
        problems: &[],
        slowest: 5,
        cost: Cost::default(),
        shed: &[],
    }
}

fn percentiles(p50: i64, p90: i64, p99: i64, p999: i64, max: i64) -> Percentiles {
    Percentiles {
        p50_nanoseconds: p50,
        p90_nanoseconds: p90,
        p99_nanoseconds: p99,
        p999_nanoseconds: p999,
        max_nanoseconds: max,
    }
}

fn map(id: i64, name: &str) -> MapReference {
    MapReference {
        id,
        name: name.to_owned(),
        map_type: Some(MapType::PerCpuHash),
    }
}

fn slow(map: MapReference, operation: Operation, cpu: i32, lost: i64) -> SlowRow {
    SlowRow {
        map,
        operation,
        node: "node-a".to_owned(),
        cpu,
        count: 918_000,
        until_user: percentiles(520, 640, 1_200, 2_310_000, 57_000_000),
        time_lost_parts_per_million: lost,
    }
}

/// The stalls of the scheduler: until user sees them, the kernel window does not.
fn incident() -> MapLatencyProbeStatus {
    let lookup = OperationStatus {
        operation: Operation::Lookup,
        count: 1_534_000,
        until_user: Some(percentiles(520, 640, 1_200, 4_130_000, 57_000_000)),
        kernel_window: Some(percentiles(430, 540, 980, 1_900, 9_800)),
        outcomes: vec![],
        entries: None,
        moved: 0,
        worst_second: Some(WorstSecond {
            start_time: MicroTime(Timestamp::from_microsecond(43_203_000_000 + 250_000).unwrap()),
            node: "node-a".to_owned(),
            map: map(12, "demo_conntrack"),
            cpu: 0,
            count: 25_000,
            p99_nanoseconds: 1_200,
            max_nanoseconds: 4_130_000,
            time_lost_parts_per_million: 41_000,
        }),
        active: Some(ActiveStatus {
            count: 1_200,
            read: percentiles(810, 1_100, 2_400, 3_000, 3_100),
            start_delay: percentiles(54_000, 61_000, 33_000_000, 52_000_000, 52_000_000),
        }),
    };
    let update = OperationStatus {
        operation: Operation::Update,
        count: 900_000,
        until_user: Some(percentiles(410, 500, 900, 1_900, 3_990_000)),
        kernel_window: None,
        outcomes: vec![],
        entries: None,
        moved: 0,
        worst_second: None,
        active: None,
    };
    MapLatencyProbeStatus {
        matched_maps: 2,
        operations: vec![lookup, update],
        slowest: vec![
            slow(map(12, "demo_conntrack"), Operation::Lookup, 0, 12_000),
            slow(map(7, ""), Operation::LookupAndDeleteBatch, 127, 90),
        ],
        ..MapLatencyProbeStatus::default()
    }
}

#[test]
fn objectives_are_told_with_what_they_allow() {
    let host = host();
    let objectives: Vec<Objective> = serde_yaml::from_str(
        "[{name: reads, operation: Lookup, thresholdMicroseconds: 200},
          {name: writes-in-kernel, operation: Update, latency: KernelWindow, percentile: P999, thresholdMicroseconds: 9}]",
    )
    .unwrap();
    let breached = ObjectiveStatus {
        name: "reads".to_owned(),
        state: ObjectiveState::Breached,
        since_time: Time(Timestamp::UNIX_EPOCH),
        highest_nanoseconds: Some(4_130_000),
        node: Some("node-a".to_owned()),
        nodes_above: 1,
    };
    let nothing = ObjectiveStatus {
        name: "writes-in-kernel".to_owned(),
        state: ObjectiveState::NoOperations,
        highest_nanoseconds: None,
        node: None,
        nodes_above: 0,
        ..breached.clone()
    };
    let status = MapLatencyProbeStatus::default().with_objectives(vec![breached, nothing]);
    let facts = Facts {
        objectives: &objectives,
        ..facts(&host, &[])
    };
    assert_snapshot!(render(&status, &facts), @r"
    conntrack on node-a   kernel 6.12.38-cloud-amd64   tier Tracepoint
    window 60s of 60s   elapsed 75s   unrecorded 0
    maps 0: none

    No map matches yet. Looked for name ct_* and type PerCpuHash; looking again every second.

    OBJECTIVE         LATENCY                           NOW  AT MOST  STATE
    reads             P99 of Lookup until user       4.13ms    200µs  Breached
    writes-in-kernel  P99.9 of Update kernel window       -   9.00µs  NoOperations
    ");
}

#[test]
fn the_two_latencies_stand_below_each_other() {
    let maps = ["demo_conntrack (id 12)".to_owned(), "- (id 7)".to_owned()];
    assert_snapshot!(render(&incident(), &facts(&host(), &maps)), @r"
    conntrack on node-a   kernel 6.12.38-cloud-amd64   tier Tracepoint
    window 60s of 60s   elapsed 75s   unrecorded 0
    maps 2: demo_conntrack (id 12), - (id 7)

    OPERATION  LATENCY        COUNT     P50     P90     P99   P99.9     MAX
    Lookup     until user     1.53M   520ns   640ns  1.20µs  4.13ms  57.0ms
               kernel window  1.53M   430ns   540ns   980ns  1.90µs  9.80µs
               active read    1.20k   810ns  1.10µs  2.40µs  3.00µs  3.10µs
               start delay    1.20k  54.0µs  61.0µs  33.0ms  52.0ms  52.0ms
    Update     until user      900k   410ns   500ns   900ns  1.90µs  3.99ms
               kernel window   900k       -       -       -       -       -

    WORST SECOND
    Lookup on demo_conntrack (id 12), CPU 0, at 12:00:03 UTC: P99 1.20µs, max 4.13ms, 4.1% of that second lost

    SLOWEST, by share of time lost
    MAP             ID  OPERATION             CPU  COUNT    P50     P99   P99.9     MAX    LOST
    demo_conntrack  12  Lookup                  0   918k  520ns  1.20µs  2.31ms  57.0ms    1.2%
    -                7  LookupAndDeleteBatch  127   918k  520ns  1.20µs  2.31ms  57.0ms  <0.01%
    ");
}

#[test]
fn no_map_yet_says_what_is_looked_for() {
    let status = MapLatencyProbeStatus::default();
    let host = host();
    let facts = Facts {
        span: Duration::from_secs(3),
        elapsed: Duration::from_secs(3),
        ..facts(&host, &[])
    };
    assert_snapshot!(render(&status, &facts), @r"
    conntrack on node-a   kernel 6.12.38-cloud-amd64   tier Tracepoint
    window 3s of 60s   elapsed 3s   unrecorded 0
    maps 0: none

    No map matches yet. Looked for name ct_* and type PerCpuHash; looking again every second.
    ");
}

#[test]
fn losses_and_problems_are_told_by_kind() {
    let status = MapLatencyProbeStatus {
        matched_maps: 5,
        losses: vec![
            LossCount {
                kind: "Storage".to_owned(),
                count: 3,
            },
            LossCount {
                kind: "TaskDied".to_owned(),
                count: 17,
            },
        ],
        ..MapLatencyProbeStatus::default()
    };
    let maps: Vec<String> = (1..=5).map(|id| format!("ct_{id} (id {id})")).collect();
    let problems = ["map ct_1 (id 1) cannot be read".to_owned()];
    let host = host();
    let facts = Facts {
        problems: &problems,
        ..facts(&host, &maps)
    };
    assert_snapshot!(render(&status, &facts), @r"
    conntrack on node-a   kernel 6.12.38-cloud-amd64   tier Tracepoint
    window 60s of 60s   elapsed 75s   unrecorded Storage 3, TaskDied 17
    maps 5: ct_1 (id 1), ct_2 (id 2), ct_3 (id 3), ct_4 (id 4), and 1 more
    Problem: map ct_1 (id 1) cannot be read

    No operation on these maps so far.
    ");
}

#[test]
fn a_map_that_only_the_agent_reads_has_no_latency_of_callers() {
    let mut status = incident();
    status.operations.truncate(1);
    status.slowest.clear();
    let lookup = &mut status.operations[0];
    (
        lookup.count,
        lookup.until_user,
        lookup.kernel_window,
        lookup.worst_second,
    ) = (0, None, None, None);
    status.matched_maps = 1;
    let maps = ["demo_conntrack (id 12)".to_owned()];
    assert_snapshot!(render(&status, &facts(&host(), &maps)), @r"
    conntrack on node-a   kernel 6.12.38-cloud-amd64   tier Tracepoint
    window 60s of 60s   elapsed 75s   unrecorded 0
    maps 1: demo_conntrack (id 12)

    OPERATION  LATENCY        COUNT     P50     P90     P99   P99.9     MAX
    Lookup     until user         0       -       -       -       -       -
               kernel window      0       -       -       -       -       -
               active read    1.20k   810ns  1.10µs  2.40µs  3.00µs  3.10µs
               start delay    1.20k  54.0µs  61.0µs  33.0ms  52.0ms  52.0ms
    ");
}

#[test]
fn active_reads_that_are_asked_for_and_not_made_yet_show_as_dashes() {
    let mut status = incident();
    status.operations[0].active = None;
    let text = render(&status, &facts(&host(), &[]));
    let dashes = text
        .lines()
        .filter(|it| it.contains("active read") && it.trim_end().ends_with('-'))
        .count();
    assert_eq!(dashes, 1, "{text}");
}

#[test]
fn names_cannot_move_the_cursor_or_turn_the_text() {
    let maps = ["ev\x1b[31mil\x07 (id 12)".to_owned()];
    let problems = ["a\rb\u{202e}c\u{9b}d".to_owned()];
    let host = host();
    let facts = Facts {
        problems: &problems,
        ..facts(&host, &maps)
    };
    let text = render(&incident(), &facts);
    assert!(
        text.contains("maps 2: ev\u{fffd}[31mil\u{fffd} (id 12)\n"),
        "{text}"
    );
    assert!(
        text.contains("Problem: a\u{fffd}b\u{fffd}c\u{fffd}d\n"),
        "{text}"
    );
    assert!(!text.contains(|it: char| it.is_control() && it != '\n'));
}

#[test]
fn a_table_fits_into_120_columns() {
    let maps = [
        "demo_conntrack (id 12)".to_owned(),
        "demo_conntrack (id 13)".to_owned(),
    ];
    let text = render(&incident(), &facts(&host(), &maps));
    let widest = text
        .lines()
        .map(|it| it.chars().count())
        .max()
        .unwrap_or_default();
    assert!(widest <= 120, "{widest} columns:\n{text}");
}
