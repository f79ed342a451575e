//! Holds what was measured against the objectives of a spec.
//!
//! Each node counts for itself: in the figures of a whole cluster one slow node among many would not show.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::condition::{Truth, Verdict};
use crate::crd::MapLatencyProbeStatus;
use crate::crd::objectives::{Objective, ObjectiveLatency, ObjectiveState, ObjectiveStatus};
use crate::histogram::Histogram;
use crate::node_window::NodeWindow;
use crate::units;
use crate::vocabulary::Latency;

/// The type of the condition that sums up all objectives.
pub const OBJECTIVES_MET: &str = "ObjectivesMet";

/// How each objective is. `previous` is how they were: an objective keeps its time while its state lasts, and is breached once
/// it was pending for long enough.
pub fn evaluate(
    objectives: &[Objective],
    windows: &[NodeWindow],
    previous: &[ObjectiveStatus],
    now: &Time,
) -> Vec<ObjectiveStatus> {
    objectives
        .iter()
        .map(|objective| {
            let before = previous.iter().find(|it| it.name == objective.name);
            status(objective, windows, before, now)
        })
        .collect()
}

fn status(
    objective: &Objective,
    windows: &[NodeWindow],
    before: Option<&ObjectiveStatus>,
    now: &Time,
) -> ObjectiveStatus {
    let nodes = by_node(objective, windows);
    let above = nodes.values().filter(|it| **it > threshold(objective));
    let nodes_above = i32::try_from(above.count()).unwrap_or(i32::MAX);
    let highest = nodes.iter().max_by_key(|(_, it)| **it);
    let patience = Duration::from_secs(u64::try_from(objective.for_seconds).unwrap_or_default());
    let state = match (highest, nodes_above) {
        (None, _) => ObjectiveState::NoOperations,
        (_, 0) => ObjectiveState::Met,
        _ if patience.is_zero() => ObjectiveState::Breached,
        _ => match before.map(|it| (it.state, lasted(it, now))) {
            Some((ObjectiveState::Breached, _)) => ObjectiveState::Breached,
            Some((ObjectiveState::Pending, lasted)) if lasted >= patience => {
                ObjectiveState::Breached
            }
            _ => ObjectiveState::Pending,
        },
    };
    ObjectiveStatus {
        name: objective.name.clone(),
        state,
        since_time: before
            .filter(|it| it.state == state)
            .map_or(now, |it| &it.since_time)
            .clone(),
        highest_nanoseconds: highest.map(|(_, it)| i64::try_from(*it).unwrap_or(i64::MAX)),
        node: highest.map(|(node, _)| (*node).to_owned()),
        nodes_above,
    }
}

/// The percentile on each node that has one. Of an agent that has restarted there are several windows.
fn by_node<'a>(objective: &Objective, windows: &'a [NodeWindow]) -> BTreeMap<&'a str, u64> {
    let mut nodes: BTreeMap<&str, Histogram> = BTreeMap::new();
    for window in windows {
        for (key, counts) in &window.rows {
            if key.operation == objective.operation {
                let histogram = match objective.latency {
                    ObjectiveLatency::UntilUser => &counts.until_user,
                    ObjectiveLatency::KernelWindow => &counts.kernel_window,
                };
                nodes.entry(&window.node).or_default().merge(histogram);
            }
        }
    }
    nodes
        .into_iter()
        .filter_map(|(node, it)| Some((node, it.percentile(objective.percentile)?)))
        .collect()
}

/// In nanoseconds.
fn threshold(objective: &Objective) -> u64 {
    let microseconds = u64::try_from(objective.threshold_microseconds).unwrap_or_default();
    microseconds.saturating_mul(1_000)
}

fn lasted(status: &ObjectiveStatus, now: &Time) -> Duration {
    let lasted = now.0.duration_since(status.since_time.0);
    Duration::try_from(lasted).unwrap_or_default()
}

