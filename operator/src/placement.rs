//! Decides which nodes measure what, and keeps agents on exactly those nodes.
//!
//! Flow: watch events → [`Inventory`] → [`place`] → assignments to live agents through the [`Fleet`], and the
//! nodes that need an agent to [`crate::agents`]. Deletions count as well, so this is a loop over watches and not
//! a `Controller`, which reconciles only objects that exist.
//!
//! Needs list and watch on nodes, `maplatencyprobes`, and on daemonsets in the operator's namespace.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{Config, Error as WatchError, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use maplatency_core::MapLatencyProbe;
use maplatency_core::validate::selects;
use maplatency_proto::AssignedProbe;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use crate::agents::{self, AgentSettings, Agents};
use crate::chain::chain;
use crate::fleet::{Fleet, Placement, Placements};
use crate::inventory::{Change, Inventory, Labels, Life, Probe};
use crate::metrics::Metrics;

/// Changes come in bursts; one placement answers all of a burst.
const BURST: Duration = Duration::from_millis(30);
/// How often agents that are gone are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// A watch never ends by itself.
#[derive(Debug, thiserror::Error)]
#[error("a watch of the cluster ended")]
pub struct WatchEnded;

/// Runs for as long as the process. Counts in `placed` how often it has placed.
pub async fn run(
    client: Client,
    fleet: &Fleet,
    mut agents: Agents,
    class_label: &str,
    metrics: &Metrics,
    placed: watch::Sender<u64>,
) -> Result<Infallible, WatchEnded> {
    let mut probes = pin!(events::<MapLatencyProbe>(
        Api::all(client.clone()),
        Config::default()
    ));
    let mut nodes = pin!(events::<PartialObjectMeta<Node>>(
        Api::all(client.clone()),
        Config::default()
    ));
    let mut daemons = pin!(events::<DaemonSet>(agents.api(), agents::watched()));
    let mut sweeps = tokio::time::interval(SWEEP);
    let mut inventory = Inventory::default();
    let mut due: Option<Instant> = None;
    loop {
        let change = tokio::select! {
            event = probes.next() => heard("probes", event)?.map(|it| inventory.probe(it)),
            event = nodes.next() => heard("nodes", event)?.map(|it| inventory.node(it)),
            event = daemons.next() => heard("agents", event)?.map(|it| inventory.agents(it)),
            _ = sweeps.tick() => {
                fleet.sweep(std::time::Instant::now());
                None
            }
            () = at(due) => {
                due = step(&inventory, fleet, &mut agents, class_label, metrics, &placed).await;
                None
            }
        };
        if change == Some(Change::Some) {
            // A repetition that waits for its time must not hold back an answer to news.
            let soon = Instant::now() + BURST;
            due = Some(due.map_or(soon, |it| it.min(soon)));
        }
    }
}

/// One placement. Returns when to try again, if something could not be done.
async fn step(
    inventory: &Inventory,
    fleet: &Fleet,
    agents: &mut Agents,
    class_label: &str,
    metrics: &Metrics,
    placed: &watch::Sender<u64>,
) -> Option<Instant> {
    let (probes, nodes) = (inventory.probes.complete()?, inventory.nodes.complete()?);
    metrics.keep_only(|name| probes.contains_key(name));
    fleet.classify(classes(nodes, class_label));
    fleet.place(place(probes, nodes, agents.settings()));
    placed.send_modify(|it| *it += 1);
    // Agents that run are served first; where they run may take the API server a while.
    let deployed = inventory.agents.complete()?.values().next();
    fleet.deployed(deployed.map(|it| it.rollout));
    let observed = deployed.map(|it| &it.set);
    match agents.reconcile(probes.values(), observed).await {
        Ok(None) => None,
        Ok(Some(done)) => {
            info!(?done, "Brought the agents' DaemonSet in line");
            None
        }
        Err(failure) => {
            let again = agents.backoff();
            metrics.failed("agents", failure.class());
            error!(
                error = chain(&failure),
                class = failure.class(),
                again = %humantime::format_duration(again),
                "Could not bring the agents' DaemonSet in line"
            );
            Some(Instant::now() + again)
        }
    }
}

