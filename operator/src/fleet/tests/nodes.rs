//! What nodes are told to be: slow to report, unable, gone.

use super::*;

#[test]
fn problems_come_with_their_node() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    let mut report = report(1, 1, 0);
    report.probes[0].problems = vec!["no BTF".to_owned()];
    agent.report(report, now);
    assert_eq!(
        view(&fleet, now).problems,
        [("a".to_owned(), "no BTF".to_owned())]
    );
}

#[test]
fn agents_that_measure_tell_their_tier_and_what_they_cost_now() {
    let (fleet, now) = (fleet(&["a", "b"]), Instant::now());
    let first = fleet.connect(hello("a", '1'));
    let _silent = fleet.connect(hello("b", '2'));
    first.report(report(1, 5, 100), now);
    drop(first);
    assert_eq!(
        view(&fleet, now).agents,
        [],
        "an agent that has gone costs nothing"
    );

    let second = fleet.connect(Hello {
        tier: "Fentry".to_owned(),
        ..hello("a", '3')
    });
    second.report(report(1, 5, 100), now);
    second.report(report(2, 7, 100), now);

    let expected = AgentFacts {
        node: "a".to_owned(),
        tier: "Fentry".to_owned(),
        shed: report(2, 7, 100).shed,
        cost: report(2, 7, 100).cost,
    };
    assert_eq!(view(&fleet, now).agents, [expected]);
}

#[test]
fn a_node_that_stops_reporting_is_stale_after_two_periods_and_ready_again_with_the_next_report() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 1, 10), 0, 0), now);

    assert_eq!(view(&fleet, now + seconds(4)).ready(), 1);
    let stale = view(&fleet, now + seconds(5));
    assert_eq!((stale.ready(), stale.stale.len()), (0, 1));
    assert_eq!(
        reads(&stale),
        10,
        "its figures stay until they leave the window"
    );
    assert_eq!(
        view(&fleet, now + seconds(7)).stale,
        stale.stale,
        "the time is that of the report"
    );

    agent.report(report(2, 6, 20), now + seconds(7));
    let back = view(&fleet, now + seconds(7));
    assert_eq!((back.ready(), reads(&back)), (1, 20));
}

#[test]
fn a_node_that_was_not_measured_in_the_whole_window_is_told_with_how_long_it_was() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let partial = |it: u64| [("a".to_owned(), seconds(it))].into();
    let agent = fleet.connect(hello("a", '1'));
    agent.report(with_beginning(report(1, 3, 10), 0, 0), now);
    assert_eq!(view(&fleet, now).partial, partial(3));
    // Four seconds may be on their way.
    agent.report(report(2, 6, 20), now + seconds(3));
    assert_eq!(view(&fleet, now + seconds(3)).partial, [].into());
    let stale = view(&fleet, now + seconds(9));
    assert_eq!((stale.stale.len(), stale.partial), (1, [].into()));
    drop(agent);

    // What the agent before measured is still in the window.
    let agent = fleet.connect(hello("a", '2'));
    agent.report(with_beginning(report(1, 1, 5), 0, 0), now + seconds(5));
    assert_eq!(view(&fleet, now + seconds(5)).partial, [].into());
    drop(agent);

    let agent = fleet.connect(hello("a", '3'));
    agent.report(with_beginning(report(1, 2, 5), 0, 0), now + seconds(60));
    assert_eq!(view(&fleet, now + seconds(60)).partial, partial(2));
}

#[test]
fn an_agent_that_cannot_load_its_probes_is_told_with_the_reason_and_not_awaited() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let unable = Hello {
        problem: Some("no BTF".to_owned()),
        ..hello("a", '1')
    };
    let _session = fleet.connect(unable);
    let view = view(&fleet, now);
    assert_eq!(view.unable, [("a".to_owned(), "no BTF".to_owned())].into());
    assert_eq!(
        (view.connected.len(), view.absent.len(), view.ready()),
        (0, 0, 0)
    );
}

#[test]
fn a_node_that_was_removed_is_neither_ready_nor_missed() {
    let (fleet, now) = (fleet(&["a", "b"]), Instant::now());
    let agent = fleet.connect(hello("b", '1'));
    agent.report(with_beginning(report(1, 1, 10), 0, 0), now);
    fleet.place(Placements::from([(UID.to_owned(), placement(1, &["a"]))]));

    let view = view(&fleet, now + seconds(9));
    assert_eq!((view.selected, view.ready()), (1, 0));
    assert!(view.stale.is_empty() && view.connected.is_empty());
    assert_eq!(view.absent, ["a".to_owned()].into());
}
