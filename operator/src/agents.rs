//! The agents' DaemonSet: one for all probes, on the union of the nodes that they select.
//!
//! One DaemonSet in the operator's namespace, since a cluster-scoped resource cannot own a namespaced object, and
//! since one agent per node measures for all probes. No probe: no DaemonSet.
//!
//! Needs get, list, watch, create, patch and delete on daemonsets in the operator's namespace.

mod apply;
mod error;
mod plan;
mod settings;

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client, runtime::watcher};

pub use apply::Done;
pub use error::Error;
pub use plan::{Plan, Settings, desired, plan};
pub use settings::{AgentSettings, SettingsError};

use crate::inventory::Probe;

/// Name of the DaemonSet.
pub const NAME: &str = "maplatency-agent";

/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// Which DaemonSets to watch.
pub fn watched() -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={NAME}"))
}

/// Keeps the DaemonSet in line.
#[derive(Clone)]
pub struct Agents {
    client: Client,
    settings: Settings,
    /// What was applied last. A field that the operator no longer sets shows only against this.
    applied: Option<DaemonSet>,
    pause: Duration,
}

impl Agents {
    /// Nothing is applied yet.
    pub fn new(client: Client, settings: Settings) -> Self {
        Self {
            client,
            settings,
            applied: None,
            pause: PAUSES.0,
        }
    }

    /// DaemonSets of the operator's namespace.
    pub fn api(&self) -> Api<DaemonSet> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }

    /// What holds for every agent.
    pub fn settings(&self) -> &AgentSettings {
        &self.settings.agents
    }

    /// Brings the DaemonSet in line with the probes. `None` when it is.
    pub async fn reconcile<'a>(
        &mut self,
        probes: impl Iterator<Item = &'a Probe>,
        observed: Option<&DaemonSet>,
    ) -> Result<Option<Done>, Error> {
        let desired = desired(&self.settings, probes);
        let plan = plan(desired, self.applied.as_ref(), observed);
        let done = apply::apply(&self.api(), &plan).await?;
        match plan {
            Plan::Keep => (),
            Plan::Apply(set) => self.applied = Some(*set),
            Plan::Delete => self.applied = None,
        }
        self.pause = PAUSES.0;
        Ok(done)
    }

    /// How long to wait after a failure: longer with each one in a row.
    pub fn backoff(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES.1);
        pause
    }
}
