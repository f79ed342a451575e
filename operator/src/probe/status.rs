//! The status of a probe: conditions with numbers, figures from the merge.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use maplatency_core::agents::agents_status;
use maplatency_core::condition::{
    self, AGENTS_READY, MAPS_FOUND, READY, Truth, Verdict, conditions,
};
use maplatency_core::crd::agents::{AgentsStatus, HighestCost};
use maplatency_core::crd::nodes::{NodeCounts, NodeNotReady, PartialWindow};
use maplatency_core::crd::objectives::ObjectiveStatus;
use maplatency_core::validate::InvalidSpec;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus, objectives, summary};

use crate::fleet::View;
use crate::inventory::Rollout;

/// Names and problems listed in a message; the rest is a number.
const LISTED: usize = 3;
/// Most kinds of loss that the schema allows.
const LOSS_KINDS: usize = 16;

/// Nodes kept in `status.nodes.notReady`.
const NODES: usize = 10;

/// Reason: the kernel refused the agent's programs.
const CANNOT_LOAD: &str = "CannotLoadProbes";
/// Reason: the selector matches nothing.
const NO_NODES: &str = "NoNodesSelected";

/// What a visit found.
#[derive(Debug)]
pub enum Finding {
    /// The spec has mistakes that the schema cannot see.
    Invalid(InvalidSpec),
    /// Agents are asked to measure.
    Placed(View),
}

impl Finding {
    /// Whether some node is selected that does not measure.
    pub(super) fn lacks_agents(&self) -> bool {
        match self {
            Self::Invalid(_) => false,
            Self::Placed(view) => view.ready() < view.selected,
        }
    }
}

/// Computes the status. The previous one only lends its times, by which an objective that stays above becomes a breached one,
/// and tells a loss of agents from a start without them.
pub fn compute(probe: &MapLatencyProbe, finding: &Finding, now: &Time) -> MapLatencyProbeStatus {
    let previous = probe.status.as_ref().map_or(&[][..], |it| &it.conditions);
    let generation = probe.metadata.generation;
    let verdicts = verdicts(finding, settled(previous, generation)).into_iter();
    let verdicts = verdicts.chain(shedding(finding));
    let objectives = objectives(probe, finding, now);
    let verdicts = verdicts.chain(objectives::verdict(probe.spec.objectives(), &objectives));
    let conditions = conditions(verdicts, previous, generation, now);
    match finding {
        Finding::Invalid(_) => summary::status(&[], NodeCounts::default(), conditions, generation),
        Finding::Placed(view) => {
            let mut status = summary::status(&view.windows, nodes(view), conditions, generation);
            // Agents of two versions may know more kinds together than one alone.
            status.losses.truncate(LOSS_KINDS);
            status.agents = agents_status(&view.agents);
            status.with_objectives(objectives)
        }
    }
}

/// How the objectives are. Those of another generation lend nothing: they may have meant something else.
fn objectives(probe: &MapLatencyProbe, finding: &Finding, now: &Time) -> Vec<ObjectiveStatus> {
    let previous = probe.status.as_ref().filter(|_| continues(probe));
    let previous = previous.map_or(&[][..], |it| &it.objectives);
    match finding {
        Finding::Invalid(_) => vec![],
        Finding::Placed(view) => {
            objectives::evaluate(probe.spec.objectives(), &view.windows, previous, now)
        }
    }
}

fn nodes(view: &View) -> NodeCounts {
    let entry = |name: &String, reason: &str| NodeNotReady {
        name: name.clone(),
        reason: reason.to_owned(),
        message: None,
        last_report_time: None,
    };
    let unable = view.unable.iter().map(|(name, problem)| NodeNotReady {
        message: Some(problem.clone()),
        ..entry(name, CANNOT_LOAD)
    });
    let stale = view.stale.iter().map(|(name, reported)| NodeNotReady {
        last_report_time: Some(MicroTime(*reported)),
        ..entry(name, "Stale")
    });
    let absent = view.absent.iter().map(|it| entry(it, "NoAgent"));
    let connected = view.connected.iter().map(|it| entry(it, "AwaitingReport"));
    let all = unable.chain(stale).chain(absent).chain(connected);
    NodeCounts {
        selected: count(view.selected),
        ready: count(view.ready()),
        missing: count(view.absent.len() + view.connected.len()),
        stale: count(view.stale.len()),
        unable: count(view.unable.len()),
        not_ready: all.take(NODES).collect(),
        partial_window: PartialWindow::of(&view.partial),
    }
}

/// Whether the status tells of the present generation already.
pub(super) fn continues(probe: &MapLatencyProbe) -> bool {
    let told = probe.status.as_ref().and_then(|it| it.observed_generation);
    told.is_some() && told == probe.metadata.generation
}

/// Whether nothing has changed but what agents cost, which changes all the time. Their first figures are news.
pub(super) fn differs_in_cost_alone(
    before: &MapLatencyProbeStatus,
    now: &MapLatencyProbeStatus,
) -> bool {
    let (Some(agents), Some(costs)) = (&before.agents, &now.agents) else {
        return false;
    };
    if agents.cost == costs.cost || agents.cost == HighestCost::default() {
        return false;
    }
    let mut updated = before.clone();
    updated.agents = Some(AgentsStatus {
        cost: costs.cost.clone(),
        ..agents.clone()
    });
    updated == *now
}

