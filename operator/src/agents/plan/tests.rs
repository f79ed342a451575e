//! Which nodes get an agent, with which rights, and when anything is written.

use super::*;

fn settings() -> Settings {
    Settings {
        namespace: "maplatency-system".to_owned(),
        image: "maplatency-agent:test".to_owned(),
        operator_url: "https://maplatency-gateway.maplatency-system.svc:7443".to_owned(),
        insecure_plaintext: false,
        http_listen: None,
        owner: None,
        agents: AgentSettings::default(),
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
fn an_agent_is_not_privileged_and_has_one_capability() {
    let set = serde_json::to_value(of(&[probe(BLUE)])).unwrap();
    let pod = &set["spec"]["template"]["spec"];
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(
        security["capabilities"]["add"],
        serde_json::json!(["SYS_ADMIN"])
    );
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["hostPID"], true);
}

#[test]
fn an_agent_has_a_token_for_the_operator_alone_and_knows_whom_to_trust() {
    let set = serde_json::to_value(of(&[probe(BLUE)])).unwrap();
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "maplatency-agent");
    assert_eq!(pod["automountServiceAccountToken"], false);
    let volumes = pod["volumes"].as_array().unwrap();
    let identity = volumes.iter().find(|it| it["name"] == "identity").unwrap();
    assert_eq!(
        identity["projected"]["sources"],
        serde_json::json!([
            {"serviceAccountToken": {
                "audience": "maplatency-operator", "expirationSeconds": 3600, "path": "token",
            }},
            {"configMap": {
                "name": "maplatency-operator-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }},
        ])
    );
    let container = &pod["containers"][0];
    let mount = container["volumeMounts"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    assert_eq!(mount["mountPath"], "/var/run/secrets/maplatency.dev");
    assert_eq!(
        container["args"],
        serde_json::json!([
            "serve",
            "--operator",
            "https://maplatency-gateway.maplatency-system.svc:7443",
            "--node",
            "$(NODE_NAME)",
            "--operator-ca",
            "/var/run/secrets/maplatency.dev/ca.crt",
            "--token-file",
            "/var/run/secrets/maplatency.dev/token",
        ])
    );
}

#[test]
fn in_plaintext_an_agent_has_no_token_and_needs_no_service_account() {
    let settings = Settings {
        operator_url: "http://127.0.0.1:7443".to_owned(),
        insecure_plaintext: true,
        ..settings()
    };
    let set = serde_json::to_value(desired(&settings, [probe(BLUE)].iter())).unwrap();
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], Value::Null);
    assert_eq!(pod["volumes"].as_array().unwrap().len(), 2);
    let args = pod["containers"][0]["args"].as_array().unwrap();
    assert_eq!(args.last().unwrap(), "--insecure-plaintext");
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

#[test]
fn what_every_node_has_to_fulfil_is_part_of_every_term() {
    let mut settings = settings();
    settings.agents =
        serde_yaml::from_str("{nodes: [{key: type, operator: NotIn, values: [virtual-kubelet]}]}")
            .unwrap();
    let set = desired(&settings, [probe(GPU), probe(EVERY_LINUX)].iter()).unwrap();

    let real =
        serde_json::json!({"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]});
    let expected = serde_json::json!([
        {"matchExpressions": [{"key": "gpu", "operator": "Exists"}, real]},
        {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}, real]},
    ]);
    assert_eq!(affinity(&set), expected);
}

#[test]
fn without_settings_every_taint_is_borne_and_the_cluster_decides_the_rest() {
    let set = serde_json::to_value(of(&[probe(BLUE)])).unwrap();
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(
        pod["tolerations"],
        serde_json::json!([{"operator": "Exists"}])
    );
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
        "10%"
    );
    for absent in ["priorityClassName", "imagePullSecrets"] {
        assert_eq!(pod[absent], Value::Null, "{absent}");
    }
    assert_eq!(set["metadata"]["ownerReferences"], Value::Null);
}

#[test]
fn settings_reach_the_pods() {
    let mut settings = settings();
    settings.agents = serde_yaml::from_str(
        "
imagePullPolicy: Never
imagePullSecrets: [registry]
priorityClassName: maplatency-agent
podAnnotations: {example.com/why: measuring}
tolerations: [{key: pool, operator: Equal, value: gpu, effect: NoSchedule}]
resources: {requests: {cpu: 20m}, limits: {memory: 256Mi}}
maxUnavailable: 3
seLinuxType: spc_t
env: {MAPLATENCY_MEMORY_BUDGET: 200MiB}
",
    )
    .unwrap();
    settings.owner = Some(OwnerReference {
        name: "maplatency-operator".to_owned(),
        ..OwnerReference::default()
    });
    let set = serde_json::to_value(desired(&settings, [probe(BLUE)].iter())).unwrap();
    assert_eq!(
        set["metadata"]["ownerReferences"][0]["name"],
        "maplatency-operator"
    );
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"],
        3
    );
    let template = &set["spec"]["template"];
    assert_eq!(
        template["metadata"]["annotations"],
        serde_json::json!({"example.com/why": "measuring"})
    );
    let pod = &template["spec"];
    assert_eq!(
        pod["imagePullSecrets"],
        serde_json::json!([{"name": "registry"}])
    );
    assert_eq!(pod["serviceAccountName"], "maplatency-agent");
    assert_eq!(pod["priorityClassName"], "maplatency-agent");
    assert_eq!(
        pod["tolerations"],
        serde_json::json!([{"key": "pool", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}])
    );
    let container = &pod["containers"][0];
    assert_eq!(container["imagePullPolicy"], "Never");
    assert_eq!(
        container["resources"],
        serde_json::json!({"requests": {"cpu": "20m"}, "limits": {"memory": "256Mi"}})
    );
    assert_eq!(
        container["securityContext"]["seLinuxOptions"]["type"],
        "spc_t"
    );
    assert_eq!(container["env"][0]["name"], "NODE_NAME");
    assert_eq!(
        container["env"][1],
        serde_json::json!({"name": "MAPLATENCY_MEMORY_BUDGET", "value": "200MiB"})
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
fn the_api_server_may_write_a_quantity_its_own_way() {
    let mut settings = settings();
    settings.agents =
        serde_yaml::from_str("{resources: {requests: {cpu: 0.5}, limits: {memory: 1024Mi}}}")
            .unwrap();
    let set = desired(&settings, [probe(BLUE)].iter()).unwrap();
    let there = |cpu: &str| {
        let mut there = serde_json::to_value(defaulted(&set)).unwrap();
        there["spec"]["template"]["spec"]["containers"][0]["resources"] =
            serde_json::json!({"requests": {"cpu": cpu}, "limits": {"memory": "1Gi"}});
        serde_json::from_value(there).unwrap()
    };
    assert_eq!(
        plan(Some(set.clone()), Some(&set), Some(&there("500m"))),
        Plan::Keep
    );
    assert_ne!(
        plan(Some(set.clone()), Some(&set), Some(&there("501m"))),
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
