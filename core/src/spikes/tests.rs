//! What people would call a spike is found, with its times, and what they would not is not.

use super::*;
use crate::histogram::{BLOCK, bucket_of};

const MEDIAN: u64 = 500;

fn place(cpu: u32) -> Place {
    Place {
        map_id: 1,
        operation: Operation::Lookup,
        cpu,
    }
}

fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A second of reads: mostly fast, some hit by interrupts, and slow ones at given times.
struct Second {
    times: Histogram,
    spans: BTreeMap<u16, Span>,
}

impl Second {
    fn quiet(number: u64) -> Self {
        let mut second = Self {
            times: Histogram::new(),
            spans: BTreeMap::new(),
        };
        let (begin, end) = (
            milliseconds(number * 1_000),
            milliseconds(number * 1_000 + 999),
        );
        second.count(MEDIAN, 500_000, begin, end);
        // Interrupts: as many as on an idle machine, and not always as many.
        second.count(5_000, 400 + number * 7 % 90, begin, end);
        second.count(60_000, number * 5 % 4, begin, end);
        second
    }

    fn count(&mut self, nanoseconds: u64, times: u64, begin: Duration, end: Duration) {
        if times == 0 {
            return;
        }
        let bucket = bucket_of(nanoseconds);
        self.times.add(bucket, times);
        let span = Span {
            first_begin: begin,
            last_end: end,
        };
        let known = self.spans.entry(bucket / BLOCK).or_insert(span);
        known.first_begin = known.first_begin.min(begin);
        known.last_end = known.last_end.max(end);
    }
}

/// Seconds, in some of which reads of 4 ms follow each other: from when, in milliseconds, and how many.
fn window(seconds: u64, slow: &[(u64, u64)], cpu: u32, window: &mut SpikeWindow) {
    for number in 0..seconds {
        let mut second = Second::quiet(number);
        for (from, times) in slow.iter().filter(|it| it.0 / 1_000 == number) {
            let end = milliseconds(from + 4 * times);
            second.count(4_000_000, *times, milliseconds(*from), end);
        }
        let to = milliseconds(number * 1_000 + 1_000);
        window.add(place(cpu), to, &second.times, Some(&second.spans), MEDIAN);
        window.expire(to);
    }
}

fn spikes(seconds: u64, slow: &[(u64, u64)]) -> Vec<Spike> {
    let mut all = SpikeWindow::new(Duration::from_mins(10));
    window(seconds, slow, 0, &mut all);
    all.spikes(Duration::from_secs(seconds), micros)
}

fn micros(at: Duration) -> i64 {
    i64::try_from(at.as_micros()).unwrap()
}

#[test]
fn ten_quiet_minutes_have_no_spike() {
    assert_eq!(spikes(600, &[]), []);
}

#[test]
fn now_and_then_an_operation_of_some_milliseconds_is_no_spike() {
    let slow: Vec<_> = [7, 19, 80, 81, 200, 203, 340, 555]
        .map(|it| (it * 1_000 + it, 1))
        .into();
    assert_eq!(spikes(600, &slow), []);
}

/// As in the first seconds of a run, when nothing is usual yet.
#[test]
fn noise_that_lasts_for_seconds_is_no_spike() {
    let mut all = SpikeWindow::new(Duration::from_mins(10));
    for number in 0..30 {
        let mut second = Second::quiet(number);
        if number < 2 {
            let (begin, end) = (
                milliseconds(number * 1_000),
                milliseconds(number * 1_000 + 950),
            );
            second.count(20_000, 400, begin, end);
        }
        let to = milliseconds(number * 1_000 + 1_000);
        all.add(place(0), to, &second.times, Some(&second.spans), MEDIAN);
    }
    assert_eq!(all.spikes(Duration::from_secs(30), micros), []);
}

#[test]
fn five_regular_spikes_are_told_with_their_period_and_length() {
    // Every 4 s, give or take 50 ms, ten reads of 4 ms each.
    let slow: Vec<_> = [300, 4_340, 8_270, 12_310, 16_290]
        .map(|it| (it, 10))
        .into();
    let [spike] = &spikes(18, &slow)[..] else {
        panic!("not one: {:?}", spikes(18, &slow));
    };
    let period = spike.period.expect("they are regular");
    assert!(
        period.abs_diff(milliseconds(4_000)) < milliseconds(40),
        "{period:?}"
    );
    assert_eq!(spike.duration, milliseconds(40));
    assert_eq!(spike.cpus, BTreeSet::from([0]));
    assert_eq!((spike.count, spike.last_unix_microseconds), (5, 16_290_000));
    assert!(spike.p99_nanoseconds.abs_diff(4_000_000) <= 40_000);
    // Five times 40 ms of 18 s.
    assert!(
        spike.time_lost_parts_per_million.abs_diff(11_111) < 200,
        "{spike:?}"
    );
}

