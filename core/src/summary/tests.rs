//! Nodes merge without loss, and each figure comes from where it says.

use super::*;
use crate::exact::{ExactPercentiles, ExactRow, Latencies};
use crate::measure::{Rows, SeriesKey};
use crate::vocabulary::{MapIdentity, MapType, Outcome};

fn map(id: u32) -> MapIdentity {
    MapIdentity {
        id,
        name: format!("map{id}"),
        map_type: Some(MapType::Hash),
    }
}

fn key(map_id: u32, operation: Operation, cpu: u32) -> SeriesKey {
    SeriesKey {
        map_id,
        operation,
        cpu,
        outcome: Outcome::Success,
    }
}

fn counts(until_user: &[u64], kernel: &[u64]) -> Counts {
    Counts {
        until_user: until_user.iter().copied().collect(),
        kernel_window: kernel.iter().copied().collect(),
        ..Counts::default()
    }
}

fn window(node: &str, rows: Rows) -> NodeWindow {
    NodeWindow {
        node: node.to_owned(),
        boot_id: node.to_owned(),
        maps: vec![map(1)],
        gone: vec![],
        span: Duration::from_mins(1),
        rows,
        sampling: 1,
        worst: BTreeMap::new(),
        callers: vec![],
        spikes: vec![],
        outliers: None,
        exact: vec![],
        losses: BTreeMap::new(),
    }
}

const TWO_OF_TWO: NodeCounts = NodeCounts::all_ready(2);

#[test]
fn two_nodes_merge_into_one_operation() {
    let a = window(
        "a",
        Rows::from([(key(1, Operation::Lookup, 0), counts(&[100; 99], &[90; 99]))]),
    );
    let b = window(
        "b",
        Rows::from([(key(1, Operation::Lookup, 3), counts(&[110], &[80]))]),
    );

    let status = status(&[a, b], TWO_OF_TWO, vec![], Some(4));

    assert_eq!(status.observed_generation, Some(4));
    assert_eq!(status.matched_maps, 2);
    assert_eq!(status.operations.len(), 1);
    let lookup = &status.operations[0];
    assert_eq!(lookup.count, 100);
    assert_eq!(lookup.until_user.unwrap().p99_nanoseconds, 100);
    assert_eq!(lookup.until_user.unwrap().max_nanoseconds, 110);
    assert_eq!(lookup.kernel_window.unwrap().max_nanoseconds, 90);
    assert_eq!(status.summary.nodes.as_deref(), Some("2/2"));
    assert_eq!(status.summary.reads.as_deref(), Some("100"));
}

#[test]
fn nodes_that_share_a_kernel_count_its_maps_once() {
    let a = window("a", Rows::new());
    let b = NodeWindow {
        node: "b".to_owned(),
        ..a.clone()
    };
    assert_eq!(matched_maps(&[a, b]), 1);
}

#[test]
fn writes_do_not_count_as_reads() {
    let a = window(
        "a",
        Rows::from([(key(1, Operation::Update, 0), counts(&[100], &[90]))]),
    );
    let status = status(&[a], TWO_OF_TWO, vec![], None);
    assert_eq!(status.summary.reads.as_deref(), Some("0"));
    assert_eq!(status.summary.p99, None);
    assert_eq!(status.operations[0].operation, Operation::Update);
}

#[test]
fn active_reads_stay_apart_from_callers() {
    let own = Counts {
        active_read: [700, 700].into_iter().collect(),
        active_delay: [50_000, 50_000].into_iter().collect(),
        ..Counts::default()
    };
    let a = window("a", Rows::from([(key(1, Operation::Lookup, 0), own)]));

    let status = status(&[a], TWO_OF_TWO, vec![], None);

    let lookup = &status.operations[0];
    assert_eq!((lookup.count, lookup.until_user), (0, None));
    let active = lookup.active.as_ref().unwrap();
    assert_eq!(active.count, 2);
    assert!(active.start_delay.p50_nanoseconds > active.read.p50_nanoseconds);
    assert!(status.slowest.is_empty());
}

