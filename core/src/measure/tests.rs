//! The sliding window is exact, and finds the second that users felt.

use super::*;
use proptest::prelude::*;

const KEY: SeriesKey = SeriesKey {
    map_id: 1,
    operation: Operation::Lookup,
    cpu: 0,
    outcome: Outcome::Success,
};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn rows(values: &[u64]) -> Rows {
    let histogram: Histogram = values.iter().copied().collect();
    let counts = Counts {
        kernel_window: histogram.clone(),
        until_user: histogram,
        ..Counts::default()
    };
    Rows::from([(KEY, counts)])
}

fn count(rows: &Rows) -> u64 {
    rows.get(&KEY).map_or(0, |it| it.until_user.count())
}

#[test]
fn what_was_counted_before_the_beginning_is_not_in_the_window() {
    let mut window = SlidingWindow::new(seconds(60));
    window.begin(seconds(100), rows(&[500, 500]));
    window
        .advance(seconds(101), rows(&[500, 500, 700]))
        .unwrap();

    assert_eq!(count(window.within()), 1);
    assert_eq!(window.span(), seconds(1));
}

#[test]
fn a_slice_shorter_than_a_second_is_judged_as_a_second() {
    let mut window = SlidingWindow::new(seconds(60));
    window.begin(seconds(0), Rows::new());
    let mut values = vec![500; 99];
    values.push(4_000_500);
    window
        .advance(Duration::from_millis(10), rows(&values))
        .unwrap();

    let worst = worst_slices(&window, |_| 0);

    // 4 ms of a second, and not of 10 ms.
    let lost = worst[&KEY.place()].time_lost_parts_per_million;
    assert!((3_900..4_100).contains(&lost), "{lost}");
}

#[test]
fn counts_that_go_backwards_are_refused_and_change_nothing() {
    let mut window = SlidingWindow::new(seconds(60));
    window.begin(seconds(1), Rows::new());
    window.advance(seconds(2), rows(&[500, 500])).unwrap();

    assert_eq!(window.advance(seconds(3), rows(&[500])), Err(WentBackwards));
    assert_eq!(count(window.within()), 2);
}

#[test]
fn a_row_that_ends_leaves_the_window_by_age() {
    let mut window = SlidingWindow::new(seconds(10));
    window.begin(seconds(0), Rows::new());
    window.advance(seconds(1), rows(&[500])).unwrap();
    window.advance(seconds(2), Rows::new()).unwrap();
    assert_eq!(count(window.within()), 1);

    window.expire(seconds(11));
    assert!(window.within().is_empty());
}

#[test]
fn the_worst_slice_is_the_one_that_lost_most_time() {
    let mut window = SlidingWindow::new(seconds(60));
    window.begin(seconds(0), Rows::new());
    let mut all = vec![500; 1000];
    window.advance(seconds(1), rows(&all)).unwrap();
    // A stalled closed-loop reader makes few reads: the P99 of the second stays low, the time does not.
    all.extend([500; 900]);
    all.extend([4_000_000; 8]);
    window.advance(seconds(2), rows(&all)).unwrap();
    all.extend([500; 1000]);
    window.advance(seconds(3), rows(&all)).unwrap();

    let worst = worst_slices(&window, |at| i64::try_from(at.as_micros()).unwrap());
    let worst = &worst[&KEY.place()];
    assert_eq!(worst.start_unix_microseconds, 1_000_000);
    assert_eq!(worst.count, 908);
    assert!(worst.p99_nanoseconds < 1_000);
    assert!(worst.max_nanoseconds.abs_diff(4_000_000) < 40_000);
    assert!(worst.time_lost_parts_per_million.abs_diff(32_000) < 320);
}

