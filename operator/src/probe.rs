//! One probe: from what its agents measured to its status.
//!
//! Reconciled on every change of the probe, after every placement, and once a second. Most visits find that
//! nothing changed or that it is too early to write, and cost a look into a table ([`pace`]).
//!
//! Needs list and watch on `maplatencyprobes`, patch on `maplatencyprobes/status`, and create and patch on events of
//! events.k8s.io in the namespace `default`, where those of cluster-scoped objects belong.

mod error;
mod events;
mod pace;
mod status;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt as _};
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus};
use maplatency_proto::MAX_RECONNECT_WAIT;
use tracing::{debug, info, instrument, warn};

pub use error::Error;
use pace::Pace;
pub use status::{Finding, compute};

use crate::chain::chain;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::news::News;

/// Between two visits while agents report.
const VISIT: Duration = Duration::from_secs(1);
/// Until the placement of a change that the probe's own watch told first.
const PLACEMENT: Duration = Duration::from_millis(100);
/// How long agents have to come back after a start, before a status that an earlier operator wrote is replaced
/// by one that lacks them: the longest wait of an agent, and time to connect and report.
const SETTLE: Duration = MAX_RECONNECT_WAIT.saturating_add(Duration::from_secs(5));

/// What a reconcile works with.
pub struct Context {
    client: Client,
    fleet: Arc<Fleet>,
    /// Every probe that there is.
    probes: Store<MapLatencyProbe>,
    news: News,
    metrics: Arc<Metrics>,
    started: Instant,
    /// By uid.
    paces: Mutex<HashMap<String, Pace>>,
}

impl Context {
    /// Begins now.
    pub fn new(
        client: Client,
        fleet: Arc<Fleet>,
        metrics: Arc<Metrics>,
        probes: Store<MapLatencyProbe>,
    ) -> Self {
        Self {
            news: News::new(client.clone()),
            metrics,
            client,
            fleet,
            probes,
            started: Instant::now(),
            paces: Mutex::new(HashMap::new()),
        }
    }

    fn paces(&self) -> MutexGuard<'_, HashMap<String, Pace>> {
        self.paces.lock().expect("no use of a pace panics")
    }

    /// The probe's pace. Those of deleted probes go when there are many.
    fn pace(&self, uid: &str) -> Pace {
        let mut paces = self.paces();
        if paces.len() > 2 * self.probes.len() + 16 {
            let probes = self.probes.state();
            let there = |uid: &String| {
                probes
                    .iter()
                    .any(|it| it.metadata.uid.as_ref() == Some(uid))
            };
            paces.retain(|uid, _| there(uid));
        }
        paces.entry(uid.to_owned()).or_default().clone()
    }

    fn keep_pace(&self, uid: &str, pace: Pace) {
        self.paces().insert(uid.to_owned(), pace);
    }
}

/// Brings the status of one probe up to date. I/O happens only in [`write`] and [`events`].
#[instrument(skip_all, fields(probe = %probe.name_any()))]
pub async fn reconcile(probe: Arc<MapLatencyProbe>, ctx: Arc<Context>) -> Result<Action, Error> {
    let now = Instant::now();
    let (Some(uid), Some(generation)) = (probe.uid(), probe.metadata.generation) else {
        return Ok(Action::await_change());
    };
    // While this operator ends its agents go, which is nothing to tell: the next one has them in a moment.
    if probe.metadata.deletion_timestamp.is_some() || ctx.fleet.is_closed() {
        return Ok(Action::await_change());
    }
    let mut pace = ctx.pace(&uid);
    let version = ctx.fleet.version();
    if !pace.is_worth_a_look(generation, version, now) {
        return Ok(Action::requeue(VISIT));
    }
    let finding = match probe.spec.check() {
        // Retrying cannot mend a bad spec, so it becomes a condition and not an error.
        Err(invalid) => Finding::Invalid(invalid),
        Ok(_) => match ctx.fleet.view(&uid, generation, now) {
            Some(view) => Finding::Placed(view),
            None => return Ok(Action::requeue(PLACEMENT)),
        },
    };
    pace.looked(version, now);
    let settling = now.duration_since(ctx.started) < SETTLE;
    let status = compute(&probe, &finding, &seconds(Timestamp::now()));
    let news = match &probe.status {
        Some(before) if status::differs_in_cost_alone(before, &status) => pace.may_write_costs(now),
        before => before.as_ref() != Some(&status),
    };
    let told_by_another = status::continues(&probe) && !pace.has_answered(generation);
    let held_back = settling && told_by_another && finding.lacks_agents();
    if !held_back {
        ctx.metrics.computed(&probe, &status);
    }
    if news && !held_back && pace.may_write(&status, now) {
        tell(&probe, &status);
        let stands = write::patch(&ctx.client, &probe, &status).await?;
        pace.wrote(&status, now);
        if stands {
            ctx.metrics.wrote_status();
            publish(&ctx, &probe, &status).await;
        }
    }
    ctx.keep_pace(&uid, pace);
    Ok(Action::requeue(VISIT))
}

/// Tells what a status that was written has brought. What fails here is not worth another status.
async fn publish(ctx: &Context, probe: &MapLatencyProbe, status: &MapLatencyProbeStatus) {
    for event in events::transitions(probe.status.as_ref(), status) {
        if let Err(failure) = events::publish(&ctx.news, probe, &event).await {
            ctx.metrics.failed("event", failure.class());
            warn!(error = chain(&failure), "Could not write an event");
        }
    }
}

/// What to do after a failure.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the controller calls it like this"
)]
pub fn on_error(probe: Arc<MapLatencyProbe>, failure: &Error, ctx: Arc<Context>) -> Action {
    ctx.metrics.failed("probe", failure.class());
    warn!(
        probe = %probe.name_any(),
        class = failure.class(),
        error = chain(failure),
        "Could not reconcile; trying again"
    );
    Action::requeue(Duration::from_secs(5))
}

/// Conditions that change are worth a line, figures are not.
fn tell(probe: &MapLatencyProbe, status: &MapLatencyProbeStatus) {
    let before = probe.status.iter().flat_map(|it| &it.conditions);
    let verdict = status::ready(&status.conditions);
    if status::ready(before) == verdict {
        debug!(
            generation = status.observed_generation,
            "Writing new figures"
        );
    } else {
        let (ready, reason) = verdict.unwrap_or_default();
        info!(
            ready,
            reason,
            generation = status.observed_generation,
            "Writing a new condition"
        );
    }
}

/// Times of conditions are in whole seconds.
fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