/// Where every valid probe is measured. One that is invalid, or being deleted, is measured nowhere, and on nodes that
/// can have no agent nothing is.
pub fn place(
    probes: &BTreeMap<String, Probe>,
    nodes: &BTreeMap<String, Labels>,
    settings: &AgentSettings,
) -> Placements {
    probes
        .iter()
        .filter(|(_, it)| it.life == Life::Live)
        .filter_map(|(name, probe)| {
            let checked = probe.spec.check().ok()?;
            let placement = Placement {
                window: checked.window,
                nodes: nodes
                    .iter()
                    .filter(|(_, labels)| {
                        selects(probe.spec.node_selector.as_ref(), labels)
                            && settings.allows(labels)
                    })
                    .map(|(node, _)| node.clone())
                    .collect(),
                probe: AssignedProbe {
                    name: name.clone(),
                    uid: probe.uid.clone(),
                    generation: probe.generation,
                    spec: probe.spec.clone(),
                },
            };
            Some((probe.uid.clone(), placement))
        })
        .collect()
}

/// The nodes that have the label, with its value.
fn classes(nodes: &BTreeMap<String, Labels>, label: &str) -> BTreeMap<String, String> {
    nodes
        .iter()
        .filter_map(|(node, labels)| Some((node.clone(), labels.get(label)?.clone())))
        .collect()
}

fn events<K>(api: Api<K>, config: Config) -> impl Stream<Item = Result<Event<K>, WatchError>>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    watcher(api, config).default_backoff()
}

/// A watch that fails begins again by itself, later and later.
fn heard<K>(
    of: &'static str,
    event: Option<Result<Event<K>, WatchError>>,
) -> Result<Option<Event<K>>, WatchEnded> {
    match event.ok_or(WatchEnded)? {
        Ok(event) => Ok(Some(event)),
        Err(failure) => {
            warn!(of, error = chain(&failure), "Could not watch; trying again");
            Ok(None)
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maplatency_core::MapLatencyProbeSpec;

    fn probe(uid: &str, spec: &str) -> Probe {
        let spec: MapLatencyProbeSpec = serde_yaml::from_str(spec).unwrap();
        Probe {
            uid: uid.to_owned(),
            generation: 1,
            spec,
            life: Life::Live,
        }
    }

    fn nodes() -> BTreeMap<String, Labels> {
        [("a", "blue"), ("b", "green"), ("c", "blue")]
            .into_iter()
            .map(|(name, pool)| {
                let labels = Labels::from([("pool".to_owned(), pool.to_owned())]);
                (name.to_owned(), labels)
            })
            .collect()
    }

    const BLUE: &str = "{maps: [{names: ['*']}], nodeSelector: {matchLabels: {pool: blue}}}";

    #[test]
    fn a_probe_is_measured_on_the_nodes_that_it_selects() {
        let probes = BTreeMap::from([("p".to_owned(), probe("u", BLUE))]);

        let placements = place(&probes, &nodes(), &AgentSettings::default());

        let nodes: Vec<&str> = placements["u"].nodes.iter().map(String::as_str).collect();
        assert_eq!(nodes, ["a", "c"]);
        assert_eq!(placements["u"].probe.name, "p");
        assert_eq!(placements["u"].window, Duration::from_mins(1));
    }

    #[test]
    fn a_probe_that_is_invalid_or_being_deleted_is_measured_nowhere() {
        let invalid = probe("u1", "{maps: [{names: ['*']}], activeReads: {cpus: 3-1}}");
        let mut deleting = probe("u2", BLUE);
        deleting.life = Life::Deleting;
        let probes = BTreeMap::from([("a".to_owned(), invalid), ("b".to_owned(), deleting)]);

        assert_eq!(
            place(&probes, &nodes(), &AgentSettings::default()),
            Placements::new()
        );
    }

    #[test]
    fn a_node_that_can_have_no_agent_is_not_missed() {
        let probes = BTreeMap::from([(
            "p".to_owned(),
            probe(
                "u",
                "{maps: [{ids: [1]}], nodeSelector: {matchExpressions: [{key: pool, operator: Exists}]}}",
            ),
        )]);
        let settings =
            serde_yaml::from_str("{nodes: [{key: pool, operator: NotIn, values: [blue]}]}")
                .unwrap();

        let placements = place(&probes, &nodes(), &settings);

        let nodes: Vec<&str> = placements["u"].nodes.iter().map(String::as_str).collect();
        assert_eq!(nodes, ["b"]);
    }
}
