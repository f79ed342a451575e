//! The window tells callers apart as far as it promised, and loses no operation with those that it merges.

use super::*;

fn caller(pid: u32) -> Arc<CallerIdentity> {
    Arc::new(CallerIdentity {
        pid,
        start_unix_microseconds: 0,
        command: format!("caller{pid}"),
        cgroup_id: 1,
        cgroup: String::new(),
        container: Container::default(),
    })
}

fn rows(each: &[(u32, u64, usize)]) -> CallerRows {
    each.iter()
        .map(|(pid, nanoseconds, times)| {
            let series = CallerSeries {
                map_id: 1,
                caller: Some(caller(*pid)),
                operation: Operation::Lookup,
            };
            let counts = Counts {
                until_user: std::iter::repeat_n(*nanoseconds, *times).collect(),
                ..Counts::default()
            };
            (series, counts)
        })
        .collect()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn pids(rows: &[CallerRow]) -> Vec<Option<u32>> {
    let pid = |it: &CallerRow| it.caller.as_ref().map(|it| it.pid);
    rows.iter().map(pid).collect()
}

#[test]
fn who_spends_most_comes_first_and_the_rest_last() {
    let mut window = CallerWindow::new(seconds(60));
    window.advance(
        seconds(1),
        rows(&[(1, 100, 5), (2, 1_000, 5), (3, 100, 9), (4, 90, 1)]),
    );
    let told = window.rows(seconds(1), 2);
    assert_eq!(pids(&told), [Some(2), Some(3), None]);
    assert_eq!((told[2].callers, told[2].count), (2, 6));
    assert!(told[0].p99_nanoseconds.abs_diff(1_000) <= 8);
}

#[test]
fn a_caller_leaves_with_the_last_slice_that_has_it() {
    let mut window = CallerWindow::new(seconds(10));
    window.advance(seconds(1), rows(&[(1, 100, 5)]));
    window.advance(seconds(5), rows(&[(2, 100, 5)]));
    assert_eq!(window.rows(seconds(5), 64).len(), 2);
    window.advance(seconds(11), CallerRows::new());
    assert_eq!(pids(&window.rows(seconds(10), 64)), [Some(2)]);
}

#[test]
fn five_thousand_short_lived_callers_are_counted_and_bounded() {
    let mut window = CallerWindow::new(seconds(600));
    for second in 0..50 {
        let first = 1 + 100 * second;
        let each: Vec<_> = (first..first + 100).map(|pid| (pid, 200, 3)).collect();
        window.advance(seconds(1 + u64::from(second)), rows(&each));
    }
    let told = window.rows(seconds(50), CALLERS_PER_MAP);
    assert_eq!(told.len(), CALLERS_PER_MAP + 1);
    assert_eq!(told.iter().map(|it| it.count).sum::<u64>(), 15_000);
    assert_eq!(told.iter().map(|it| it.callers).sum::<u64>(), 5_000);
    assert!(window.within.len() <= KEPT_PER_MAP + 1);
}

#[test]
fn a_caller_that_spends_more_than_the_least_takes_its_place() {
    let mut window = CallerWindow::new(seconds(600));
    let each: Vec<_> = (1..=300).map(|pid| (pid, 200, 3)).collect();
    window.advance(seconds(1), rows(&each));
    window.advance(seconds(2), rows(&[(1_000, 1_000_000, 3)]));
    let told = window.rows(seconds(2), CALLERS_PER_MAP);
    assert_eq!(pids(&told)[0], Some(1_000));
    assert_eq!(told.iter().map(|it| it.count).sum::<u64>(), 903);
    assert_eq!(told.iter().map(|it| it.callers).sum::<u64>(), 301);
    // What was merged leaves the window with its slice, too.
    window.advance(seconds(601), CallerRows::new());
    let told = window.rows(seconds(600), CALLERS_PER_MAP);
    assert_eq!(pids(&told), [Some(1_000)]);
}
