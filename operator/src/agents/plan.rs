//! The DaemonSet as it should be, and what to write to get there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapProjection, Container, ContainerPort, EnvVar, EnvVarSource,
    HostPathVolumeSource, KeyToPath, LocalObjectReference, NodeAffinity, NodeSelector as NodeTerms,
    NodeSelectorRequirement, NodeSelectorTerm, ObjectFieldSelector, PodSpec, PodTemplateSpec,
    ProjectedVolumeSource, SELinuxOptions, SeccompProfile, SecurityContext,
    ServiceAccountTokenProjection, Toleration, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::ObjectMeta;
use maplatency_core::crd::spec::{LabelOperator, LabelRequirement, NodeSelector};
use maplatency_proto::AUDIENCE;
use serde_json::Value;

use super::NAME;
use super::settings::{AgentSettings, MaxUnavailable, Tolerated, thousandths};
use crate::authority;
use crate::inventory::{Life, Probe};

/// What the cluster's admin decides about agents.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The operator's namespace.
    pub namespace: String,
    /// Image of the agent.
    pub image: String,
    /// URL that agents dial.
    pub operator_url: String,
    /// Whether they do so without TLS and without a token.
    pub insecure_plaintext: bool,
    /// Where agents answer for their metrics.
    pub http_listen: Option<SocketAddr>,
    /// What goes when the operator goes takes the DaemonSet along. `None` where nothing does.
    pub owner: Option<OwnerReference>,
    /// The rest.
    pub agents: AgentSettings,
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
        .map(|it| term(it.spec.node_selector.as_ref(), &settings.agents.nodes))
        .collect();
    (!terms.is_empty()).then(|| daemon_set(settings, &terms))
}

/// Key, operator, values.
type Requirement = (String, &'static str, Vec<String>);

/// A selector as one term of a node affinity, with what `every` node has to fulfil besides. The requirements are
/// sorted, so that equal ones are found.
fn term(selector: Option<&NodeSelector>, every: &[LabelRequirement]) -> Vec<Requirement> {
    let mut requirements = selected(selector);
    requirements.extend(every.iter().map(requirement));
    requirements.sort();
    requirements.dedup();
    requirements
}

fn requirement(it: &LabelRequirement) -> Requirement {
    let operator = match it.operator {
        LabelOperator::In => "In",
        LabelOperator::NotIn => "NotIn",
        LabelOperator::Exists => "Exists",
        LabelOperator::DoesNotExist => "DoesNotExist",
    };
    (it.key.clone(), operator, it.values.clone())
}

fn selected(selector: Option<&NodeSelector>) -> Vec<Requirement> {
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
    let expressions = match_expressions.iter().map(requirement);
    let mut requirements: Vec<Requirement> = exact.chain(expressions).collect();
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
            owner_references: settings.owner.clone().map(|it| vec![it]),
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
                    max_unavailable: Some(max_unavailable(&settings.agents)),
                    ..RollingUpdateDaemonSet::default()
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels()),
                    annotations: given(&settings.agents.pod_annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(settings, terms)),
            },
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
}

fn max_unavailable(agents: &AgentSettings) -> IntOrString {
    match &agents.max_unavailable {
        None => IntOrString::String("10%".to_owned()),
        Some(MaxUnavailable::Share(share)) => IntOrString::String(share.clone()),
        Some(MaxUnavailable::Pods(pods)) => IntOrString::Int(*pods),
    }
}

/// Server-side apply takes an empty map for a field that is owned.
fn given(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

fn pod(settings: &Settings, terms: &BTreeSet<Vec<Requirement>>) -> PodSpec {
    let agents = &settings.agents;
    PodSpec {
        image_pull_secrets: (!agents.image_pull_secrets.is_empty()).then(|| {
            let secret = |name: &String| LocalObjectReference { name: name.clone() };
            agents.image_pull_secrets.iter().map(secret).collect()
        }),
        priority_class_name: agents.priority_class_name.clone(),
        affinity: Some(Affinity {
            node_affinity: Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(node_terms(terms)),
                ..NodeAffinity::default()
            }),
            ..Affinity::default()
        }),
        tolerations: Some(tolerations(agents)),
        // The kernel side counts callers that the agent's pid namespace holds.
        host_pid: Some(true),
        // Who an agent is. It has no rights at the API server.
        service_account_name: (!settings.insecure_plaintext).then(|| NAME.to_owned()),
        // Agents never talk to the API server; their token is for the operator alone.
        automount_service_account_token: Some(false),
        termination_grace_period_seconds: Some(10),
        containers: vec![container(settings)],
        volumes: Some(
            FOLDERS
                .map(volume)
                .into_iter()
                .chain((!settings.insecure_plaintext).then(identity_volume))
                .collect(),
        ),
        ..PodSpec::default()
    }
}

