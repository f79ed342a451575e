//! What the cluster's admin decides about agents, as a YAML file says it.
//!
//! Read once, at the start. A field that is not known is refused with its name, since one that is misspelt would
//! change nothing and tell nobody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use maplatency_core::crd::spec::LabelRequirement;
use maplatency_core::validate::{check_requirements, fulfils};
use serde::Deserialize;

/// What holds for every agent. Nothing has to be given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentSettings {
    /// When a kubelet pulls the image. Absent: as the cluster does it.
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets with which it is pulled.
    pub image_pull_secrets: Vec<String>,
    /// How important agents are on a full node.
    pub priority_class_name: Option<String>,
    /// Further annotations of the pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// What every node has to fulfil to be measured, whatever a probe selects.
    pub nodes: Vec<LabelRequirement>,
    /// Taints that agents bear. Absent: all of them.
    pub tolerations: Option<Vec<Tolerated>>,
    /// What the scheduler and the kernel grant.
    pub resources: Resources,
    /// How many agents an update may stop at once, such as 1 or 10%.
    pub max_unavailable: Option<MaxUnavailable>,
    /// `SELinux` type of the process, where the node enforces `SELinux`.
    pub se_linux_type: Option<String>,
    /// Further environment variables, such as `MAPLATENCY_MEMORY_BUDGET`.
    pub env: BTreeMap<String, String>,
}

/// When a kubelet pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// Where the node lacks it.
    IfNotPresent,
    /// Never; it has been loaded onto the node.
    Never,
}

impl PullPolicy {
    /// Kubernetes' word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// A taint that agents bear, as a pod says it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tolerated {
    key: Option<String>,
    operator: Option<TaintOperator>,
    value: Option<String>,
    effect: Option<TaintEffect>,
    toleration_seconds: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum TaintOperator {
    Exists,
    Equal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl Tolerated {
    /// In the words of Kubernetes.
    pub(super) fn toleration(&self) -> Toleration {
        let Self {
            key,
            operator,
            value,
            effect,
            toleration_seconds,
        } = self;
        Toleration {
            key: key.clone(),
            operator: operator.map(|it| format!("{it:?}")),
            value: value.clone(),
            effect: effect.map(|it| format!("{it:?}")),
            toleration_seconds: *toleration_seconds,
        }
    }
}

/// Requests and limits of the one container. Absent requests are those that an idle node was measured to need.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    requests: BTreeMap<String, QuantityText>,
    limits: BTreeMap<String, QuantityText>,
}

impl Default for Resources {
    fn default() -> Self {
        let quantity = |name: &str, text: &str| (name.to_owned(), QuantityText(text.to_owned()));
        Self {
            requests: BTreeMap::from([quantity("cpu", "10m"), quantity("memory", "32Mi")]),
            limits: BTreeMap::new(),
        }
    }
}

impl Resources {
    /// In the words of Kubernetes.
    pub(super) fn requirements(&self) -> ResourceRequirements {
        let quantities = |from: &BTreeMap<String, QuantityText>| {
            (!from.is_empty()).then(|| {
                from.iter()
                    .map(|(name, it)| (name.clone(), Quantity(it.0.clone())))
                    .collect()
            })
        };
        ResourceRequirements {
            requests: quantities(&self.requests),
            limits: quantities(&self.limits),
            ..ResourceRequirements::default()
        }
    }
}

/// A quantity such as 10m or 64Mi. A whole number may stand without quotes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
struct QuantityText(String);

impl TryFrom<Scalar> for QuantityText {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, String> {
        let text = scalar.text();
        if thousandths(&text).is_some() {
            Ok(Self(text))
        } else {
            Err(format!(
                "{text:?} is no quantity; write one such as 10m or 64Mi"
            ))
        }
    }
}

/// What a quantity amounts to. The API server writes the same amount its own way: 1000m as 1.
pub(super) fn thousandths(text: &str) -> Option<u128> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u128 = match &text[number.len()..] {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000_u128.pow(2),
        "G" => 1000 * 1000_u128.pow(3),
        "T" => 1000 * 1000_u128.pow(4),
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Nine digits hold a byte of a tebibyte, and more would overflow.
    let digits = |it: &str| (1..=9).contains(&it.len()) && it.bytes().all(|b| b.is_ascii_digit());
    if !digits(fraction) || !(digits(whole) || whole.len() <= 15 && whole.parse::<u64>().is_ok()) {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?;
    Some(value * unit / scale)
}

/// A count of pods or a share of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Scalar")]
pub enum MaxUnavailable {
    /// So many pods.
    Pods(i32),
    /// A share, such as 10%.
    Share(String),
}

impl TryFrom<Scalar> for MaxUnavailable {
    type Error = String;

    fn try_from(scalar: Scalar) -> Result<Self, String> {
        let text = scalar.text();
        let (number, percent) = text
            .strip_suffix('%')
            .map_or((text.as_str(), false), |it| (it, true));
        match (number.parse::<i32>(), percent) {
            (Ok(pods @ 1..), false) => Ok(Self::Pods(pods)),
            (Ok(1..=100), true) => Ok(Self::Share(text)),
            _ => Err(format!(
                "{text:?} is neither a number of pods nor a share; write one such as 1 or 10%"
            )),
        }
    }
}

/// What YAML may hold for a text that looks like a number.
#[derive(Deserialize)]
#[serde(untagged, expecting = "write a text or a number")]
enum Scalar {
    Whole(i64),
    Broken(f64),
    Text(String),
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Self::Whole(it) => it.to_string(),
            Self::Broken(it) => it.to_string(),
            Self::Text(it) => it,
        }
    }
}

