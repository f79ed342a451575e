//! What restarts, repetitions and changes of the spec do to a window.

mod nodes;
mod streams;

use super::*;
use maplatency_core::budget::{Resource, Shed, Step};
use maplatency_core::cost::Cost;
use maplatency_core::measure::{Counts, Rows, SeriesKey};
use maplatency_core::{MapIdentity, Operation, Outcome};
use maplatency_metrics::latency::Totals;
use maplatency_proto::{Beginning, ProbeReport};

const UID: &str = "uid-1";

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn hello(node: &str, epoch: char) -> Hello {
    Hello {
        node: node.to_owned(),
        epoch: epoch.to_string().repeat(32),
        version: "0.1.0".to_owned(),
        kernel: "6.18".to_owned(),
        boot_id: "b007".to_owned(),
        tier: "Tracepoint".to_owned(),
        problem: None,
    }
}

fn placement(generation: i64, nodes: &[&str]) -> Placement {
    Placement {
        window: seconds(10),
        nodes: nodes.iter().map(|it| (*it).to_owned()).collect(),
        probe: AssignedProbe {
            name: "probe".to_owned(),
            uid: UID.to_owned(),
            generation,
            spec: serde_yaml::from_str("{maps: [{names: ['*']}], windowSeconds: 10}").unwrap(),
        },
    }
}

fn fleet(nodes: &[&str]) -> Arc<Fleet> {
    let fleet = Arc::new(Fleet::new(seconds(2), 1000));
    fleet.place(Placements::from([(UID.to_owned(), placement(1, nodes))]));
    fleet
}

fn rows(map_id: u32, count: usize) -> Rows {
    let key = SeriesKey {
        map_id,
        operation: Operation::Lookup,
        cpu: 0,
        outcome: Outcome::Success,
    };
    let counts = Counts {
        until_user: std::iter::repeat_n(500, count).collect(),
        ..Counts::default()
    };
    Rows::from([(key, counts)])
}

/// A report of so many reads in total on map 1.
fn report(sequence: u64, taken: u64, total: usize) -> Report {
    Report {
        sequence,
        revision: 1001,
        taken: seconds(taken),
        losses: [("Attr".to_owned(), 3)].into(),
        cost: Cost {
            rss_bytes: Some(sequence),
            ..Cost::default()
        },
        shed: vec![Shed {
            step: Step::Sampling,
            resource: Resource::Cpu,
            since_unix_microseconds: 1,
            one_in: 2,
        }],
        probes: vec![ProbeReport {
            uid: UID.to_owned(),
            generation: 1,
            maps: vec![map(1)],
            rows: rows(1, total),
            worst: [].into(),
            beginning: None,
            problems: vec![],
            rows_withheld: false,
            callers: vec![],
            spikes: vec![],
            outliers: None,
            sampling: 1,
            exact: vec![],
        }],
    }
}

fn map(id: u32) -> MapIdentity {
    MapIdentity {
        id,
        name: format!("map{id}"),
        map_type: None,
    }
}

fn with_beginning(mut report: Report, taken: u64, total: usize) -> Report {
    report.probes[0].beginning = Some(Beginning {
        taken: seconds(taken),
        rows: rows(1, total),
    });
    report
}

fn reads(view: &View) -> u64 {
    let rows = view.windows.iter().flat_map(|it| it.rows.values());
    rows.map(|it| it.until_user.count()).sum()
}

fn view(fleet: &Fleet, now: Instant) -> View {
    fleet.view(UID, 1, now).unwrap()
}

#[test]
fn a_report_counts_from_its_beginning() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));

    agent.report(with_beginning(report(1, 5, 100), 0, 40), now);

    let view = view(&fleet, now);
    assert_eq!(reads(&view), 60);
    assert_eq!((view.ready(), view.selected), (1, 1));
}

#[test]
fn without_a_beginning_the_first_report_is_the_beginning() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));

    agent.report(report(1, 5, 100), now);
    assert_eq!(reads(&view(&fleet, now)), 0);
    agent.report(report(2, 7, 130), now + seconds(2));
    assert_eq!(reads(&view(&fleet, now + seconds(2))), 30);
}

fn withheld(mut report: Report) -> Report {
    let probe = &mut report.probes[0];
    probe.rows.clear();
    probe.beginning = None;
    probe.rows_withheld = true;
    probe.problems = vec!["too many rows".to_owned()];
    report
}

