//! Every field of a hello and of an assignment that breaks the protocol is refused by name.

use maplatency_proto::{AgentMessage, Assignment, Hello, InvalidMessage, MAX_PROBES, wire};
use wire::agent_message::Kind;

use super::samples::{assignment, hello};

/// The field for which a message is refused.
pub(crate) fn refused(message: wire::AgentMessage) -> String {
    AgentMessage::try_from(message).unwrap_err().field
}

#[test]
fn every_malformed_field_of_a_hello_is_named() {
    type Spoil = fn(&mut wire::Hello);
    let cases: [(&str, Spoil); 10] = [
        ("hello.node", |it| it.node = "Node_A".to_owned()),
        ("hello.node", |it| it.node = "a".repeat(254)),
        ("hello.node", |it| it.node.clear()),
        ("hello.epoch", |it| it.epoch = "short".to_owned()),
        ("hello.epoch", |it| it.epoch = "z".repeat(32)),
        ("hello.version", |it| it.version.clear()),
        ("hello.kernel", |it| it.kernel = "6.1\n".to_owned()),
        ("hello.boot_id", |it| it.boot_id = "a b".to_owned()),
        ("hello.boot_id", |it| it.boot_id.clear()),
        ("hello.tier", |it| it.tier = "x".repeat(513)),
    ];
    for (field, spoil) in cases {
        let mut wire = wire::Hello::from(hello());
        spoil(&mut wire);
        let kind = Some(Kind::Hello(wire));
        assert_eq!(refused(wire::AgentMessage { kind }), field);
    }
    assert_eq!(refused(wire::AgentMessage { kind: None }), "kind");
}

#[test]
fn every_malformed_field_of_an_assignment_is_named() {
    type Spoil = fn(&mut wire::Assign);
    fn spec(assign: &mut wire::Assign) -> &mut wire::Spec {
        assign.probes[0].spec.as_mut().unwrap()
    }
    let cases: [(&str, Spoil); 24] = [
        ("assign.revision", |it| it.revision = 0),
        ("assign.report_period_milliseconds", |it| {
            it.report_period_milliseconds = 0;
        }),
        ("assign.probes", |it| {
            it.probes = vec![it.probes[0].clone(); MAX_PROBES + 1];
        }),
        ("assign.probes[1].uid", |it| {
            it.probes.extend_from_within(..);
        }),
        ("assign.probes[0].name", |it| it.probes[0].name.clear()),
        ("assign.probes[0].uid", |it| it.probes[0].uid.clear()),
        ("assign.probes[0].generation", |it| {
            it.probes[0].generation = -1;
        }),
        ("assign.probes[0].spec", |it| it.probes[0].spec = None),
        ("assign.probes[0].spec.maps", |it| {
            spec(it).maps = vec![wire::MapSelector::default(); 17];
        }),
        ("assign.probes[0].spec.maps[0].names", |it| {
            spec(it).maps[0].names = vec!["x".to_owned(); 17];
        }),
        ("assign.probes[0].spec.maps[0].names[0].value", |it| {
            spec(it).maps[0].names[0].clear();
        }),
        ("assign.probes[0].spec.maps[0].types[1].value", |it| {
            spec(it).maps[0].types[1] = 99;
        }),
        ("assign.probes[0].spec.maps[1].ids[0].value", |it| {
            spec(it).maps[1].ids[0] = 0;
        }),
        ("assign.probes[0].spec.maps[2].pin_paths", |it| {
            spec(it).maps[2].pin_paths = vec!["/x".to_owned(); 17];
        }),
        (
            "assign.probes[0].spec.maps[3].held_by.cgroups[0].value",
            |it| {
                spec(it).maps[3].held_by.as_mut().unwrap().cgroups[0] = "x".repeat(257);
            },
        ),
        ("assign.probes[0].spec.operations[0].value", |it| {
            spec(it).operations[0] = 77;
        }),
        ("assign.probes[0].spec.callers.commands", |it| {
            spec(it).callers.as_mut().unwrap().commands = vec!["x".to_owned(); 9];
        }),
        ("assign.probes[0].spec.active_reads.cpus", |it| {
            spec(it).active_reads.as_mut().unwrap().cpus.clear();
        }),
        (
            "assign.probes[0].spec.active_reads.period_milliseconds",
            |it| {
                spec(it).active_reads.as_mut().unwrap().period_milliseconds = 1;
            },
        ),
        ("assign.probes[0].spec.active_reads.method", |it| {
            spec(it).active_reads.as_mut().unwrap().method = 0;
        }),
        ("assign.probes[0].spec.aggregation.strategy", |it| {
            spec(it).aggregation.as_mut().unwrap().strategy = 0;
        }),
        ("assign.probes[0].spec.aggregation.one_in", |it| {
            spec(it).aggregation.as_mut().unwrap().one_in = Some(1);
        }),
        ("assign.probes[0].spec.aggregation.last_operations", |it| {
            spec(it).aggregation.as_mut().unwrap().last_operations = Some(255);
        }),
        ("assign.probes[0].spec.window_seconds", |it| {
            spec(it).window_seconds = 1;
        }),
    ];
    for (field, spoil) in cases {
        let mut wire = wire::Assign::from(assignment());
        spoil(&mut wire);
        assert_eq!(Assignment::try_from(wire).unwrap_err().field, field);
    }
}

#[test]
fn a_refusal_reads_as_a_sentence() {
    let error: InvalidMessage = Hello::try_from(wire::Hello {
        node: "Node_A".to_owned(),
        ..hello().into()
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "hello.node is not a DNS-1123 subdomain of at most 253 characters"
    );
}
