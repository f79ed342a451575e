//! Objectives.

use super::problems::{Empty, Problems};
use crate::crd::objectives::Objective;
use crate::crd::spec::MapLatencyProbeSpec;

/// Most characters of a name.
const NAME: usize = 40;

/// Looks for mistakes. What is evaluated are the objectives themselves.
pub(super) fn check_objectives(spec: &MapLatencyProbeSpec, problems: &mut Problems) {
    let Some(objectives) = &spec.objectives else {
        return;
    };
    let field = "spec.objectives";
    problems.length(field, objectives.len(), 8, Empty::Wrong);
    let measured = spec.effective_operations();
    for (at, objective) in objectives.iter().enumerate() {
        let Objective {
            name,
            operation,
            latency: _,
            percentile: _,
            threshold_microseconds,
            for_seconds,
        } = objective;
        let field = format!("{field}[{at}]");
        if !is_name(name) {
            let advice = format!(
                "{name:?} is no name; write at most {NAME} lower-case letters, digits and '-', the first and the last no '-'"
            );
            problems.add(format!("{field}.name"), advice);
        }
        if objectives[..at].iter().any(|it| it.name == *name) {
            let advice = format!("{name:?} stands there twice; give each objective its own name");
            problems.add(format!("{field}.name"), advice);
        }
        if !measured.contains(operation) {
            let advice =
                format!("{operation} is not measured; add it to spec.operations, or name another");
            problems.add(format!("{field}.operation"), advice);
        }
        let threshold = format!("{field}.thresholdMicroseconds");
        problems.range(&threshold, *threshold_microseconds, 1, 10_000_000);
        problems.range(&format!("{field}.forSeconds"), *for_seconds, 0, 3_600);
    }
}

fn is_name(name: &str) -> bool {
    let fits = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let bytes = name.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    name.len() <= NAME
        && ends.is_some_and(|(first, last)| fits(*first) && fits(*last))
        && bytes.iter().all(|it| fits(*it) || *it == b'-')
}