/// [`OBJECTIVES_MET`], where there are objectives.
pub fn verdict(objectives: &[Objective], states: &[ObjectiveStatus]) -> Option<Verdict> {
    let of = |state| {
        let each = objectives.iter().zip(states);
        each.filter(move |(_, it)| it.state == state)
    };
    if states.is_empty() {
        return None;
    }
    let verdict = |truth, reason, parts: Vec<String>| {
        Some(Verdict::new(
            OBJECTIVES_MET,
            truth,
            reason,
            parts.join("; "),
        ))
    };
    let breached: Vec<String> = of(ObjectiveState::Breached)
        .map(|(objective, it)| above(objective, it))
        .collect();
    if !breached.is_empty() {
        return verdict(Truth::False, "ObjectiveBreached", breached);
    }
    let names: Vec<&str> = of(ObjectiveState::NoOperations)
        .map(|(it, _)| it.name.as_str())
        .collect();
    let nothing = format!("no operation in the window: {}", names.join(", "));
    if names.len() == states.len() {
        return verdict(Truth::Unknown, "NoOperations", vec![nothing]);
    }
    let met = of(ObjectiveState::Met).count();
    let mut parts = vec![format!("{met} of {} met", states.len())];
    parts.extend(of(ObjectiveState::Pending).map(|(objective, it)| {
        let patience = objective.for_seconds;
        format!("{}, not for {patience}s yet", above(objective, it))
    }));
    parts.extend((!names.is_empty()).then_some(nothing));
    verdict(Truth::True, "ObjectivesMet", parts)
}

/// What is above which threshold, and where.
fn above(objective: &Objective, status: &ObjectiveStatus) -> String {
    let highest = u64::try_from(status.highest_nanoseconds.unwrap_or_default()).unwrap_or_default();
    let more = match status.nodes_above {
        ..2 => String::new(),
        nodes => format!(" and {} more", nodes - 1),
    };
    format!(
        "{}: {} is {} on {}{more}, above {}",
        objective.name,
        wanted(objective),
        units::duration(highest),
        status.node.as_deref().unwrap_or_default(),
        units::duration(threshold(objective)),
    )
}

/// What an objective is about, such as `P99 of Lookup until user`.
pub fn wanted(objective: &Objective) -> String {
    format!(
        "{} of {} {}",
        objective.percentile.as_str(),
        objective.operation,
        Latency::from(objective.latency)
    )
}

