//! Events. Those that are alike are counted on one, and those that say something else stand beside it.
//!
//! [`Recorder`] takes two events for alike that differ in their note alone, and keeps the first note for six minutes. So
//! there is one for each note.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, Recorder, Reporter};

/// Who reports.
const CONTROLLER: &str = "maplatency-operator";
/// Objects and reasons whose last note is remembered. Of others it is told again.
const REMEMBERED: usize = 4096;

/// Writes events.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct News {
    client: Client,
    told: Mutex<HashMap<Key, Told>>,
}

/// The object's kind, its uid or name, and the reason.
type Key = (String, String, String);

struct Told {
    note: Option<String>,
    recorder: Recorder,
    at: Instant,
}

impl News {
    /// Nothing told yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            told: Mutex::default(),
        }
    }

    /// Writes an event, or counts it on the one before.
    pub async fn publish(&self, event: &Event, about: &ObjectReference) -> Result<(), kube::Error> {
        self.recorder(event, about).publish(event, about).await
    }

    fn recorder(&self, event: &Event, about: &ObjectReference) -> Recorder {
        let which = about.uid.clone().or_else(|| about.name.clone());
        let kind = about.kind.clone().unwrap_or_default();
        let key = (kind, which.unwrap_or_default(), event.reason.clone());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = told.get_mut(&key).filter(|it| it.note == event.note) {
            last.at = Instant::now();
            return last.recorder.clone();
        }
        if told.len() >= REMEMBERED {
            let oldest = told.iter().min_by_key(|it| it.1.at);
            if let Some(oldest) = oldest.map(|it| it.0.clone()) {
                told.remove(&oldest);
            }
        }
        let recorder = Recorder::new(self.client.clone(), Reporter::from(CONTROLLER));
        let last = Told {
            note: event.note.clone(),
            recorder: recorder.clone(),
            at: Instant::now(),
        };
        told.insert(key, last);
        recorder
    }
}