/// Why the file says nothing that agents could be run by.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It was not read.
    #[error("could not read the settings of agents in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML, or a field is unknown or of another type.
    #[error("the settings of agents in {} are wrong", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_yaml::Error,
    },
    /// What it says cannot be meant.
    #[error("the settings of agents in {} are wrong: {problem}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where, and what to write instead.
        problem: String,
    },
}

impl AgentSettings {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        // A file of comments says nothing, as an absent one does.
        let settings: Option<Self> =
            serde_yaml::from_str(text).map_err(|source| SettingsError::Parse {
                path: path.to_owned(),
                source,
            })?;
        let settings = settings.unwrap_or_default();
        match settings.problem() {
            None => Ok(settings),
            Some(problem) => Err(SettingsError::Wrong {
                path: path.to_owned(),
                problem,
            }),
        }
    }

    /// The first mistake that types alone do not show.
    fn problem(&self) -> Option<String> {
        if let Err(invalid) = check_requirements("nodes", &self.nodes) {
            return Some(invalid.to_string());
        }
        if let Some(name) = self.env.keys().find(|it| it.is_empty() || it.contains('=')) {
            return Some(format!(
                "env: {name:?} is no name of an environment variable"
            ));
        }
        let reserved = self.env.keys().find(|it| RESERVED.contains(&it.as_str()));
        reserved.map(|it| format!("env: the operator sets {it} itself; leave it out"))
    }

    /// Whether a node fulfils what every node has to.
    pub fn allows(&self, labels: &BTreeMap<String, String>) -> bool {
        fulfils(&self.nodes, labels)
    }
}

/// Set by the DaemonSet itself.
pub(super) const RESERVED: [&str; 1] = ["NODE_NAME"];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AgentSettings, String> {
        AgentSettings::parse(Path::new("agents.yaml"), text).map_err(|it| crate::chain::chain(&it))
    }

    #[test]
    fn an_empty_file_asks_for_nothing() {
        for text in ["", "# nothing\n", "{}"] {
            assert_eq!(read(text), Ok(AgentSettings::default()), "{text:?}");
        }
    }

    #[test]
    fn an_unknown_field_is_refused_by_its_name() {
        for (text, name) in [
            ("tolaration: []", "tolaration"),
            ("resources: {request: {}}", "request"),
            ("tolerations: [{keys: a}]", "keys"),
            ("nodes: [{key: a, operator: Exists, value: b}]", "value"),
        ] {
            let said = read(text).unwrap_err();
            assert!(
                said.contains("agents.yaml") && said.contains(&format!("unknown field `{name}`")),
                "{said}"
            );
        }
    }

    #[test]
    fn a_wrong_value_is_answered_with_what_to_write() {
        for (text, advice) in [
            (
                "resources: {limits: {memory: plenty}}",
                "such as 10m or 64Mi",
            ),
            ("resources: {limits: {memory: 64MB}}", "such as 10m or 64Mi"),
            ("maxUnavailable: 0", "such as 1 or 10%"),
            ("maxUnavailable: 120%", "such as 1 or 10%"),
            (
                "nodes: [{key: type, operator: NotIn}]",
                "nodes[0]: operators In and NotIn need values",
            ),
            (
                "imagePullPolicy: Sometimes",
                "`Always`, `IfNotPresent`, `Never`",
            ),
            ("tolerations: [{operator: Some}]", "`Exists` or `Equal`"),
            ("env: {NODE_NAME: x}", "the operator sets NODE_NAME itself"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(advice), "{text}: {said}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let said = AgentSettings::read(Path::new("/no/such/file")).unwrap_err();
        assert!(crate::chain::chain(&said).contains("/no/such/file: No such file"));
    }

    #[test]
    fn quantities_may_be_numbers() {
        let settings =
            read("resources: {limits: {cpu: 1, memory: 64Mi}, requests: {cpu: 0.5}}").unwrap();
        let requirements = settings.resources.requirements();
        assert_eq!(requirements.limits.unwrap()["cpu"].0, "1");
        assert_eq!(requirements.requests.unwrap()["cpu"].0, "0.5");
    }

    #[test]
    fn without_requests_agents_ask_for_what_they_were_measured_to_need() {
        let settings = read("resources: {limits: {memory: 256Mi}}").unwrap();
        let requests = settings.resources.requirements().requests.unwrap();
        assert_eq!(
            (&*requests["cpu"].0, &*requests["memory"].0),
            ("10m", "32Mi")
        );
    }

    #[test]
    fn quantities_are_compared_by_what_they_amount_to() {
        for (one, other) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1k", "1000"),
        ] {
            assert_eq!(thousandths(one), thousandths(other), "{one} {other}");
            assert!(thousandths(one).is_some(), "{one}");
        }
        for text in [
            "",
            "m",
            ".5",
            "1.",
            "-1",
            "1e3",
            "1 Mi",
            "99999999999999999999Ti",
        ] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }
}