#[test]
fn the_slowest_rows_are_those_that_lost_most_time_and_at_most_ten() {
    let mut rows = Rows::new();
    for cpu in 0..20 {
        let mut values = vec![500; 1000];
        values.extend(vec![4_000_000; cpu as usize]);
        rows.insert(key(1, Operation::Lookup, cpu), counts(&values, &values));
    }

    let status = status(&[window("a", rows)], TWO_OF_TWO, vec![], None);

    let cpus: Vec<i32> = status.slowest.iter().map(|it| it.cpu).collect();
    assert_eq!(cpus, (10..20).rev().collect::<Vec<_>>());
    assert_eq!(status.slowest[0].map.name, "map1");
    let share = status.slowest[0].time_lost_parts_per_million;
    assert!((share - 1_266).abs() < 20, "19 × 4 ms of 60 s, got {share}");
}

#[test]
fn a_map_that_has_gone_keeps_its_name_but_no_longer_matches() {
    let mut a = window(
        "a",
        Rows::from([(key(2, Operation::Lookup, 0), counts(&[100], &[90]))]),
    );
    a.gone = vec![map(2)];

    let status = status(&[a], TWO_OF_TWO, vec![], None);

    assert_eq!(status.matched_maps, 1);
    assert_eq!(status.slowest[0].map.name, "map2");
}

#[test]
fn losses_add_up_by_kind_and_zeros_are_left_out() {
    let mut a = window("a", Rows::new());
    a.losses = BTreeMap::from([("Attr".to_owned(), 2), ("Storage".to_owned(), 0)]);
    let mut b = window("b", Rows::new());
    b.losses = BTreeMap::from([("Attr".to_owned(), 3)]);

    let status = status(&[a, b], TWO_OF_TWO, vec![], None);

    assert_eq!(status.losses.len(), 1);
    assert_eq!(
        (status.losses[0].kind.as_str(), status.losses[0].count),
        ("Attr", 5)
    );
}

#[test]
fn a_node_that_samples_makes_the_sums_estimates() {
    let rows = || Rows::from([(key(1, Operation::Lookup, 0), counts(&[100; 32], &[90; 32]))]);
    let all = window("a", rows());
    let sampled = NodeWindow {
        sampling: 16,
        ..window("b", rows())
    };

    let exact = status(&[all.clone(), all.clone()], TWO_OF_TWO, vec![], None);
    let mixed = status(&[all, sampled], TWO_OF_TWO, vec![], None);

    assert_eq!(exact.sampled_one_in, None);
    assert_eq!(exact.summary.reads.as_deref(), Some("64"));
    assert_eq!(mixed.sampled_one_in, Some(16));
    assert_eq!(mixed.summary.reads.as_deref(), Some("~64"));
}

#[test]
fn exact_figures_of_nodes_stand_side_by_side_and_are_not_merged() {
    let percentiles = |p50| ExactPercentiles {
        p50,
        p90: p50,
        p99: p50,
        p999: p50,
        max: 1_234_567,
    };
    let row = |count: u64, missed| ExactRow {
        map_id: 1,
        operation: Operation::Lookup,
        count,
        missed,
        let_go: 3,
        span: Duration::from_secs(2),
        latencies: (count > 0).then(|| Latencies {
            until_user: percentiles(count),
            kernel_window: percentiles(count / 2),
        }),
    };
    let of = |node, exact| NodeWindow {
        exact,
        ..window(node, Rows::new())
    };
    let few = of("a", vec![row(7, 0), row(0, 9)]);
    let many = of("b", (10..30).map(|it| row(it, 1)).collect());

    let two = status(&[few.clone(), many], TWO_OF_TWO, vec![], None).exact;
    let one = status(&[few], TWO_OF_TWO, vec![], None).exact;

    let counts: Vec<i64> = two.iter().map(|it| it.count).collect();
    assert_eq!(counts, (20..30).rev().collect::<Vec<i64>>());
    assert_eq!(
        (two[0].node.as_str(), two[0].map.name.as_str()),
        ("b", "map1")
    );
    assert_eq!((two[0].missed, two[0].let_go), (1, 3));
    assert_eq!(two[0].span_nanoseconds, 2_000_000_000);
    let until_user = two[0].until_user.as_ref().unwrap();
    assert_eq!(
        (until_user.p50_nanoseconds, until_user.max_nanoseconds),
        (29, 1_234_567)
    );
    assert_eq!(two[0].kernel_window.as_ref().unwrap().p50_nanoseconds, 14);
    assert_eq!((one[1].count, one[1].missed), (0, 9));
    assert_eq!((&one[1].until_user, &one[1].kernel_window), (&None, &None));
}
