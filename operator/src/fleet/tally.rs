//! Sums over all agents since this operator began, for Prometheus. They only rise.

use std::collections::{BTreeMap, BTreeSet};

use maplatency_core::agents::AgentFacts;
use maplatency_core::measure::Rows;
use maplatency_metrics::latency::Totals;

use super::{Placements, Taken};

/// Classes of nodes that are told apart.
const CLASSES: usize = 16;
/// Kinds of loss that are told apart.
const LOSS_KINDS: usize = 32;
/// Class of a node without one.
const NO_CLASS: &str = "none";
/// Whatever is one too many.
const OTHER: &str = "other";

/// Name of a probe, and class of nodes.
type Place = (String, String);

/// What there is to export.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Latencies by probe and class of nodes.
    pub latencies: BTreeMap<Place, Totals>,
    /// Operations that were lost, by kind.
    pub losses: BTreeMap<String, u64>,
    /// Reports by what became of them.
    pub reports: BTreeMap<&'static str, u64>,
    /// Streams that are open.
    pub connected: usize,
    /// The agents behind them, as far as they have reported.
    pub agents: Vec<AgentFacts>,
}

/// The sums.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// By node.
    classes: BTreeMap<String, String>,
    /// Those that are told apart from now on: what was told once cannot be taken back.
    told: BTreeSet<String>,
    latencies: BTreeMap<Place, Totals>,
    losses: BTreeMap<String, u64>,
    reports: BTreeMap<&'static str, u64>,
}

impl Sums {
    /// Sets the classes of nodes. The first ones by name are told apart, so that an operator that restarts does it alike.
    pub(super) fn classify(&mut self, mut classes: BTreeMap<String, String>) {
        let distinct: BTreeSet<&String> = classes.values().collect();
        for class in distinct {
            if self.told.len() < CLASSES {
                self.told.insert(class.clone());
            }
        }
        for class in classes.values_mut() {
            if !self.told.contains(class) {
                OTHER.clone_into(class);
            }
        }
        self.classes = classes;
    }

    pub(super) fn keep_only(&mut self, placements: &Placements) {
        let names: Vec<&str> = placements
            .values()
            .map(|it| it.probe.name.as_str())
            .collect();
        self.latencies
            .retain(|(probe, _), _| names.contains(&probe.as_str()));
    }

    pub(super) fn add(&mut self, probe: &str, node: &str, rows: &Rows) {
        if rows.is_empty() {
            return;
        }
        let class = self.classes.get(node).map_or(NO_CLASS, String::as_str);
        let place = (probe.to_owned(), class.to_owned());
        self.latencies.entry(place).or_default().add(rows);
    }

    pub(super) fn lose(&mut self, kind: &str, count: u64) {
        let known = self.losses.contains_key(kind) || self.losses.len() < LOSS_KINDS;
        let kind = if known { kind } else { OTHER };
        let sum = self.losses.entry(kind.to_owned()).or_default();
        *sum = sum.saturating_add(count);
    }

    pub(super) fn took(&mut self, taken: Taken) {
        self.report(match taken {
            Taken::New => "new",
            Taken::Repeated => "repeated",
            Taken::WentBackwards => "went_backwards",
            Taken::Superseded => "superseded",
        });
    }

    pub(super) fn report(&mut self, outcome: &'static str) {
        *self.reports.entry(outcome).or_default() += 1;
    }

    pub(super) fn tally(&self, agents: Vec<AgentFacts>, connected: usize) -> Tally {
        Tally {
            latencies: self.latencies.clone(),
            losses: self.losses.clone(),
            reports: self.reports.clone(),
            connected,
            agents,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_kinds_stay_few_whatever_nodes_and_agents_say() {
        let mut sums = Sums::default();
        let node = |n: usize| (format!("node-{n}"), format!("class-{n:04}"));
        sums.classify((0..1_000).map(node).collect());
        let mut classes: Vec<&String> = sums.classes.values().collect();
        classes.sort_unstable();
        classes.dedup();
        assert_eq!(classes.len(), CLASSES + 1);
        assert_eq!(sums.classes["node-0"], "class-0000");
        assert_eq!(sums.classes["node-999"], OTHER);

        // Nodes come and go.
        let later = |n: usize| (format!("node-{n}"), format!("later-{n:04}"));
        sums.classify((0..1_000).map(later).collect());
        assert!(sums.classes.values().all(|it| it == OTHER));

        for kind in 0..1_000 {
            sums.lose(&format!("Kind{kind}"), 1);
        }
        assert_eq!(sums.losses.len(), LOSS_KINDS + 1);
        assert_eq!(sums.losses[OTHER], 1_000 - LOSS_KINDS as u64);
    }
}
