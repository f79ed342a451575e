//! Every condition is there from the first visit on, and its message tells numbers and names.

use super::*;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use maplatency_core::MapIdentity;
use maplatency_core::agents::AgentFacts;
use maplatency_core::budget::{Resource, Shed, Step};
use maplatency_core::cost::Cost;
use maplatency_core::node_window::NodeWindow;

fn probe(generation: i64) -> MapLatencyProbe {
    let mut probe: MapLatencyProbe = serde_yaml::from_str(
        "
        apiVersion: maplatency.dev/v1alpha1
        kind: MapLatencyProbe
        metadata: {name: p, uid: u}
        spec: {maps: [{names: ['*']}]}
        ",
    )
    .unwrap();
    probe.metadata.generation = Some(generation);
    probe
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|it| (*it).to_owned()).collect()
}

fn view(selected: usize, connected: &[&str], absent: &[&str], maps: u32) -> View {
    let window = NodeWindow {
        node: "a".to_owned(),
        boot_id: "b007".to_owned(),
        maps: (1..=maps)
            .map(|id| MapIdentity {
                id,
                name: String::new(),
                map_type: None,
            })
            .collect(),
        gone: vec![],
        span: Duration::ZERO,
        rows: [].into(),
        sampling: 1,
        exact: vec![],
        worst: [].into(),
        callers: vec![],
        spikes: vec![],
        outliers: None,
        losses: [].into(),
    };
    View {
        selected,
        connected: names(connected),
        absent: names(absent),
        stale: [].into(),
        unable: [].into(),
        rollout: None,
        problems: vec![],
        partial: [].into(),
        windows: vec![window],
        agents: vec![],
    }
}

fn now() -> Time {
    Time(Timestamp::from_second(1_000).unwrap())
}

/// Every condition as `type=status reason: message`.
fn told(status: &MapLatencyProbeStatus) -> Vec<String> {
    let conditions = status.conditions.iter();
    conditions
        .map(|it| format!("{}={} {}: {}", it.type_, it.status, it.reason, it.message))
        .collect()
}

fn first(view: View) -> MapLatencyProbeStatus {
    compute(&probe(1), &Finding::Placed(view), &now())
}

#[test]
fn before_any_agent_everything_is_unknown() {
    let status = first(view(2, &[], &["a", "b"], 0));
    assert_eq!(
        told(&status),
        [
            "Ready=Unknown AwaitingAgents: 0 of 2 nodes measure; waiting for agents on a, b",
            "AgentsReady=Unknown AwaitingAgents: 0 of 2 nodes measure; waiting for agents on a, b",
            "MapsFound=Unknown AwaitingReports: no node has reported which maps it has",
        ]
    );
    assert_eq!(status.observed_generation, Some(1));
}

#[test]
fn connected_agents_owe_a_report() {
    let status = first(view(2, &["a"], &["b"], 0));
    assert_eq!(
        told(&status)[1],
        "AgentsReady=Unknown AwaitingReports: 0 of 2 nodes measure; waiting for reports of this generation from a"
    );
}

#[test]
fn all_nodes_and_some_maps_make_a_probe_ready() {
    let status = first(view(3, &[], &[], 2));
    assert_eq!(
        told(&status),
        [
            "Ready=True Measuring: 3 of 3 nodes measure; 2 maps match on 3 nodes",
            "AgentsReady=True AllNodesMeasure: 3 of 3 nodes measure",
            "MapsFound=True MapsMatch: 2 maps match on 3 nodes",
        ]
    );
    assert_eq!(status.summary.nodes.as_deref(), Some("3/3"));
}

#[test]
fn missing_nodes_are_named_and_a_long_list_is_cut() {
    let few = first(view(3, &[], &["node-c"], 1));
    assert_eq!(
        told(&few)[0],
        "Ready=False NodesMissing: 2 of 3 nodes measure; missing: node-c"
    );
    let many = first(view(9, &["e"], &["a", "b", "c", "d"], 1));
    assert_eq!(
        told(&many)[1],
        "AgentsReady=False NodesMissing: 4 of 9 nodes measure; missing: a, b, c and 2 more"
    );
}

