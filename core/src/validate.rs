//! Turns a spec into what the agent and the operator act on, or says what to write instead.
//!
//! The API server refuses most mistakes by schema and CEL. A file given to `maplatency-agent run` meets no API
//! server, and some mistakes no schema can see; so everything is checked here again.

mod callers;
mod cpus;
mod labels;
mod maps;
mod objectives;
mod plans;
mod problems;

use std::fmt;
use std::time::Duration;

pub use callers::CallerMatcher;
pub use cpus::CpuChoice;
pub use labels::{fulfils, selects};
pub use maps::{Holder, MapMatcher, Ties};
pub use plans::{ActivePlan, AggregationPlan, OutlierPlan};

use crate::crd::spec::{LabelRequirement, MapLatencyProbeSpec};
use crate::vocabulary::{MapIdentity, Operation};
use callers::check_callers;
use maps::check_maps;
use objectives::check_objectives;
use plans::{check_active, check_aggregation, check_outliers};
use problems::{Empty, Problems};

/// One mistake: where it stands and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, such as `spec.maps[0].names[1]`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub advice: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.advice)
    }
}

/// Every mistake in a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidSpec(pub Vec<Problem>);

/// A spec without mistakes, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedSpec {
    /// Which maps; any of them.
    pub maps: Vec<MapMatcher>,
    /// Which operations, in order.
    pub operations: Vec<Operation>,
    /// Which callers.
    pub callers: CallerMatcher,
    /// Reads by the agent itself.
    pub active: Option<ActivePlan>,
    /// Slow operations to tell one by one.
    pub outliers: Option<OutlierPlan>,
    /// How operations become figures.
    pub aggregation: AggregationPlan,
    /// Length of the sliding window.
    pub window: Duration,
}

impl CheckedSpec {
    /// Whether a map is to be measured.
    pub fn matches(&self, map: &MapIdentity, ties: Ties<'_>) -> bool {
        self.maps.iter().any(|it| it.matches(map, ties))
    }

    /// Whether a map can match by its name, type or id alone.
    pub fn matches_by_identity(&self) -> bool {
        let by_identity = |it: &MapMatcher| it.pin_paths.is_none() && it.held_by.is_none();
        self.maps.iter().any(by_identity)
    }

    /// Whether pins have to be known.
    pub fn needs_pins(&self) -> bool {
        self.maps.iter().any(|it| it.pin_paths.is_some())
    }

    /// Whether holders have to be known.
    pub fn needs_holders(&self) -> bool {
        self.maps.iter().any(|it| it.held_by.is_some())
    }
}

impl MapLatencyProbeSpec {
    /// Parses every field, or lists every mistake.
    pub fn check(&self) -> Result<CheckedSpec, InvalidSpec> {
        let mut problems = Problems::default();
        if let Some(selector) = &self.node_selector {
            labels::check(selector, &mut problems);
        }
        problems.length("spec.maps", self.maps.len(), 16, Empty::WrongAndNeeded);
        if let Some(operations) = &self.operations {
            problems.set("spec.operations", operations, 9, Empty::Wrong);
        }
        let maps = self
            .maps
            .iter()
            .enumerate()
            .filter_map(|(at, it)| check_maps(at, it, &mut problems))
            .collect();
        let callers = self
            .callers
            .as_ref()
            .map_or_else(CallerMatcher::default, |it| {
                check_callers(it, &mut problems)
            });
        let active = self
            .active_reads
            .as_ref()
            .and_then(|it| check_active(it, &mut problems));
        let outliers = self
            .outliers
            .as_ref()
            .map(|it| check_outliers(it, &mut problems));
        let aggregation = check_aggregation(self.aggregation.as_ref(), &mut problems);
        check_objectives(self, &mut problems);
        let window = problems.range("spec.windowSeconds", self.window_seconds, 10, 600);
        problems.into_result(|| CheckedSpec {
            maps,
            operations: self.effective_operations(),
            callers,
            active,
            outliers,
            aggregation,
            window: Duration::from_secs(window),
        })
    }
}

/// Lists every mistake in requirements on labels of nodes, which stand in the field `field`.
pub fn check_requirements(
    field: &str,
    requirements: &[LabelRequirement],
) -> Result<(), InvalidSpec> {
    let mut problems = Problems::default();
    labels::check_requirements(field, requirements, &mut problems);
    problems.into_result(|| ())
}

#[cfg(test)]
mod tests;
