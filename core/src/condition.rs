//! Conditions, by the Kubernetes API conventions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Sums up the other two.
pub const READY: &str = "Ready";
/// Whether every selected node has an agent that runs the current generation.
pub const AGENTS_READY: &str = "AgentsReady";
/// Whether at least one map matches.
pub const MAPS_FOUND: &str = "MapsFound";

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}

impl Truth {
    const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition before it has a time: what holds, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The condition's type, such as [`READY`].
    pub kind: &'static str,
    /// Whether it holds.
    pub truth: Truth,
    /// One word for machines.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// Gives verdicts their times. A condition keeps its transition time for as long as its status stays the same.
pub fn conditions(
    verdicts: impl IntoIterator<Item = Verdict>,
    previous: &[Condition],
    observed_generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|verdict| {
            let status = verdict.truth.as_str();
            let last_transition_time = previous
                .iter()
                .find(|it| it.type_ == verdict.kind && it.status == status)
                .map_or_else(|| now.clone(), |it| it.last_transition_time.clone());
            Condition {
                type_: verdict.kind.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.to_owned(),
                message: verdict.message,
                observed_generation,
                last_transition_time,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn verdict(truth: Truth, message: &str) -> Verdict {
        Verdict {
            kind: READY,
            truth,
            reason: "Because",
            message: message.to_owned(),
        }
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn a_transition_time_moves_only_when_the_status_flips() {
        let first = conditions([verdict(Truth::Unknown, "a")], &[], Some(1), &at(10));
        let same = conditions([verdict(Truth::Unknown, "b")], &first, Some(1), &at(20));
        let flipped = conditions([verdict(Truth::True, "c")], &same, Some(1), &at(30));

        assert_eq!(same[0].last_transition_time, at(10));
        assert_eq!(same[0].message, "b");
        assert_eq!(flipped[0].last_transition_time, at(30));
    }
}