#[test]
fn nodes_whose_agents_cannot_load_probes_are_counted_with_the_reason() {
    let mut view = view(3, &[], &[], 1);
    view.unable = [("c".to_owned(), "the kernel offers no BTF".to_owned())].into();
    let status = first(view);
    let message = "2 of 3 nodes measure; 1 node cannot load probes: c: the kernel offers no BTF";
    assert_eq!(
        told(&status)[..2],
        [
            format!("Ready=False CannotLoadProbes: {message}"),
            format!("AgentsReady=False CannotLoadProbes: {message}")
        ]
    );
    let nodes = status.nodes;
    assert_eq!((nodes.selected, nodes.ready, nodes.unable), (3, 2, 1));
    assert_eq!(nodes.not_ready[0].reason, "CannotLoadProbes");
}

#[test]
fn a_node_that_cannot_load_probes_is_told_before_any_other_has_reported() {
    let mut view = view(2, &[], &["a"], 0);
    view.unable = [("b".to_owned(), "no BTF".to_owned())].into();
    assert_eq!(
        told(&first(view))[1],
        "AgentsReady=False CannotLoadProbes: 0 of 2 nodes measure; 1 node cannot load probes: b: no BTF; missing: a"
    );
}

#[test]
fn a_stale_node_is_told_with_the_time_of_its_last_report() {
    let mut view = view(2, &[], &[], 1);
    let reported = Timestamp::from_second(900).unwrap();
    view.stale = [("b".to_owned(), reported)].into();
    let status = first(view);
    assert_eq!(
        told(&status)[1],
        "AgentsReady=False NodesStale: 1 of 2 nodes measure; no report for two periods: b"
    );
    let entry = &status.nodes.not_ready[0];
    assert_eq!((entry.name.as_str(), entry.reason.as_str()), ("b", "Stale"));
    assert_eq!(entry.last_report_time, Some(MicroTime(reported)));
}

#[test]
fn missing_nodes_come_with_how_far_the_daemonset_is() {
    let mut view = view(3, &[], &["c"], 1);
    view.rollout = Some(Rollout {
        desired: 3,
        ready: 2,
        updated: 1,
    });
    assert!(
        told(&first(view))[1].ends_with(
            "missing: c (agents' DaemonSet: 2 of 3 pods ready, 1 of the newest template)"
        )
    );
}

#[test]
fn thousands_of_nodes_that_are_not_ready_are_ten_and_a_count() {
    let mut view = view(5_000, &[], &[], 1);
    view.absent = (0..4_000).map(|n| format!("node-{n}")).collect();
    view.unable = [("z".to_owned(), "no BTF".to_owned())].into();
    let nodes = first(view).nodes;
    assert_eq!((nodes.ready, nodes.missing, nodes.unable), (999, 4_000, 1));
    assert_eq!(nodes.not_ready.len(), 10);
    assert_eq!(nodes.not_ready[0].name, "z");
}

#[test]
fn no_matching_map_is_told_with_where_to_look() {
    let status = first(view(1, &[], &[], 0));
    assert_eq!(
        told(&status)[0],
        "Ready=False NoMapMatches: no map on 1 node matches spec.maps; compare spec.maps with bpftool map list, where \
         names are cut to 15 characters"
    );
}

#[test]
fn maps_that_are_gone_are_told_of() {
    let mut view = view(2, &[], &[], 2);
    view.windows[0].gone = std::mem::take(&mut view.windows[0].maps);
    assert_eq!(
        told(&first(view))[2],
        "MapsFound=False MapsGone: no map on 2 nodes matches now; 2 matched earlier in the window"
    );
}

#[test]
fn a_selector_that_selects_nothing_is_told() {
    let status = first(view(0, &[], &[], 0));
    assert!(told(&status)[0].starts_with("Ready=False NoNodesSelected: no node of the cluster"));
}

#[test]
fn an_invalid_spec_is_told_and_measured_nowhere() {
    let mut probe = probe(1);
    probe.spec.window_seconds = 1;
    let invalid = Finding::Invalid(probe.spec.check().unwrap_err());

    let status = compute(&probe, &invalid, &now());

    assert_eq!(
        told(&status)[0],
        "Ready=False InvalidSpec: spec.windowSeconds: is 1; write a number from 10 to 600"
    );
    assert_eq!(status.conditions.len(), 3);
    assert_eq!(status.nodes, NodeCounts::default());
}