#[test]
fn rows_that_were_withheld_for_a_time_are_counted_once_when_they_come_again() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 1, 10), 0, 0), now);

    agent.report(withheld(report(2, 2, 0)), now + seconds(1));
    let between = view(&fleet, now + seconds(1));
    assert_eq!((reads(&between), between.problems.len()), (10, 1));

    agent.report(with_beginning(report(3, 3, 30), 0, 5), now + seconds(2));
    let after = view(&fleet, now + seconds(2));
    assert_eq!((reads(&after), after.problems.len()), (25, 0));
}

#[test]
fn rows_that_were_withheld_at_first_count_from_their_beginning() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));

    agent.report(withheld(report(1, 1, 0)), now);
    let nothing = view(&fleet, now);
    assert_eq!((reads(&nothing), nothing.problems.len()), (0, 1));
    agent.report(with_beginning(report(2, 5, 100), 1, 40), now + seconds(4));
    assert_eq!(reads(&view(&fleet, now + seconds(4))), 60);
}

#[test]
fn a_repeated_or_older_report_changes_nothing() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 1, 10), 0, 0), now);
    agent.report(report(2, 2, 20), now);

    assert_eq!(agent.report(report(2, 2, 20), now), Taken::Repeated);
    assert_eq!(agent.report(report(1, 1, 10), now), Taken::Repeated);

    assert_eq!(reads(&view(&fleet, now)), 20);
}

#[test]
fn a_lost_report_loses_no_count() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 1, 10), 0, 0), now);

    agent.report(report(3, 5, 50), now + seconds(4));

    assert_eq!(reads(&view(&fleet, now + seconds(4))), 50);
}

#[test]
fn a_reconnected_agent_goes_on_where_it_was() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 1, 10), 0, 0), now);
    drop(agent);
    assert_eq!(view(&fleet, now).absent.len(), 1);

    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(2, 3, 25), 0, 0), now + seconds(2));

    assert_eq!(reads(&view(&fleet, now + seconds(2))), 25);
}

#[test]
fn a_restarted_agent_neither_doubles_nor_loses() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 100, 70), 99, 30), now);
    drop(agent);

    let agent = fleet.connect(hello("a", '2'));
    agent.report(with_beginning(report(1, 1, 5), 0, 0), now + seconds(3));

    let view = view(&fleet, now + seconds(3));
    assert_eq!(reads(&view), 45);
    // The map that both saw is one, and losses are told since the agent began.
    assert_eq!(maplatency_core::summary::matched_maps(&view.windows), 1);
    let losses = view.windows.iter().map(|it| it.losses.len());
    assert_eq!(losses.sum::<usize>(), 1);
}

#[test]
fn what_a_node_that_is_gone_measured_leaves_the_window_by_age() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 100, 70), 99, 30), now);
    drop(agent);

    assert_eq!(reads(&view(&fleet, now + seconds(9))), 40);
    let late = view(&fleet, now + seconds(10));
    assert_eq!(reads(&late), 0);
    assert!(late.windows.is_empty());

    fleet.sweep(now + seconds(10));
    assert_eq!(fleet.lock().known_epochs(), 0);
}

#[test]
fn counts_that_go_backwards_begin_the_window_anew() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 1, 50), 0, 0), now);

    assert_eq!(agent.report(report(2, 2, 40), now), Taken::WentBackwards);
    assert_eq!(reads(&view(&fleet, now)), 0);
    assert_eq!(agent.report(report(3, 3, 45), now), Taken::New);
    assert_eq!(reads(&view(&fleet, now)), 5);
}

#[test]
fn nothing_of_an_old_generation_is_shown_for_a_new_one() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 1, 50), 0, 0), now);

    fleet.place(Placements::from([(UID.to_owned(), placement(2, &["a"]))]));
    assert!(fleet.view(UID, 1, now).is_none());
    let fresh = fleet.view(UID, 2, now).unwrap();
    assert_eq!(
        (reads(&fresh), fresh.ready(), fresh.windows.len()),
        (0, 0, 0)
    );

    // The agent has not heard of it yet.
    agent.report(report(2, 2, 60), now);
    let fresh = fleet.view(UID, 2, now).unwrap();
    assert_eq!(
        (reads(&fresh), fresh.ready(), fresh.windows.len()),
        (0, 0, 0)
    );

    let mut answer = with_beginning(report(3, 3, 7), 2, 0);
    answer.probes[0].generation = 2;
    agent.report(answer, now);
    let fresh = fleet.view(UID, 2, now).unwrap();
    assert_eq!((reads(&fresh), fresh.ready()), (7, 1));
}