/// Status and reason of `Ready`.
pub(super) fn ready<'a>(
    conditions: impl IntoIterator<Item = &'a Condition>,
) -> Option<(&'a str, &'a str)> {
    conditions
        .into_iter()
        .find(|it| it.type_ == READY)
        .map(|it| (it.status.as_str(), it.reason.as_str()))
}

/// Whether agents of this generation were there, or known to be missing, before.
fn settled(previous: &[Condition], generation: Option<i64>) -> bool {
    previous.iter().any(|it| {
        it.type_ == AGENTS_READY
            && it.observed_generation == generation
            && it.status != "Unknown"
            && it.reason != NO_NODES
    })
}

fn verdicts(finding: &Finding, settled: bool) -> [Verdict; 3] {
    let [agents, maps] = match finding {
        Finding::Invalid(invalid) => {
            let why = "the spec is invalid, so no agent is asked to measure";
            return [
                Verdict::new(READY, Truth::False, "InvalidSpec", invalid.to_string()),
                Verdict::new(AGENTS_READY, Truth::Unknown, "InvalidSpec", why),
                Verdict::new(MAPS_FOUND, Truth::Unknown, "InvalidSpec", why),
            ];
        }
        Finding::Placed(view) => [agents_ready(view, settled), maps_found(view)],
    };
    [condition::ready(&agents, &maps), agents, maps]
}

/// What agents leave out to stay within their budgets.
fn shedding(finding: &Finding) -> Vec<Verdict> {
    match finding {
        Finding::Invalid(_) => vec![],
        Finding::Placed(view) => condition::shedding(&view.agents),
    }
}

fn agents_ready(view: &View, settled: bool) -> Verdict {
    let verdict = |truth, reason, message| Verdict::new(AGENTS_READY, truth, reason, message);
    if view.selected == 0 {
        let message = "no node of the cluster is selected; see spec.nodeSelector".to_owned();
        return verdict(Truth::False, NO_NODES, message);
    }
    let measuring = format!(
        "{} of {} {}",
        view.ready(),
        plural(view.selected, "node"),
        if view.selected == 1 {
            "measures"
        } else {
            "measure"
        }
    );
    let nobody_reports = view.unable.is_empty() && view.stale.is_empty();
    if view.ready() == 0 && nobody_reports && !settled {
        let (reason, lack) = if view.connected.is_empty() {
            (
                "AwaitingAgents",
                format!("agents on {}", list(&view.absent)),
            )
        } else {
            let from = list(&view.connected);
            (
                "AwaitingReports",
                format!("reports of this generation from {from}"),
            )
        };
        let message = format!("{measuring}; waiting for {lack}");
        return verdict(Truth::Unknown, reason, message);
    }
    let missing: BTreeSet<String> = view.absent.union(&view.connected).cloned().collect();
    let problems = view.problems.iter();
    let problems: Vec<String> = problems.map(|(node, it)| format!("{node}: {it}")).collect();
    let mut parts = vec![measuring];
    if !view.unable.is_empty() {
        let each = view.unable.iter();
        let each: Vec<String> = each.map(|(node, it)| format!("{node}: {it}")).collect();
        let nodes = plural(each.len(), "node");
        parts.push(format!("{nodes} cannot load probes: {}", list(&each)));
    }
    if !view.stale.is_empty() {
        let nodes: Vec<String> = view.stale.keys().cloned().collect();
        parts.push(format!("no report for two periods: {}", list(&nodes)));
    }
    if !missing.is_empty() {
        parts.push(format!("missing: {}{}", list(&missing), rollout(view)));
    }
    if !problems.is_empty() {
        parts.push(list(&problems));
    }
    let message = parts.join("; ");
    let reasons = [
        (view.unable.is_empty(), CANNOT_LOAD),
        (view.stale.is_empty(), "NodesStale"),
        (missing.is_empty(), "NodesMissing"),
        (problems.is_empty(), "AgentProblems"),
    ];
    match reasons.into_iter().find(|(is_fine, _)| !is_fine) {
        Some((_, reason)) => verdict(Truth::False, reason, message),
        None => verdict(Truth::True, "AllNodesMeasure", message),
    }
}

/// How far the agents' pods are, where that may be why some are missing.
fn rollout(view: &View) -> String {
    let Some(Rollout {
        desired,
        ready,
        updated,
    }) = view.rollout
    else {
        return String::new();
    };
    match (ready < desired, updated < desired) {
        (true, true) => format!(
            " (agents' DaemonSet: {ready} of {desired} pods ready, {updated} of the newest template)"
        ),
        (true, false) => format!(" (agents' DaemonSet: {ready} of {desired} pods ready)"),
        (false, _) => String::new(),
    }
}

fn maps_found(view: &View) -> Verdict {
    let unknown = |reason, message| Verdict::new(MAPS_FOUND, Truth::Unknown, reason, message);
    match (view.selected, view.ready()) {
        (0, _) => unknown(NO_NODES, "no node of the cluster is selected"),
        (_, 0) => unknown("AwaitingReports", "no node has reported which maps it has"),
        (_, ready) => condition::maps_found(&view.windows, &plural(ready, "node"), "spec.maps"),
    }
}

fn plural(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// The first few, and how many more.
fn list<'a, T>(items: T) -> String
where
    T: IntoIterator<Item = &'a String, IntoIter: ExactSizeIterator>,
{
    let items = items.into_iter();
    let more = items.len().saturating_sub(LISTED);
    let shown: Vec<&str> = items.take(LISTED).map(String::as_str).collect();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