#[test]
fn small_spikes_count_only_if_they_are_regular() {
    let regular: Vec<_> = (0..10).map(|it| (it * 3_000 + 100, 1)).collect();
    let [spike] = &spikes(30, &regular)[..] else {
        panic!("not one: {:?}", spikes(30, &regular));
    };
    // Nothing is usual yet in the first second, so its interrupts count as part of the spike.
    let period = spike.period.expect("they are regular");
    assert!(
        period.abs_diff(milliseconds(3_000)) < milliseconds(30),
        "{period:?}"
    );
    let at_any_time: Vec<_> = [100, 1_900, 6_000, 7_100, 14_500, 19_000, 29_000]
        .map(|it| (it, 1))
        .into();
    assert_eq!(spikes(30, &at_any_time), []);
}

/// The demo's incident on a fast machine with other work, second by second: how many milliseconds were lost to
/// interrupts of some microseconds, and how many to reads of milliseconds.
#[test]
fn many_small_losses_do_not_hide_regular_spikes() {
    let seconds = [
        (35, 0),
        (27, 0),
        (20, 0),
        (31, 51),
        (23, 0),
        (17, 5),
        (16, 0),
        (13, 48),
        (16, 1),
        (22, 0),
        (15, 0),
        (19, 44),
        (14, 5),
        (13, 0),
        (14, 0),
        (13, 52),
        (13, 0),
        (20, 0),
        (16, 7),
        (10, 52),
        (11, 0),
        (11, 0),
        (13, 0),
        (10, 48),
        (10, 0),
        (11, 0),
        (10, 20),
        (10, 36),
        (11, 0),
        (13, 6),
        (11, 0),
        (11, 51),
        (11, 0),
        (11, 0),
        (11, 0),
        (10, 52),
    ];
    let mut all = SpikeWindow::new(Duration::from_mins(1));
    for (number, (small, large)) in (0..).zip(seconds) {
        let mut second = Second::quiet(number);
        let begin = milliseconds(number * 1_000);
        second.count(
            7_000,
            small * 1_000_000 / 6_500,
            begin,
            begin + milliseconds(999),
        );
        let from = begin + milliseconds(300);
        second.count(4_000_000, large / 4, from, from + milliseconds(large * 2));
        second.count(
            large % 4 * 1_000_000,
            u64::from(large % 4 > 0),
            from,
            from + milliseconds(large % 4),
        );
        let to = milliseconds(number * 1_000 + 1_000);
        all.add(place(0), to, &second.times, Some(&second.spans), MEDIAN);
    }

    let told = all.spikes(Duration::from_secs(36), micros);

    let rows: Vec<_> = told.iter().map(|it| (it.count, it.period)).collect();
    assert_eq!(
        rows,
        [(9, Some(milliseconds(4_000))), (1, None)],
        "{told:?}"
    );
}

#[test]
fn one_that_was_missed_does_not_spoil_the_period() {
    let slow: Vec<_> = [0, 4, 8, 16, 20, 24, 28]
        .map(|it| (it * 1_000 + 200, 10))
        .into();
    assert_eq!(spikes(30, &slow)[0].period, Some(milliseconds(4_000)));
}

#[test]
fn a_smaller_one_in_between_does_not_halve_the_period() {
    // As seen beside the demo's incident.
    let mut slow: Vec<_> = [300, 4_300, 8_300, 12_300].map(|it| (it, 25)).into();
    slow.push((6_350, 4));
    assert!(spikes(15, &slow).iter().all(|it| it.period.is_none()));
    slow.push((16_300, 25));
    let told = spikes(18, &slow);
    let periods: Vec<_> = told.iter().map(|it| (it.count, it.period)).collect();
    assert_eq!(periods, [(5, Some(milliseconds(4_000))), (1, None)]);
}

#[test]
fn a_single_large_one_is_told_without_a_period() {
    let [spike] = &spikes(60, &[(33_000, 10)])[..] else {
        panic!("not one");
    };
    assert_eq!((spike.period, spike.count), (None, 1));
}

/// What a cluster of nodes on two CPUs took from a reader in seconds without a rewrite: to interrupts, in tenths of a
/// millisecond, and to operations of 800 µs.
const RECORDED: [(u64, u64); 16] = [
    (79, 0),
    (91, 1),
    (74, 3),
    (87, 1),
    (85, 0),
    (70, 0),
    (83, 4),
    (87, 2),
    (82, 1),
    (111, 1),
    (82, 0),
    (77, 2),
    (75, 2),
    (75, 0),
    (164, 1),
    (77, 0),
];

