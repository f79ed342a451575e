//! Windows of single operations, against sorting all of them.

use super::*;
use proptest::prelude::*;

const MAP: MapOperation = (7, Operation::Lookup);
const OTHER: MapOperation = (9, Operation::Update);

fn seconds(it: u64) -> Duration {
    Duration::from_secs(it)
}

/// An operation that began at `begin` and took as long as that number says, half of it in the kernel.
fn single(begin: u64) -> Single {
    Single {
        begin,
        until_user: begin,
        kernel_window: begin / 2,
    }
}

fn none() -> BTreeMap<MapOperation, u64> {
    BTreeMap::new()
}

fn rows(window: &ExactWindow) -> Vec<ExactRow> {
    let samples = window.samples().into_iter();
    samples.map(Sample::into_row).collect()
}

fn maxima(window: &ExactWindow) -> Vec<(u32, u64, u64)> {
    rows(window)
        .into_iter()
        .map(|it| {
            let max = it.latencies.map_or(0, |it| it.until_user.max);
            (it.map_id, it.count, max)
        })
        .collect()
}

proptest! {
    #[test]
    fn percentiles_are_those_of_a_sorted_copy(values in prop::collection::vec(0u64..5_000, 1..600)) {
        let mut sorted = values.clone();
        sorted.sort_unstable();
        let at = |per_mille: usize| sorted[(per_mille * sorted.len()).div_ceil(1000) - 1];
        let expected = ExactPercentiles {
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: sorted[sorted.len() - 1],
        };
        prop_assert_eq!(ExactPercentiles::of(&mut values.clone()), Some(expected));
    }

    #[test]
    fn nothing_is_lost_without_being_counted(told in prop::collection::vec((0u32..3, 0u64..4), 1..200)) {
        let mut window = ExactWindow::new(seconds(100), Keep::All(50));
        let mut all: BTreeMap<MapOperation, u64> = BTreeMap::new();
        let mut missed = none();
        for (at, (map, lost)) in (1..).zip(&told) {
            let map = (*map, Operation::Lookup);
            window.tell(map, single(at));
            *missed.entry(map).or_default() += lost;
            *all.entry(map).or_default() += 1 + lost;
            if at % 7 == 0 {
                window.advance(seconds(at / 7), &missed);
            }
        }
        window.advance(seconds(90), &missed);
        for row in rows(&window) {
            let sum = row.count + row.missed + row.let_go;
            prop_assert_eq!(sum, all[&(row.map_id, row.operation)]);
        }
        prop_assert_eq!(rows(&window).len(), all.len());
        let kept: u64 = rows(&window).iter().map(|it| it.count).sum();
        prop_assert_eq!(kept, (told.len() as u64).min(50));
    }
}

#[test]
fn without_values_there_are_no_percentiles() {
    assert_eq!(ExactPercentiles::of(&mut []), None);
}

#[test]
fn the_newest_are_kept_of_each_map() {
    let mut window = ExactWindow::new(seconds(60), Keep::Last(3));
    for begin in [50, 10, 20, 30] {
        window.tell(MAP, single(begin));
    }
    window.tell(OTHER, single(5));
    window.advance(seconds(1), &none());
    assert_eq!(maxima(&window), [(7, 3, 30), (9, 1, 5)]);
    let row = &rows(&window)[0];
    let latencies = row.latencies.unwrap();
    assert_eq!(
        (latencies.until_user.p50, latencies.kernel_window.p50),
        (20, 10)
    );
    assert_eq!((row.span, row.let_go), (Duration::from_nanos(50), 0));
}

#[test]
fn operations_leave_with_their_slice() {
    for keep in [Keep::Last(2), Keep::All(100)] {
        let mut window = ExactWindow::new(seconds(2), keep);
        window.tell(MAP, single(9));
        window.advance(seconds(1), &none());
        window.tell(MAP, single(8));
        window.advance(seconds(2), &none());
        assert_eq!(maxima(&window), [(7, 2, 9)]);
        window.advance(seconds(3), &none());
        assert_eq!(maxima(&window), [(7, 1, 8)]);
        window.advance(seconds(4), &none());
        assert_eq!((maxima(&window), window.total), (vec![], 0));
    }
}

