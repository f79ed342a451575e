//! The DaemonSet as it should be, and what to write to get there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, EnvVar, EnvVarSource, HostPathVolumeSource, NodeAffinity,
    NodeSelector as NodeTerms, NodeSelectorRequirement, NodeSelectorTerm, ObjectFieldSelector,
    PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext, Toleration,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::ObjectMeta;
use maplatency_core::crd::spec::{LabelOperator, NodeSelector};
use serde_json::Value;

use super::NAME;
use crate::inventory::{Life, Probe};

/// What the cluster's admin decides about agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The operator's namespace.
    pub namespace: String,
    /// Image of the agent.
    pub image: String,
    /// URL that agents dial.
    pub operator_url: String,
    /// Where agents answer for their metrics.
    pub http_listen: Option<SocketAddr>,
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Nothing: all is as it should be.
    Keep,
    /// This.
    Apply(Box<DaemonSet>),
    /// Its deletion.
    Delete,
}

/// Compares what should be with what was applied last and with what is there.
///
/// `applied` is unknown after a start, so the first plan always applies; that also takes over fields of an
/// earlier version, and the API server counts a write without change as none.
pub fn plan(
    desired: Option<DaemonSet>,
    applied: Option<&DaemonSet>,
    observed: Option<&DaemonSet>,
) -> Plan {
    match (desired, observed) {
        (None, None) => Plan::Keep,
        (None, Some(there)) if there.metadata.deletion_timestamp.is_some() => Plan::Keep,
        (None, Some(_)) => Plan::Delete,
        (Some(desired), Some(there)) if applied == Some(&desired) && covers(there, &desired) => {
            Plan::Keep
        }
        (Some(desired), _) => Plan::Apply(Box::new(desired)),
    }
}

/// The DaemonSet for these probes. `None` when no valid one is left.
pub fn desired<'a>(
    settings: &Settings,
    probes: impl Iterator<Item = &'a Probe>,
) -> Option<DaemonSet> {
    let terms: BTreeSet<Vec<Requirement>> = probes
        .filter(|it| it.life == Life::Live && it.spec.check().is_ok())
        .map(|it| term(it.spec.node_selector.as_ref()))
        .collect();
    (!terms.is_empty()).then(|| daemon_set(settings, &terms))
}

/// Key, operator, values.
type Requirement = (String, &'static str, Vec<String>);

/// A selector as one term of a node affinity. The requirements are sorted, so that equal ones are found.
fn term(selector: Option<&NodeSelector>) -> Vec<Requirement> {
    let linux = || {
        (
            "kubernetes.io/os".to_owned(),
            "In",
            vec!["linux".to_owned()],
        )
    };
    let Some(selector) = selector else {
        return vec![linux()];
    };
    let NodeSelector {
        match_labels,
        match_expressions,
    } = selector;
    let exact = match_labels
        .iter()
        .map(|(key, value)| (key.clone(), "In", vec![value.clone()]));
    let expressions = match_expressions.iter().map(|it| {
        let operator = match it.operator {
            LabelOperator::In => "In",
            LabelOperator::NotIn => "NotIn",
            LabelOperator::Exists => "Exists",
            LabelOperator::DoesNotExist => "DoesNotExist",
        };
        (it.key.clone(), operator, it.values.clone())
    });
    let mut requirements: Vec<Requirement> = exact.chain(expressions).collect();
    requirements.sort();
    requirements.dedup();
    if requirements.is_empty() {
        // To Kubernetes an empty term matches no node, to users an empty selector matches every one.
        requirements.push(linux());
    }
    requirements
}

fn daemon_set(settings: &Settings, terms: &BTreeSet<Vec<Requirement>>) -> DaemonSet {
    DaemonSet {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(settings.namespace.clone()),
            labels: Some(labels()),
            ..ObjectMeta::default()
        },
        spec: Some(DaemonSetSpec {
            selector: LabelSelector {
                match_labels: Some(identity()),
                ..LabelSelector::default()
            },
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDaemonSet {
                    max_unavailable: Some(IntOrString::String("10%".to_owned())),
                    ..RollingUpdateDaemonSet::default()
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(settings, terms)),
            },
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
}

fn pod(settings: &Settings, terms: &BTreeSet<Vec<Requirement>>) -> PodSpec {
    PodSpec {
        affinity: Some(Affinity {
            node_affinity: Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(node_terms(terms)),
                ..NodeAffinity::default()
            }),
            ..Affinity::default()
        }),
        // A probe decides where to measure; taints are about where other work runs.
        tolerations: Some(vec![Toleration {
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        }]),
        // The kernel side counts callers that the agent's pid namespace holds.
        host_pid: Some(true),
        // Agents never talk to the API server.
        automount_service_account_token: Some(false),
        termination_grace_period_seconds: Some(10),
        containers: vec![container(settings)],
        volumes: Some(FOLDERS.map(volume).to_vec()),
        ..PodSpec::default()
    }
}

