//! Events about a probe: one for each transition of a condition, none for figures.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType};
use maplatency_core::condition::{AGENTS_READY, READY};
use maplatency_core::objectives::OBJECTIVES_MET;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus};
use tokio::time::timeout;

use super::Error;
use crate::news::News;

/// What was done, as events say it.
const ACTION: &str = "Reconcile";
/// Longest note that the API takes, in bytes.
const NOTE: usize = 1024;
/// An event is not worth more.
const LIMIT: Duration = Duration::from_secs(5);

/// The events of a step from one status to the next.
///
/// `Ready` tells why it changed, so that a change of `AgentsReady` is told only where it is something else. What is not
/// known yet is no event, and neither is another reason for what has been told. Objectives are told for themselves.
pub(super) fn transitions(
    before: Option<&MapLatencyProbeStatus>,
    now: &MapLatencyProbeStatus,
) -> Vec<Event> {
    let before = before.map_or(&[][..], |it| &it.conditions);
    let mut events: Vec<Event> = Vec::new();
    for kind in [READY, AGENTS_READY, OBJECTIVES_MET] {
        let Some(condition) = find(&now.conditions, kind) else {
            continue;
        };
        let type_ = match condition.status.as_str() {
            "True" => EventType::Normal,
            _ => EventType::Warning,
        };
        let before = find(before, kind);
        let is_news = if kind == OBJECTIVES_MET {
            // That all is well is news only after it was not.
            is_news(before, condition)
                && (before.is_some_and(|it| it.status == "False") || condition.status == "False")
        } else {
            // What makes a probe ready or not is told once.
            is_news(before, condition) && !events.iter().any(|it| it.type_ == type_)
        };
        if is_news {
            events.push(Event {
                type_,
                reason: condition.reason.clone(),
                note: Some(truncated(&condition.message)),
                action: ACTION.to_owned(),
                secondary: None,
            });
        }
    }
    events
}

/// Writes one event.
pub(super) async fn publish(
    news: &News,
    probe: &MapLatencyProbe,
    event: &Event,
) -> Result<(), Error> {
    let reference = probe.object_ref(&());
    let name = probe.metadata.name.clone().unwrap_or_default();
    match timeout(LIMIT, news.publish(event, &reference)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(Error::Event {
            probe: name,
            source,
        }),
        Err(_) => Err(Error::EventTimeout { probe: name }),
    }
}

/// A status that flipped; what was unknown before counts as not so. A new spec that is as invalid as the one before is
/// answered all the same.
fn is_news(before: Option<&Condition>, now: &Condition) -> bool {
    if now.status == "Unknown" {
        return false;
    }
    let Some(before) = before else { return true };
    let same_spec = before.observed_generation == now.observed_generation;
    before.status != now.status
        || !same_spec && now.status == "False" && before.message != now.message
}

fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|it| it.type_ == kind)
}

fn truncated(text: &str) -> String {
    if text.len() <= NOTE {
        return text.to_owned();
    }
    let mut end = NOTE - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    fn status(conditions: &[(&str, &str, &str, &str)], generation: i64) -> MapLatencyProbeStatus {
        let conditions = conditions
            .iter()
            .map(|(kind, status, reason, message)| Condition {
                type_: (*kind).to_owned(),
                status: (*status).to_owned(),
                reason: (*reason).to_owned(),
                message: (*message).to_owned(),
                observed_generation: Some(generation),
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
            });
        MapLatencyProbeStatus {
            conditions: conditions.collect(),
            ..MapLatencyProbeStatus::default()
        }
    }

    fn told(before: Option<&MapLatencyProbeStatus>, now: &MapLatencyProbeStatus) -> Vec<String> {
        transitions(before, now)
            .into_iter()
            .map(|it| it.reason)
            .collect()
    }

    #[test]
    fn an_event_comes_with_a_flip_and_not_again() {
        let waiting = status(&[(READY, "Unknown", "AwaitingAgents", "")], 1);
        let measuring = status(
            &[
                (READY, "True", "Measuring", "3 of 3"),
                (AGENTS_READY, "True", "AllNodesMeasure", "3 of 3"),
            ],
            1,
        );
        let more = status(
            &[
                (READY, "True", "Measuring", "4 of 4"),
                (AGENTS_READY, "True", "AllNodesMeasure", "4 of 4"),
            ],
            1,
        );
        let missing = status(
            &[
                (READY, "False", "NodesMissing", "a"),
                (AGENTS_READY, "False", "NodesMissing", "a"),
            ],
            1,
        );
        let none: [&str; 0] = [];
        assert_eq!(told(None, &waiting), none);
        assert_eq!(told(Some(&waiting), &measuring), ["Measuring"]);
        assert_eq!(told(Some(&measuring), &measuring), none);
        assert_eq!(told(Some(&measuring), &more), none);
        assert_eq!(told(Some(&more), &missing), ["NodesMissing"]);
        assert_eq!(told(Some(&missing), &missing), none);
        assert_eq!(told(Some(&missing), &more), ["Measuring"]);
    }

    #[test]
    fn agents_that_are_back_are_told_though_the_probe_is_not_ready_for_another_reason() {
        let before = status(
            &[
                (READY, "False", "NodesMissing", "a"),
                (AGENTS_READY, "False", "NodesMissing", "a"),
            ],
            1,
        );
        let now = status(
            &[
                (READY, "False", "NoMapMatches", "no map"),
                (AGENTS_READY, "True", "AllNodesMeasure", "all"),
            ],
            1,
        );
        assert_eq!(told(Some(&before), &now), ["AllNodesMeasure"]);
    }

    #[test]
    fn a_breach_and_its_end_are_told_and_a_good_start_is_not() {
        let with = |objectives: &'static str, reason| {
            let ready = (READY, "True", "Measuring", "");
            status(&[ready, (OBJECTIVES_MET, objectives, reason, "")], 1)
        };
        let met = with("True", "ObjectivesMet");
        let nothing = with("Unknown", "NoOperations");
        let breached = with("False", "ObjectiveBreached");
        let none: [&str; 0] = [];
        assert_eq!(told(None, &met), ["Measuring"]);
        assert_eq!(told(None, &breached), ["Measuring", "ObjectiveBreached"]);
        assert_eq!(told(Some(&nothing), &met), none);
        assert_eq!(told(Some(&met), &breached), ["ObjectiveBreached"]);
        assert_eq!(told(Some(&breached), &breached), none);
        assert_eq!(told(Some(&breached), &met), ["ObjectivesMet"]);
        assert_eq!(told(Some(&breached), &nothing), none);
    }

    #[test]
    fn each_invalid_spec_is_answered_once() {
        let one = status(&[(READY, "False", "InvalidSpec", "one")], 1);
        let other = status(&[(READY, "False", "InvalidSpec", "other")], 2);
        let none: [&str; 0] = [];
        assert_eq!(told(None, &one), ["InvalidSpec"]);
        assert_eq!(told(Some(&one), &one), none);
        assert_eq!(told(Some(&one), &other), ["InvalidSpec"]);
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let long = "é".repeat(600);
        let note = truncated(&long);
        assert!(note.len() <= NOTE && note.ends_with('…'));
        assert_eq!(truncated("short"), "short");
    }
}
