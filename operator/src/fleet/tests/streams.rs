//! What comes over a stream, and when one ends.

use super::*;

#[tokio::test]
async fn an_assignment_comes_at_once_and_on_every_change_of_the_nodes_own_probes() {
    let fleet = fleet(&["a"]);
    let (mut a, mut b) = (
        fleet.connect(hello("a", '1')),
        fleet.connect(hello("b", '2')),
    );
    let first = a.assignment().await.unwrap();
    assert_eq!(first.probes.len(), 1);
    assert!(b.assignment().await.unwrap().probes.is_empty());

    fleet.place(Placements::from([(UID.to_owned(), placement(2, &["a"]))]));
    let second = a.assignment().await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(second.probes[0].generation, 2);

    // Nothing changes for b.
    assert!(futures::FutureExt::now_or_never(b.assignment()).is_none());
}

#[tokio::test]
async fn an_agent_that_is_slow_to_read_gets_the_newest_assignment() {
    let fleet = fleet(&["a"]);
    let mut agent = fleet.connect(hello("a", '1'));
    for generation in 2..=5 {
        fleet.place(Placements::from([(
            UID.to_owned(),
            placement(generation, &["a"]),
        )]));
    }
    assert_eq!(agent.assignment().await.unwrap().probes[0].generation, 5);
    assert!(futures::FutureExt::now_or_never(agent.assignment()).is_none());
}

#[tokio::test]
async fn a_newer_stream_of_a_node_ends_the_older() {
    let (fleet, now) = (fleet(&["a"]), Instant::now());
    let mut old = fleet.connect(hello("a", '1'));
    old.assignment().await.unwrap();
    let mut new = fleet.connect(hello("a", '1'));

    assert!(old.assignment().await.is_none());
    assert_eq!(old.report(report(1, 1, 1), now), Taken::Superseded);
    drop(old);
    assert!(new.assignment().await.is_some());
    assert!(view(&fleet, now).absent.is_empty());
}

#[tokio::test]
async fn closing_ends_every_stream_and_takes_no_new_one() {
    let fleet = fleet(&["a"]);
    let mut agent = fleet.connect(hello("a", '1'));
    agent.assignment().await.unwrap();
    fleet.close();
    assert!(agent.assignment().await.is_none());
    assert_eq!(view(&fleet, Instant::now()).absent.len(), 1);
}