/// What of the node agents look at, and containers do not get by themselves: ids of tracepoints, and pins of maps.
const FOLDERS: [(&str, &str); 2] = [("tracing", "/sys/kernel/tracing"), ("bpffs", "/sys/fs/bpf")];

fn volume((name, path): (&str, &str)) -> Volume {
    Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: path.to_owned(),
            type_: Some("Directory".to_owned()),
        }),
        ..Volume::default()
    }
}

fn volume_mount((name, path): (&str, &str)) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        // What is mounted there later, too.
        mount_propagation: Some("HostToContainer".to_owned()),
        ..VolumeMount::default()
    }
}

fn container(settings: &Settings) -> Container {
    let args = [
        "serve",
        "--operator",
        &settings.operator_url,
        "--node",
        "$(NODE_NAME)",
        "--insecure-plaintext",
    ];
    let http_listen = settings.http_listen.map(|it| it.to_string());
    let http = http_listen.iter().flat_map(|it| ["--http-listen", it]);
    Container {
        name: "agent".to_owned(),
        image: Some(settings.image.clone()),
        args: Some(args.into_iter().chain(http).map(str::to_owned).collect()),
        env: Some(vec![EnvVar {
            name: "NODE_NAME".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "spec.nodeName".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        }]),
        resources: Some(ResourceRequirements {
            requests: Some(BTreeMap::from([
                ("cpu".to_owned(), Quantity("10m".to_owned())),
                ("memory".to_owned(), Quantity("32Mi".to_owned())),
            ])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(security_context()),
        volume_mounts: Some(FOLDERS.map(volume_mount).to_vec()),
        ..Container::default()
    }
}

fn security_context() -> SecurityContext {
    let capabilities = [
        // Loads programs and creates maps (since 5.8; before, SYS_ADMIN covers it).
        "BPF",
        // Attaches programs to tracepoints on every CPU, and lets them read kernel memory.
        "PERFMON",
        // BPF_MAP_GET_NEXT_ID and BPF_MAP_GET_FD_BY_ID, by which maps are found, accept nothing less.
        "SYS_ADMIN",
    ];
    SecurityContext {
        privileged: Some(false),
        // Capabilities of a container are effective for uid 0 only.
        run_as_user: Some(0),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: Some(capabilities.into_iter().map(str::to_owned).collect()),
        }),
        // Lets bpf(2) and perf_event_open(2) pass for holders of the capabilities above.
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}

fn node_terms(terms: &BTreeSet<Vec<Requirement>>) -> NodeTerms {
    let requirement = |(key, operator, values): &Requirement| NodeSelectorRequirement {
        key: key.clone(),
        operator: (*operator).to_owned(),
        values: (!values.is_empty()).then(|| values.clone()),
    };
    NodeTerms {
        node_selector_terms: terms
            .iter()
            .map(|it| NodeSelectorTerm {
                match_expressions: Some(it.iter().map(requirement).collect()),
                ..NodeSelectorTerm::default()
            })
            .collect(),
    }
}

/// The labels that pods are selected by. A DaemonSet's selector can never change, so no version stands here.
fn identity() -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "maplatency"),
        ("app.kubernetes.io/instance", "maplatency"),
        ("app.kubernetes.io/component", "agent"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

fn labels() -> BTreeMap<String, String> {
    let mut labels = identity();
    for (key, value) in [
        ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
        ("app.kubernetes.io/part-of", "maplatency"),
        ("app.kubernetes.io/managed-by", "maplatency-operator"),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// Whether every field that is desired stands in what is there. Fields beyond are defaults or others' business.
fn covers(there: &DaemonSet, desired: &DaemonSet) -> bool {
    let value = |it| serde_json::to_value(it).expect("a DaemonSet is JSON");
    holds(&value(there), &value(desired))
}

fn holds(there: &Value, desired: &Value) -> bool {
    match (there, desired) {
        (Value::Object(there), Value::Object(desired)) => desired
            .iter()
            .all(|(key, want)| there.get(key).is_some_and(|have| holds(have, want))),
        (Value::Array(there), Value::Array(desired)) => {
            there.len() == desired.len()
                && there
                    .iter()
                    .zip(desired)
                    .all(|(have, want)| holds(have, want))
        }
        _ => there == desired,
    }
}

#[cfg(test)]
mod tests;