#[test]
fn what_agents_cannot_do_makes_a_probe_not_ready() {
    let mut view = view(1, &[], &[], 1);
    view.problems = vec![("a".to_owned(), "the kernel has no BTF".to_owned())];
    assert_eq!(
        told(&first(view))[0],
        "Ready=False AgentProblems: 1 of 1 node measures; a: the kernel has no BTF"
    );
}

#[test]
fn agents_that_were_there_before_are_missing_and_not_awaited() {
    let mut probe = probe(1);
    probe.status = Some(first(view(1, &[], &[], 1)));

    let lost = Finding::Placed(view(1, &[], &["a"], 0));
    let status = compute(&probe, &lost, &now());
    assert!(told(&status)[1].starts_with("AgentsReady=False NodesMissing"));

    probe.metadata.generation = Some(2);
    let status = compute(&probe, &lost, &now());
    assert!(told(&status)[1].starts_with("AgentsReady=Unknown AwaitingAgents"));
}

#[test]
fn agents_of_nodes_that_have_just_been_selected_are_awaited() {
    let mut probe = probe(1);
    probe.status = Some(first(view(0, &[], &[], 0)));
    let new = Finding::Placed(view(1, &[], &["a"], 0));
    let status = compute(&probe, &new, &now());
    assert!(told(&status)[1].starts_with("AgentsReady=Unknown AwaitingAgents"));
}

#[test]
fn what_agents_leave_out_is_told_and_they_are_ready_all_the_same() {
    let mut view = view(1, &[], &[], 1);
    view.agents = vec![AgentFacts {
        node: "a".to_owned(),
        tier: "Fentry".to_owned(),
        cost: Cost::default(),
        shed: vec![Shed {
            step: Step::CoarserCallers,
            resource: Resource::Memory,
            since_unix_microseconds: 1_000_000,
            one_in: 1,
        }],
    }];
    let status = first(view);
    let told = told(&status);
    assert!(told[0].starts_with("Ready=True"), "{told:?}");
    let expected = "CoarserCallers=True OverMemoryBudget: a, to stay within the memory budget: callers are counted, but \
                    not told apart; all other figures stay whole";
    assert_eq!(told[3], expected);
    let shedding = status.agents.unwrap().shedding.unwrap();
    assert_eq!((shedding.nodes, shedding.node.as_str()), (1, "a"));
}

/// A status of one agent with so much memory, if it has told.
fn costing(rss_bytes: Option<u64>, tier: &str) -> MapLatencyProbeStatus {
    let mut view = view(1, &[], &[], 1);
    view.agents = vec![AgentFacts {
        node: "a".to_owned(),
        tier: tier.to_owned(),
        shed: vec![],
        cost: Cost {
            rss_bytes,
            ..Cost::default()
        },
    }];
    first(view)
}

#[test]
fn the_hooks_and_the_cost_of_agents_are_told() {
    let agents = costing(Some(7), "Tracepoint (Fentry refused: EPERM at load)")
        .agents
        .unwrap();
    assert_eq!(agents.tiers[0].tier, "Tracepoint");
    assert_eq!(agents.tiers[0].reasons, ["Fentry refused: EPERM at load"]);
    let rss = agents.cost.rss.unwrap();
    assert_eq!((rss.node.as_str(), rss.bytes), ("a", 7));
    assert_eq!(first(view(1, &[], &["a"], 0)).agents, None);
}

#[test]
fn a_cost_that_moves_is_no_news_but_its_first_figures_are() {
    let known = costing(Some(7), "Fentry");
    assert!(differs_in_cost_alone(&known, &costing(Some(8), "Fentry")));
    assert!(differs_in_cost_alone(&known, &costing(None, "Fentry")));
    assert!(!differs_in_cost_alone(&known, &known));
    assert!(!differs_in_cost_alone(&known, &costing(Some(8), "TpBtf")));
    assert!(!differs_in_cost_alone(&costing(None, "Fentry"), &known));
    let gone = first(view(1, &[], &["a"], 0));
    assert!(!differs_in_cost_alone(&known, &gone));
}
