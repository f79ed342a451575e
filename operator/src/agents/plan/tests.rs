//! Which nodes get an agent, with which rights, and when anything is written.

use super::*;

fn settings() -> Settings {
    Settings {
        namespace: "maplatency-system".to_owned(),
        image: "maplatency-agent:test".to_owned(),
        operator_url: "http://maplatency-operator.maplatency-system.svc:7443".to_owned(),
        http_listen: None,
    }
}

fn probe(spec: &str) -> Probe {
    Probe {
        uid: "u".to_owned(),
        generation: 1,
        spec: serde_yaml::from_str(spec).unwrap(),
        life: Life::Live,
    }
}

fn of(probes: &[Probe]) -> Option<DaemonSet> {
    desired(&settings(), probes.iter())
}

fn affinity(set: &DaemonSet) -> Value {
    serde_json::to_value(set).unwrap()
        ["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
        ["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        .clone()
}

const EVERY_LINUX: &str = "{maps: [{names: ['*']}]}";
const BLUE: &str = "{maps: [{names: ['*']}], nodeSelector: {matchLabels: {pool: blue}}}";
const GPU: &str =
    "{maps: [{ids: [1]}], nodeSelector: {matchExpressions: [{key: gpu, operator: Exists}]}}";

#[test]
fn agents_run_on_the_union_of_the_selectors() {
    let set = of(&[probe(GPU), probe(BLUE), probe(EVERY_LINUX), probe(BLUE)]).unwrap();

    let expected = serde_json::json!([
        {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]},
        {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["blue"]}]},
    ]);
    assert_eq!(affinity(&set), expected);
}

#[test]
fn the_order_of_probes_changes_nothing() {
    assert_eq!(
        of(&[probe(GPU), probe(BLUE)]),
        of(&[probe(BLUE), probe(GPU)])
    );
}

#[test]
fn an_empty_selector_is_no_empty_term() {
    let set = of(&[probe("{maps: [{ids: [1]}], nodeSelector: {}}")]).unwrap();
    assert_eq!(
        affinity(&set)[0]["matchExpressions"][0]["key"],
        "kubernetes.io/os"
    );
}

#[test]
fn without_a_valid_probe_there_are_no_agents() {
    let invalid = probe("{maps: [{names: ['*']}], activeReads: {cpus: 3-1}}");
    let deleting = Probe {
        life: Life::Deleting,
        ..probe(BLUE)
    };
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[invalid, deleting]), None);
}

#[test]
fn an_agent_is_not_privileged_and_has_three_capabilities() {
    let set = serde_json::to_value(of(&[probe(BLUE)])).unwrap();
    let pod = &set["spec"]["template"]["spec"];
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(
        security["capabilities"]["add"],
        serde_json::json!(["BPF", "PERFMON", "SYS_ADMIN"])
    );
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["hostPID"], true);
}

#[test]
fn the_selector_is_part_of_the_pods_labels() {
    let set = of(&[probe(BLUE)]).unwrap();
    let spec = set.spec.unwrap();
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    let selector = spec.selector.match_labels.unwrap();
    assert_eq!((selector.len(), labels.len()), (3, 6));
    assert!(
        selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    );
}

/// The API server adds defaults.
fn defaulted(set: &DaemonSet) -> DaemonSet {
    let mut there = set.clone();
    let pod = there.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    pod.dns_policy = Some("ClusterFirst".to_owned());
    pod.containers[0].image_pull_policy = Some("IfNotPresent".to_owned());
    there
}

#[test]
fn nothing_is_written_while_nothing_changes() {
    let set = of(&[probe(BLUE)]).unwrap();
    let there = defaulted(&set);
    assert_eq!(
        plan(Some(set.clone()), Some(&set), Some(&there)),
        Plan::Keep
    );
}

#[test]
fn a_foreign_change_is_undone() {
    let set = of(&[probe(BLUE)]).unwrap();
    let mut there = defaulted(&set);
    there
        .spec
        .as_mut()
        .unwrap()
        .template
        .spec
        .as_mut()
        .unwrap()
        .host_pid = Some(false);
    assert_eq!(
        plan(Some(set.clone()), Some(&set), Some(&there)),
        Plan::Apply(Box::new(set))
    );
}

#[test]
fn a_start_applies_once_since_an_earlier_version_may_have_set_more() {
    let set = of(&[probe(BLUE)]).unwrap();
    let there = defaulted(&set);
    assert_eq!(
        plan(Some(set.clone()), None, Some(&there)),
        Plan::Apply(Box::new(set))
    );
}

#[test]
fn a_daemon_set_that_is_left_over_is_deleted_once() {
    let mut there = of(&[probe(BLUE)]).unwrap();
    assert_eq!(plan(None, None, Some(&there)), Plan::Delete);
    assert_eq!(plan(None, None, None), Plan::Keep);

    there.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
    ));
    assert_eq!(plan(None, None, Some(&there)), Plan::Keep);
}