/// The spikes of a minute with rewrites at these times, in milliseconds, of a tenth of a second each, in which every other 4 ms
/// are a read's.
fn rewrites_at(rewrites: &(impl Iterator<Item = u64> + Clone)) -> Vec<Spike> {
    const SECONDS: u64 = 60;
    let mut all = SpikeWindow::new(Duration::from_mins(1));
    for number in 0..SECONDS {
        let (begin, end) = (number * 1_000, number * 1_000 + 999);
        let mut second = Second::quiet(number);
        let (small, long) = RECORDED[usize::try_from(number).unwrap() % RECORDED.len()];
        let (first, last) = (milliseconds(begin), milliseconds(end));
        second.count(7_000, small * 100_000 / 6_500, first, last);
        second.count(800_000, long, first, last);
        // A read counts in the second in which it ends.
        let reads = rewrites
            .clone()
            .flat_map(|it| (0..13).map(move |read| it + read * 8))
            .filter(|it| (begin..=end).contains(&(it + 4)));
        for read in reads {
            second.count(4_000_000, 1, milliseconds(read), milliseconds(read + 4));
        }
        let to = milliseconds(number * 1_000 + 1_000);
        all.add(place(0), to, &second.times, Some(&second.spans), MEDIAN);
    }
    all.spikes(Duration::from_secs(SECONDS), micros)
}

#[test]
fn a_rewrite_is_found_wherever_in_the_second_it_begins() {
    for every in [3_000, 3_700, 4_000, 5_000, 7_000] {
        for from in (0..every).step_by(20) {
            // What the end of the window cuts off is another matter.
            let times = (from..59_800).step_by(usize::try_from(every).unwrap());
            let told = rewrites_at(&times);
            let [spike] = &told[..] else {
                panic!("every {every} from {from}: {told:?}");
            };
            let found = format!("every {every} from {from}: {spike:?}");
            let period = spike.period.expect(&found);
            assert!(
                period.abs_diff(milliseconds(every)) < milliseconds(20),
                "{found}"
            );
            // To the interrupts of a second it may stretch, and a read at its end may be missed.
            assert!(
                spike.duration.abs_diff(milliseconds(100)) <= milliseconds(10),
                "{found}"
            );
            // The first comes when nothing is usual yet, and one may fall into a second with twice as many interrupts.
            let all = times.count() as u64;
            assert!((all - 1..=all).contains(&spike.count), "{all}: {found}");
        }
    }
}

#[test]
fn one_that_lasts_over_the_end_of_a_second_is_one() {
    let mut all = SpikeWindow::new(Duration::from_mins(10));
    for number in 0..30 {
        let mut second = Second::quiet(number);
        if number == 10 {
            second.count(4_000_000, 10, milliseconds(10_960), milliseconds(11_000));
        }
        if number == 11 {
            second.count(4_000_000, 5, milliseconds(11_000), milliseconds(11_020));
        }
        let to = milliseconds(number * 1_000 + 1_000);
        all.add(place(0), to, &second.times, Some(&second.spans), MEDIAN);
    }
    let told = all.spikes(Duration::from_secs(30), micros);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].count, told[0].duration), (1, milliseconds(60)));
}

#[test]
fn spikes_of_two_cpus_at_the_same_time_are_one_and_at_different_times_two() {
    let slow = |offset: u64| -> Vec<_> { (0..6).map(|it| (it * 4_000 + offset, 10)).collect() };
    let mut same = SpikeWindow::new(Duration::from_mins(10));
    window(24, &slow(100), 0, &mut same);
    window(24, &slow(120), 3, &mut same);
    let told = same.spikes(Duration::from_secs(24), micros);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].cpus, BTreeSet::from([0, 3]));

    let mut apart = SpikeWindow::new(Duration::from_mins(10));
    window(24, &slow(100), 0, &mut apart);
    window(24, &slow(2_100), 3, &mut apart);
    let told = apart.spikes(Duration::from_secs(24), micros);
    let cpus: BTreeSet<_> = told.iter().map(|it| it.cpus.clone()).collect();
    let each = [BTreeSet::from([0]), BTreeSet::from([3])];
    assert_eq!((told.len(), cpus), (2, BTreeSet::from(each)));
}

#[test]
fn a_neighbour_that_is_hit_now_and_then_does_not_split_the_row() {
    let mut all = SpikeWindow::new(Duration::from_mins(10));
    let slow: Vec<_> = (0..7).map(|it| (it * 4_000 + 100, 10)).collect();
    let beside: Vec<_> = [0, 2, 3].map(|it| (it * 4_000 + 105, 10)).into();
    window(28, &slow, 0, &mut all);
    window(28, &beside, 1, &mut all);
    let told = all.spikes(Duration::from_secs(28), micros);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].period, Some(milliseconds(4_000)));
    assert_eq!((told[0].count, &told[0].cpus), (7, &BTreeSet::from([0])));
}

#[test]
fn what_is_slow_all_the_time_is_no_spike() {
    let slow: Vec<_> = (0..600).map(|it| (it * 1_000 + 100, 20 + it % 5)).collect();
    assert_eq!(spikes(600, &slow), []);
}

#[test]
fn a_spike_leaves_with_the_window() {
    let mut all = SpikeWindow::new(Duration::from_secs(20));
    window(60, &[(5_000, 10)], 0, &mut all);
    assert_eq!(all.spikes(Duration::from_secs(20), micros), []);
    assert_eq!(all.places[&place(0)].len(), 20);
}
