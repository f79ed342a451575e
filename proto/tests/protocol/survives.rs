//! What is sent arrives as it was sent.

use maplatency_core::cost::Cost;
use maplatency_core::crd::spec as crd;
use maplatency_proto::{AgentMessage, Assignment, OperatorMessage, Report, wire};
use proptest::prelude::*;
use wire::agent_message::Kind;

use super::arbitrary::reports;
use super::samples::{assignment, caller, exact, hello, others, outliers, report, spike};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_report_survives_the_wire(report in reports()) {
        use prost::Message as _;

        let sent = AgentMessage::Report(report);
        let bytes = wire::AgentMessage::from(sent.clone()).encode_to_vec();
        let received = AgentMessage::try_from(wire::AgentMessage::decode(bytes.as_slice()).unwrap());
        prop_assert_eq!(received, Ok(sent));
    }
}

#[test]
fn a_hello_survives_the_wire() {
    let sent = AgentMessage::Hello(hello());
    let received = AgentMessage::try_from(wire::AgentMessage::from(sent.clone()));
    assert_eq!(received, Ok(sent));
}

#[test]
fn an_assignment_survives_the_wire() {
    for sent in [
        OperatorMessage::Assign(assignment()),
        OperatorMessage::Ack(9),
    ] {
        let received = OperatorMessage::try_from(wire::OperatorMessage::from(sent.clone()));
        assert_eq!(received, Ok(sent));
    }
}

#[test]
fn the_node_selector_does_not_travel() {
    let mut assignment = assignment();
    assignment.probes[0].spec.node_selector =
        Some(maplatency_core::crd::spec::NodeSelector::default());
    let received = Assignment::try_from(wire::Assign::from(assignment)).unwrap();
    assert_eq!(received.probes[0].spec.node_selector, None);
}

#[test]
fn callers_spikes_outliers_and_exact_figures_arrive_as_they_were_sent() {
    let sent = wire::AgentMessage {
        kind: Some(Kind::Report(report())),
    };
    let Ok(AgentMessage::Report(received)) = AgentMessage::try_from(sent) else {
        panic!("the report was refused");
    };
    assert_eq!(received.probes[0].callers, [caller(), others()]);
    assert_eq!(received.probes[0].spikes, [spike()]);
    assert_eq!(received.probes[0].outliers, Some(outliers()));
    assert_eq!(received.probes[0].exact, exact());
}

#[test]
fn every_strategy_arrives_as_it_was_sent() {
    for (strategy, one_in, last_operations) in [
        (crd::Strategy::Histogram, None, None),
        (crd::Strategy::Sampled, Some(64), None),
        (crd::Strategy::SlidingWindow, None, Some(256)),
        (crd::Strategy::Direct, None, None),
    ] {
        let mut sent = assignment();
        sent.probes[0].spec.aggregation = Some(crd::Aggregation {
            strategy,
            one_in,
            last_operations,
        });
        assert_eq!(
            Assignment::try_from(wire::Assign::from(sent.clone())),
            Ok(sent)
        );
    }
}

#[test]
fn an_agent_that_tells_no_cost_is_understood() {
    let wire = wire::Report {
        cost: None,
        ..report()
    };
    assert_eq!(Report::try_from(wire).unwrap().cost, Cost::default());
}

#[test]
fn a_map_of_a_type_that_this_version_does_not_know_still_counts() {
    let mut wire = report();
    wire.probes[0].maps[0].r#type = 77;
    let report = Report::try_from(wire).unwrap();
    assert_eq!(report.probes[0].maps[0].map_type, None);
}