#[test]
fn a_map_that_is_gone_keeps_its_name_while_rows_of_it_are_left() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 1, 50), 0, 0), now);
    let mut other = report(2, 2, 0);
    other.probes[0].maps = vec![map(2)];
    other.probes[0].rows = rows(2, 4);
    agent.report(other, now + seconds(1));

    let seen = view(&fleet, now + seconds(1));
    assert_eq!(seen.windows[0].maps, [map(2)]);
    assert_eq!(seen.windows[0].gone, [map(1)]);
    assert_eq!(reads(&seen), 54);

    let later = view(&fleet, now + seconds(10));
    assert_eq!((reads(&later), later.windows[0].gone.len()), (4, 0));
}

#[test]
fn a_node_reports_only_what_it_is_asked_for() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let stranger = fleet.connect(hello("b", '1'));
    stranger.report(with_beginning(report(1, 1, 50), 0, 0), now);
    assert!(view(&fleet, now).windows.is_empty());
}

/// Reads until back in user mode that were added up.
fn added_up(fleet: &Fleet) -> u64 {
    let tally = fleet.tally();
    let latencies = tally.latencies.values().flat_map(Totals::each);
    let until_user = latencies.filter(|(_, latency, _)| *latency == "until_user");
    until_user.map(|(_, _, it)| it.count()).sum()
}

#[test]
fn sums_count_every_read_once_over_epochs_streams_and_windows() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 1, 10), 0, 0), now);
    agent.report(report(2, 2, 25), now + seconds(1));
    agent.report(report(2, 2, 25), now + seconds(1));
    drop(agent);
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(3, 60, 40), 50, 30), now + seconds(60));
    assert_eq!(added_up(&fleet), 40);
    drop(agent);

    let agent = fleet.connect(hello("a", '2'));
    agent.report(with_beginning(report(1, 1, 5), 0, 0), now + seconds(90));
    assert_eq!(added_up(&fleet), 45);
    let tally = fleet.tally();
    assert_eq!(tally.losses["Attr"], 6);
    assert_eq!((tally.reports["new"], tally.reports["repeated"]), (4, 1));
    assert_eq!(tally.latencies.keys().next().unwrap().1, "none");
}

#[test]
fn sums_leave_out_what_an_agent_told_another_operator() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    fleet.classify([("a".to_owned(), "large".to_owned())].into());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(7, 100, 70), 99, 30), now);
    assert_eq!((added_up(&fleet), reads(&view(&fleet, now))), (0, 40));
    agent.report(report(8, 101, 75), now + seconds(1));
    assert_eq!(added_up(&fleet), 5);
    let tally = fleet.tally();
    assert_eq!(tally.latencies.keys().next().unwrap().1, "large");
    assert!(tally.losses.values().all(|it| *it == 0));
}

/// An agent whose window of ten seconds has long been full, and that counts ten reads a second.
fn busy(sequence: u64, taken: u64) -> Report {
    let at = |taken: u64| usize::try_from(taken).unwrap() * 10;
    with_beginning(
        report(sequence, taken, at(taken)),
        taken - 10,
        at(taken - 10),
    )
}

#[test]
fn a_window_that_came_as_a_whole_holds_no_more_than_its_length() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    for (sequence, taken) in (50..).zip((100..140).step_by(2)) {
        let mut report = busy(sequence, taken);
        // As an agent does it: until its first report on the stream is no part of the window.
        if taken >= 110 {
            report.probes[0].beginning = None;
        }
        let now = now + seconds(taken - 100);
        assert_eq!(agent.report(report, now), Taken::New);
        let window = &view(&fleet, now).windows[0];
        assert_eq!(reads(&view(&fleet, now)), 100, "at {taken} s");
        assert_eq!(window.span, seconds(10), "at {taken} s");
    }
}

#[test]
fn a_stream_that_was_away_leaves_no_more_in_the_window_than_its_length() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    let mut sequence = 0;
    // Away for five seconds, and for far longer than the window.
    for (from, to) in [(10, 30), (36, 50), (90, 120)] {
        for taken in (from..to).step_by(2) {
            sequence += 1;
            let now = now + seconds(taken);
            assert_eq!(agent.report(busy(sequence, taken), now), Taken::New);
            assert_eq!(reads(&view(&fleet, now)), 100, "at {taken} s");
        }
    }
}

#[test]
fn a_node_that_is_selected_again_begins_anew() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 2, 30), 0, 0), now);
    // Ten minutes later the agent has measured for four seconds, and counts from nothing.
    let later = now + seconds(600);
    let again = with_beginning(report(2, 602, 100), 598, 0);
    assert_eq!(agent.report(again, later), Taken::New);
    let view = view(&fleet, later);
    assert_eq!((reads(&view), view.windows[0].span), (100, seconds(4)));
    assert_eq!(added_up(&fleet), 130);
}
