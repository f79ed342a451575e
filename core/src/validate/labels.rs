//! Node selectors: whether they are well formed, and which nodes they select.

use std::collections::BTreeMap;

use super::{Empty, Problems};
use crate::crd::spec::{LabelOperator, LabelRequirement, NodeSelector};

const PATH: &str = "spec.nodeSelector";

/// Whether a node with these labels is selected. Without a selector, or with an empty one, every Linux node is.
pub fn selects(selector: Option<&NodeSelector>, labels: &BTreeMap<String, String>) -> bool {
    let empty = NodeSelector::default();
    let Some(selector) = selector.filter(|it| **it != empty) else {
        return labels
            .get("kubernetes.io/os")
            .is_some_and(|os| os == "linux");
    };
    let exact = selector
        .match_labels
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    exact && fulfils(&selector.match_expressions, labels)
}

/// Whether a node with these labels fulfils every requirement.
pub fn fulfils(requirements: &[LabelRequirement], labels: &BTreeMap<String, String>) -> bool {
    requirements.iter().all(|it| holds(it, labels.get(&it.key)))
}

fn holds(requirement: &LabelRequirement, value: Option<&String>) -> bool {
    let listed = value.is_some_and(|it| requirement.values.contains(it));
    match requirement.operator {
        LabelOperator::In => listed,
        LabelOperator::NotIn => !listed,
        LabelOperator::Exists => value.is_some(),
        LabelOperator::DoesNotExist => value.is_none(),
    }
}

pub(super) fn check(selector: &NodeSelector, problems: &mut Problems) {
    let NodeSelector {
        match_labels,
        match_expressions,
    } = selector;
    problems.length(
        &format!("{PATH}.matchLabels"),
        match_labels.len(),
        16,
        Empty::Fine,
    );
    for (key, value) in match_labels {
        let path = format!("{PATH}.matchLabels[{key:?}]");
        check_key(&path, key, problems);
        check_value(&path, value, problems);
    }
    check_requirements(
        &format!("{PATH}.matchExpressions"),
        match_expressions,
        problems,
    );
}

pub(super) fn check_requirements(
    list: &str,
    requirements: &[LabelRequirement],
    problems: &mut Problems,
) {
    problems.length(list, requirements.len(), 16, Empty::Fine);
    for (at, requirement) in requirements.iter().enumerate() {
        let path = format!("{list}[{at}]");
        check_key(&format!("{path}.key"), &requirement.key, problems);
        for value in &requirement.values {
            check_value(&format!("{path}.values"), value, problems);
        }
        let wants_values = matches!(
            requirement.operator,
            LabelOperator::In | LabelOperator::NotIn
        );
        match (wants_values, requirement.values.is_empty()) {
            (true, true) => problems.add(
                path,
                "operators In and NotIn need values; write values: [...]",
            ),
            (false, false) => problems.add(
                path,
                "operators Exists and DoesNotExist take no values; leave values out",
            ),
            _ => (),
        }
    }
}

fn check_key(path: &str, key: &str, problems: &mut Problems) {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix_is_fine = prefix.is_none_or(|it| {
        (1..=253).contains(&it.len())
            && it.split('.').all(|part| {
                part.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                    && part.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && part.ends_with(|c: char| c.is_ascii_alphanumeric())
            })
    });
    if name.is_empty() || !is_label_text(name) || !prefix_is_fine {
        problems.add(
            path,
            format!(
                "{key:?} is no label key; write a name of letters, digits, '-', '_' and '.', \
                 if need be after a DNS name and '/', such as kubernetes.io/os"
            ),
        );
    }
}

fn check_value(path: &str, value: &str, problems: &mut Problems) {
    if !is_label_text(value) {
        problems.add(
            path,
            format!(
                "{value:?} is no label value; write at most 63 letters, digits, '-', '_' and '.', \
                 beginning and ending with a letter or digit"
            ),
        );
    }
}

/// Empty, or as Kubernetes validates label names and values.
fn is_label_text(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.len() <= 63
        && text.bytes().all(inner)
        && text
            .bytes()
            .next()
            .is_none_or(|b| b.is_ascii_alphanumeric())
        && text
            .bytes()
            .last()
            .is_none_or(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn expression(key: &str, operator: LabelOperator, values: &[&str]) -> NodeSelector {
        NodeSelector {
            match_expressions: vec![LabelRequirement {
                key: key.to_owned(),
                operator,
                values: values.iter().map(|it| (*it).to_owned()).collect(),
            }],
            ..NodeSelector::default()
        }
    }

    #[test]
    fn requirements_select_as_in_kubernetes() {
        let node = labels(&[("pool", "a"), ("gpu", "")]);
        let cases = [
            (expression("pool", LabelOperator::In, &["a", "b"]), true),
            (expression("pool", LabelOperator::In, &["b"]), false),
            (expression("pool", LabelOperator::NotIn, &["b"]), true),
            (expression("zone", LabelOperator::NotIn, &["b"]), true),
            (expression("gpu", LabelOperator::Exists, &[]), true),
            (expression("zone", LabelOperator::Exists, &[]), false),
            (expression("zone", LabelOperator::DoesNotExist, &[]), true),
        ];
        for (selector, selected) in cases {
            assert_eq!(selects(Some(&selector), &node), selected, "{selector:?}");
        }
    }

    #[test]
    fn without_a_selector_windows_nodes_are_left_out() {
        assert!(selects(None, &labels(&[("kubernetes.io/os", "linux")])));
        assert!(!selects(None, &labels(&[])));
        assert!(!selects(
            Some(&NodeSelector::default()),
            &labels(&[("kubernetes.io/os", "windows")])
        ));
        assert!(!selects(None, &labels(&[("kubernetes.io/os", "windows")])));
    }

    #[test]
    fn malformed_keys_and_values_are_named() {
        for (key, value, bad) in [
            ("pool", "a", false),
            ("kubernetes.io/os", "", false),
            ("bad key", "a", true),
            ("/x", "a", true),
            ("Example.com/x", "a", true),
            ("a/b/c", "a", true),
            ("pool", "-a", true),
            ("pool", "a b", true),
        ] {
            let mut problems = Problems::default();
            let selector = NodeSelector {
                match_labels: labels(&[(key, value)]),
                ..NodeSelector::default()
            };
            check(&selector, &mut problems);
            assert_eq!(
                !problems.0.is_empty(),
                bad,
                "{key}={value}: {:?}",
                problems.0
            );
        }
    }
}
