//! Which callers are measured.

use crate::crd::spec::CallerSelector;
use crate::glob::Glob;

use super::problems::{COMMANDS, Empty, Problems, check_globs};

/// Callers by command; the kernel side evaluates it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerMatcher {
    /// Patterns to measure; empty: everyone.
    pub commands: Vec<Glob>,
    /// Patterns to leave out; they outrank `commands`.
    pub exclude: Vec<Glob>,
}

pub(super) fn check_callers(callers: &CallerSelector, problems: &mut Problems) -> CallerMatcher {
    let CallerSelector {
        commands,
        exclude_commands,
    } = callers;
    if commands.is_none() && exclude_commands.is_none() {
        problems.add(
            "spec.callers",
            "needs commands or excludeCommands; to measure every caller leave callers out",
        );
    }
    let empty = Empty::among([commands.is_some(), exclude_commands.is_some()]);
    let mut globs = |field: &str, patterns: &Option<Vec<String>>| {
        patterns
            .as_ref()
            .map(|it| {
                check_globs(
                    &format!("spec.callers.{field}"),
                    it,
                    COMMANDS,
                    empty,
                    problems,
                )
            })
            .unwrap_or_default()
    };
    let matcher = CallerMatcher {
        commands: globs("commands", commands),
        exclude: globs("excludeCommands", exclude_commands),
    };
    for both in matcher
        .commands
        .iter()
        .filter(|it| matcher.exclude.contains(it))
    {
        let advice = format!(
            "{:?} stands in both commands and excludeCommands; take it out of one of them",
            both.as_str()
        );
        problems.add("spec.callers", advice);
    }
    matcher
}