/// All taints unless told otherwise: a probe decides where to measure; taints are about where other work runs.
fn tolerations(agents: &AgentSettings) -> Vec<Toleration> {
    let all = || {
        vec![Toleration {
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        }]
    };
    agents
        .tolerations
        .as_ref()
        .map_or_else(all, |it| it.iter().map(Tolerated::toleration).collect())
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

/// Where an agent finds whom to trust, and who it is. The kubelet renews both files.
const IDENTITY: (&str, &str) = ("identity", "/var/run/secrets/maplatency.dev");
/// The names of the files in it.
const TRUST: &str = "ca.crt";
const TOKEN: &str = "token";
/// Life of a token. The kubelet renews it after four fifths.
const TOKEN_SECONDS: i64 = 3600;

fn identity_volume() -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(AUDIENCE.to_owned()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: TOKEN.to_owned(),
        }),
        ..VolumeProjection::default()
    };
    let trust = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: authority::NAME.to_owned(),
            items: Some(vec![KeyToPath {
                key: authority::BUNDLE.to_owned(),
                path: TRUST.to_owned(),
                ..KeyToPath::default()
            }]),
            ..ConfigMapProjection::default()
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: IDENTITY.0.to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![token, trust]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn identity_mount() -> VolumeMount {
    VolumeMount {
        name: IDENTITY.0.to_owned(),
        mount_path: IDENTITY.1.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn arguments(settings: &Settings) -> Vec<String> {
    let common = [
        "serve",
        "--operator",
        &settings.operator_url,
        "--node",
        "$(NODE_NAME)",
    ];
    let mut all: Vec<String> = common.into_iter().map(str::to_owned).collect();
    if settings.insecure_plaintext {
        all.push("--insecure-plaintext".to_owned());
    } else {
        for (flag, file) in [("--operator-ca", TRUST), ("--token-file", TOKEN)] {
            all.extend([flag.to_owned(), format!("{}/{file}", IDENTITY.1)]);
        }
    }
    if let Some(address) = settings.http_listen {
        all.extend(["--http-listen".to_owned(), address.to_string()]);
    }
    all
}

fn container(settings: &Settings) -> Container {
    Container {
        name: "agent".to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: settings
            .agents
            .image_pull_policy
            .map(|it| it.as_str().to_owned()),
        args: Some(arguments(settings)),
        env: Some(environment(&settings.agents)),
        ports: settings.http_listen.map(|it| vec![metrics_port(it)]),
        resources: Some(settings.agents.resources.requirements()),
        security_context: Some(security_context(&settings.agents)),
        volume_mounts: Some(
            FOLDERS
                .map(volume_mount)
                .into_iter()
                .chain((!settings.insecure_plaintext).then(identity_mount))
                .collect(),
        ),
        ..Container::default()
    }
}

fn metrics_port(address: SocketAddr) -> ContainerPort {
    ContainerPort {
        name: Some("metrics".to_owned()),
        container_port: i32::from(address.port()),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn environment(agents: &AgentSettings) -> Vec<EnvVar> {
    let node = EnvVar {
        name: "NODE_NAME".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: "spec.nodeName".to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let further = agents.env.iter().map(|(name, value)| EnvVar {
        name: name.clone(),
        value: Some(value.clone()),
        ..EnvVar::default()
    });
    std::iter::once(node).chain(further).collect()
}

fn security_context(agents: &AgentSettings) -> SecurityContext {
    // One, and nothing less would do. BPF_MAP_GET_NEXT_ID and BPF_MAP_GET_FD_BY_ID, by which maps are found, accept nothing
    // but CAP_SYS_ADMIN. With it the kernel asks for neither CAP_BPF (loads programs, makes maps) nor CAP_PERFMON (attaches
    // them to tracepoints, lets them read kernel memory); e2e/tests/capabilities.rs shows all of that by its absence.
    let capabilities = ["SYS_ADMIN"];
    SecurityContext {
        privileged: Some(false),
        // Capabilities of a container are effective for uid 0 only.
        run_as_user: Some(0),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: Some(capabilities.into_iter().map(str::to_owned).collect()),
        }),
        se_linux_options: agents.se_linux_type.as_ref().map(|it| SELinuxOptions {
            type_: Some(it.clone()),
            ..SELinuxOptions::default()
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
    let written = |(key, operator, values): &Requirement| NodeSelectorRequirement {
        key: key.clone(),
        operator: (*operator).to_owned(),
        values: (!values.is_empty()).then(|| values.clone()),
    };
    NodeTerms {
        node_selector_terms: terms
            .iter()
            .map(|it| NodeSelectorTerm {
                match_expressions: Some(it.iter().map(written).collect()),
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
        (Value::Object(there), Value::Object(desired)) => {
            desired.iter().all(|(key, want)| match there.get(key) {
                Some(have) if matches!(key.as_str(), "requests" | "limits") => {
                    amounts(have) == amounts(want)
                }
                Some(have) => holds(have, want),
                None => false,
            })
        }
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

/// Quantities by name, as what they amount to.
fn amounts(quantities: &Value) -> BTreeMap<&str, Option<u128>> {
    let amount = |it: &Value| it.as_str().and_then(thousandths);
    let quantities = quantities.as_object().into_iter().flatten();
    quantities
        .map(|(name, it)| (name.as_str(), amount(it)))
        .collect()
}

#[cfg(test)]
mod tests;