impl MapLatencyProbeStatus {
    /// With these objectives, and in the summary the worst of their states.
    #[must_use]
    pub fn with_objectives(mut self, objectives: Vec<ObjectiveStatus>) -> Self {
        let worst = objectives.iter().map(|it| it.state).min();
        self.summary.objectives = worst.map(|it| it.as_str().to_owned());
        self.objectives = objectives;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    use crate::measure::{Counts, SeriesKey};
    use crate::vocabulary::{Operation, Outcome};

    fn objective(yaml: &str) -> Objective {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn reads(for_seconds: i64) -> Objective {
        objective(&format!(
            "{{name: reads, operation: Lookup, thresholdMicroseconds: 200, forSeconds: {for_seconds}}}"
        ))
    }

    /// A window of a node with lookups of these latencies until user mode, half of them in the kernel.
    fn window(node: &str, nanoseconds: &[u64]) -> NodeWindow {
        let key = SeriesKey {
            map_id: 7,
            operation: Operation::Lookup,
            cpu: 0,
            outcome: Outcome::Success,
        };
        let counts = Counts {
            until_user: nanoseconds.iter().copied().collect(),
            kernel_window: nanoseconds.iter().map(|it| it / 2).collect(),
            ..Counts::default()
        };
        NodeWindow {
            node: node.to_owned(),
            boot_id: String::new(),
            maps: vec![],
            gone: vec![],
            span: Duration::from_mins(1),
            rows: [(key, counts)].into(),
            sampling: 1,
            worst: [].into(),
            callers: vec![],
            spikes: vec![],
            outliers: None,
            exact: vec![],
            losses: [].into(),
        }
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    const FAST: [u64; 3] = [500, 600, 700];
    const SLOW: [u64; 3] = [500, 600, 4_000_000];

    fn told(objectives: &[Objective], states: &[ObjectiveStatus]) -> (Truth, &'static str, String) {
        let it = verdict(objectives, states).unwrap();
        assert_eq!(it.kind, OBJECTIVES_MET);
        (it.truth, it.reason, it.message)
    }

    #[test]
    fn one_slow_node_among_many_breaches_an_objective() {
        let mut windows: Vec<_> = (0..500)
            .map(|it| window(&format!("n{it}"), &FAST))
            .collect();
        windows.push(window("slow", &SLOW));
        let objectives = [reads(0)];

        let states = evaluate(&objectives, &windows, &[], &at(5));

        assert_eq!(states[0].state, ObjectiveState::Breached);
        assert_eq!(states[0].node.as_deref(), Some("slow"));
        assert_eq!((states[0].nodes_above, &states[0].since_time), (1, &at(5)));
        let message = "reads: P99 of Lookup until user is 4.01ms on slow, above 200µs";
        let (truth, reason, said) = told(&objectives, &states);
        assert_eq!((truth, reason), (Truth::False, "ObjectiveBreached"));
        assert_eq!(said, message);
    }

    #[test]
    fn an_objective_is_breached_once_it_was_above_for_long_enough() {
        let objectives = [reads(30)];
        let mut states = vec![];
        let mut seen = vec![];
        // A fast second in between begins the wait anew.
        for (second, latencies) in [
            (0, &SLOW),
            (29, &SLOW),
            (30, &FAST),
            (31, &SLOW),
            (60, &SLOW),
            (61, &SLOW),
            (90, &SLOW),
            (91, &FAST),
        ] {
            states = evaluate(&objectives, &[window("a", latencies)], &states, &at(second));
            seen.push((states[0].state.as_str(), states[0].since_time.0.as_second()));
        }
        assert_eq!(
            seen,
            [
                ("Pending", 0),
                ("Pending", 0),
                ("Met", 30),
                ("Pending", 31),
                ("Pending", 31),
                ("Breached", 61),
                ("Breached", 61),
                ("Met", 91)
            ]
        );
    }

    #[test]
    fn pending_objectives_are_met_so_far_and_named() {
        let objectives = [reads(30)];
        let states = evaluate(
            &objectives,
            &[window("a", &SLOW), window("b", &SLOW)],
            &[],
            &at(0),
        );
        let (truth, _, message) = told(&objectives, &states);
        assert_eq!(truth, Truth::True);
        assert_eq!(
            message,
            "0 of 1 met; reads: P99 of Lookup until user is 4.01ms on b and 1 more, above 200µs, not for 30s yet"
        );
    }

    #[test]
    fn what_was_not_called_is_not_met_and_not_breached() {
        let updates = objective("{name: w, operation: Update, thresholdMicroseconds: 9}");
        let windows = [window("a", &FAST)];
        let alone = std::slice::from_ref(&updates);
        let states = evaluate(alone, &windows, &[], &at(0));
        assert_eq!(states[0].state, ObjectiveState::NoOperations);
        assert_eq!(states[0].highest_nanoseconds, None);
        let (truth, reason, message) = told(alone, &states);
        assert_eq!((truth, reason), (Truth::Unknown, "NoOperations"));
        assert_eq!(message, "no operation in the window: w");

        let both = [reads(0), updates];
        let states = evaluate(&both, &windows, &[], &at(0));
        let (truth, _, message) = told(&both, &states);
        assert_eq!(truth, Truth::True);
        assert_eq!(message, "1 of 2 met; no operation in the window: w");
        let summary = MapLatencyProbeStatus::default()
            .with_objectives(states)
            .summary;
        assert_eq!(summary.objectives.as_deref(), Some("NoOperations"));
        assert_eq!(verdict(&[], &[]), None);
    }

    #[test]
    fn the_latency_and_the_percentile_are_those_asked_for() {
        // In the kernel a read took half as long, so its maximum is 150 µs.
        let windows = [window("a", &[100_000, 100_000, 100_000, 300_000])];
        let state = |more: &str| {
            let yaml =
                format!("{{name: x, operation: Lookup, thresholdMicroseconds: 200, {more}}}");
            evaluate(&[objective(&yaml)], &windows, &[], &at(0))[0].state
        };
        assert_eq!(state("percentile: P99"), ObjectiveState::Breached);
        assert_eq!(state("percentile: P50"), ObjectiveState::Met);
        assert_eq!(state("latency: KernelWindow"), ObjectiveState::Met);
    }

    #[test]
    fn the_windows_of_a_restarted_agent_are_one() {
        // Of 101 reads one is slow: P99 is fast, though in the window with that one alone it is not.
        let windows = [window("a", &[1_000; 100]), window("a", &[4_000_000])];
        let states = evaluate(&[reads(0)], &windows, &[], &at(0));
        assert_eq!(states[0].state, ObjectiveState::Met);
    }
}