#[test]
fn what_was_missed_is_that_of_the_time_of_the_figures() {
    let missed = |count| BTreeMap::from([(MAP, count)]);
    let mut window = ExactWindow::new(seconds(60), Keep::Last(2));
    window.tell(MAP, single(1));
    window.advance(seconds(1), &missed(5));
    assert_eq!((rows(&window)[0].count, rows(&window)[0].missed), (1, 5));
    window.tell(MAP, single(2));
    window.advance(seconds(2), &missed(6));
    assert_eq!(rows(&window)[0].missed, 6);
    window.tell(MAP, single(3));
    window.advance(seconds(3), &missed(6));
    assert_eq!(
        rows(&window)[0].missed,
        1,
        "the first second is in no figure any more"
    );
}

#[test]
fn operations_that_were_all_missed_are_told_of() {
    let mut window = ExactWindow::new(seconds(60), Keep::Last(2));
    window.advance(seconds(1), &BTreeMap::from([(MAP, 4)]));
    let row = &rows(&window)[0];
    assert_eq!((row.count, row.missed, row.latencies), (0, 4, None));
}

#[test]
fn the_oldest_of_too_many_go_and_that_is_told() {
    let mut window = ExactWindow::new(seconds(60), Keep::All(3));
    for begin in 1..=4 {
        window.tell(MAP, single(begin));
        window.tell(OTHER, single(begin + 10));
    }
    window.advance(seconds(1), &none());
    assert_eq!(maxima(&window), [(9, 3, 14), (7, 0, 0)]);
    let let_go: Vec<u64> = rows(&window).iter().map(|it| it.let_go).collect();
    assert_eq!(let_go, [1, 4]);
}

#[test]
fn more_maps_than_have_room_are_counted_as_missed() {
    let mut window = ExactWindow::new(seconds(60), Keep::Last(MAX_KEPT / 2));
    for id in 1..=3 {
        window.tell((id, Operation::Lookup), single(1));
        window.tell((id, Operation::Lookup), single(2));
    }
    window.advance(seconds(1), &none());
    let told: Vec<_> = rows(&window)
        .iter()
        .map(|it| (it.map_id, it.count, it.missed))
        .collect();
    assert_eq!(told, [(1, 2, 0), (2, 2, 0), (3, 0, 2)]);
    assert_eq!(window.without_room(), 1);
}

#[test]
fn a_map_that_is_let_go_takes_its_operations_along() {
    let mut window = ExactWindow::new(seconds(60), Keep::All(9));
    window.tell(MAP, single(1));
    window.tell(OTHER, single(1));
    window.advance(seconds(1), &BTreeMap::from([(MAP, 4)]));
    window.keep_maps(|id| id == OTHER.0);
    assert_eq!((maxima(&window), window.total), (vec![(9, 1, 1)], 1));
}

#[test]
fn a_map_without_room_gets_some_when_another_goes() {
    let most = MAX_KEPT / 2;
    let mut window = ExactWindow::new(seconds(10), Keep::Last(most));
    for map in [1, 2, 3] {
        window.tell((map, Operation::Lookup), single(1));
    }
    assert_eq!(window.without_room(), 1);
    window.keep_maps(|map| map != 1);
    for at in 1..5 {
        window.tell((3, Operation::Lookup), single(at));
        window.advance(seconds(at), &none());
    }
    assert_eq!(window.without_room(), 0);
    let row = rows(&window).into_iter().find(|it| it.map_id == 3).unwrap();
    assert_eq!(
        (row.count, row.missed),
        (3, 2),
        "what had no room is told as missed"
    );
}