/// Each place's worst slice, with all outcomes of every slice merged first.
fn worst_of_merged(window: &SlidingWindow) -> BTreeMap<Place, WorstSlice> {
    let medians = medians(window.within());
    let mut worst: BTreeMap<Place, WorstSlice> = BTreeMap::new();
    for slice in window.slices() {
        for (place, counts) in by_place(&slice.rows) {
            let times = &counts.until_user;
            let length = slice.to.saturating_sub(slice.from).max(SECOND);
            let candidate = WorstSlice {
                start_unix_microseconds: i64::try_from(slice.from.as_micros()).unwrap(),
                count: times.count(),
                p99_nanoseconds: times.percentile(Percentile::P99).unwrap(),
                max_nanoseconds: times.max().unwrap(),
                time_lost_parts_per_million: parts_per_million(
                    time_lost(times, medians[&place]),
                    length,
                ),
            };
            let known = worst.get(&place);
            if known.is_none_or(|it| it.badness() < candidate.badness()) {
                worst.insert(place, candidate);
            }
        }
    }
    worst
}

proptest! {
    #[test]
    fn the_worst_slice_is_that_of_all_outcomes_together(
        slices in prop::collection::vec(
            prop::collection::vec((0u32..3, 0u8..2, 1u64..100_000), 0..20),
            1..20,
        ),
    ) {
        let mut window = SlidingWindow::new(seconds(12));
        window.begin(Duration::ZERO, Rows::new());
        let mut all = Rows::new();
        for (n, operations) in slices.iter().enumerate() {
            for (cpu, outcome, time) in operations {
                let outcome = [Outcome::Success, Outcome::NotFound][usize::from(*outcome)];
                let counts = all.entry(SeriesKey { cpu: *cpu, outcome, ..KEY }).or_default();
                counts.until_user.record(*time);
            }
            window.advance(seconds(n as u64 + 1), all.clone()).unwrap();
        }

        let worst = worst_slices(&window, |at| i64::try_from(at.as_micros()).unwrap());

        prop_assert_eq!(worst, worst_of_merged(&window));
    }

    #[test]
    fn the_window_equals_the_newest_state_minus_its_beginning(
        added in prop::collection::vec(prop::collection::vec(1u64..1_000_000, 0..20), 1..40),
        length in 1u64..20,
    ) {
        let mut window = SlidingWindow::new(seconds(length));
        window.begin(Duration::ZERO, Rows::new());
        let mut all = Vec::new();
        for (n, values) in added.iter().enumerate() {
            all.extend_from_slice(values);
            window.advance(seconds(n as u64 + 1), rows(&all)).unwrap();
        }
        let first = added.len().saturating_sub(usize::try_from(length).unwrap());
        let expected: Vec<u64> = added[first..].concat();

        prop_assert_eq!(count(window.within()), expected.len() as u64);
        if let Some(counts) = window.within().get(&KEY) {
            prop_assert_eq!(counts, &rows(&expected)[&KEY]);
        }
        let before: Vec<u64> = added[..first].concat();
        prop_assert_eq!(count(&window.beginning()), before.len() as u64);
    }
}

#[test]
fn a_window_whose_first_slice_is_a_whole_one_slides_on_by_its_beginnings() {
    // A read of its own each second; what is known of the first ten comes at once.
    let made = |at: u64| -> Vec<u64> { (1..=at).map(|it| it * 1_000).collect() };
    let mut window = SlidingWindow::new(seconds(10));
    window.begin(seconds(20), rows(&made(20)));
    window.advance(seconds(30), rows(&made(30))).unwrap();
    for at in 31..60 {
        window.advance(seconds(at), rows(&made(at))).unwrap();
        window.begin_at(seconds(at - 10), &rows(&made(at - 10)));
        let expected = rows(&made(at)[usize::try_from(at - 10).unwrap()..]);
        assert_eq!(*window.within(), expected, "at {at} s");
        assert_eq!(window.span(), seconds(10), "at {at} s");
    }
    assert_eq!(window.slices().count(), 10);
}

#[test]
fn a_beginning_that_does_not_fit_changes_no_count() {
    let mut window = SlidingWindow::new(seconds(10));
    window.begin(seconds(0), Rows::new());
    window.advance(seconds(8), rows(&[500, 500])).unwrap();
    window.begin_at(seconds(4), &rows(&[500, 500, 500]));
    window.begin_at(seconds(4), &rows(&[700]));
    assert_eq!(count(window.within()), 2);
    // Before all that is known.
    window.begin_at(seconds(0), &Rows::new());
    assert_eq!(count(window.within()), 2);
}
