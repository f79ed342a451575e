//! The proof that an installation measures: a probe of its own, until its status has a latency.
//!
//! Needs get on nodes, and create, get and delete on `maplatencyprobes`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use maplatency_core::units;
use maplatency_core::vocabulary::Operation;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::args::TestArgs;
use crate::process::terminated;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// What deleting the probe may take in the end.
const CLEANING: Duration = Duration::from_secs(10);
/// Label by which a probe selects one node.
const HOST_NAME: &str = "kubernetes.io/hostname";

/// Proves it, and prints the latency. Fails with what the status says is missing.
pub fn run(args: &TestArgs) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()
        .context("could not start the runtime")?
        .block_on(prove(args))
}

async fn prove(args: &TestArgs) -> anyhow::Result<()> {
    let ended = terminated()?;
    let client = Client::try_default()
        .await
        .context("could not find an API server")?;
    let probes: Api<MapLatencyProbe> = Api::all(client.clone());
    let mut last = None;
    let outcome = tokio::select! {
        found = timeout(args.timeout, measure(client, &probes, args, &mut last)) => match found {
            Ok(measured) => measured,
            Err(_) => Err(anyhow::anyhow!(
                "no latency after {}; {}",
                humantime::format_duration(args.timeout),
                told(last.as_ref())
            )),
        },
        () = ended => Err(anyhow::anyhow!("told to end before there was a latency")),
    };
    let deleted = timeout(CLEANING, delete(&probes, &args.probe)).await;
    println!("{}", outcome?);
    deleted
        .context("the API server did not answer in time")
        .flatten()
        .with_context(|| format!("could not delete probe {}", args.probe))
}

/// One line with the latency, once there is one.
async fn measure(
    client: Client,
    probes: &Api<MapLatencyProbe>,
    args: &TestArgs,
    last: &mut Option<MapLatencyProbeStatus>,
) -> anyhow::Result<String> {
    let host_name = host_name(client, &args.node).await?;
    delete(probes, &args.probe)
        .await
        .with_context(|| format!("could not delete the old probe {}", args.probe))?;
    let probe: MapLatencyProbe = serde_json::from_value(json!({
        "apiVersion": "maplatency.dev/v1alpha1",
        "kind": "MapLatencyProbe",
        "metadata": {"name": args.probe},
        "spec": {
            "nodeSelector": {"matchLabels": {HOST_NAME: host_name}},
            "maps": [{"names": [args.map]}],
            "operations": ["Lookup"],
        },
    }))
    .context("the probe is not well formed")?;
    // One that was deleted a moment ago may still be on its way out.
    while let Err(failure) = probes.create(&PostParams::default(), &probe).await {
        match failure {
            kube::Error::Api(status) if status.code == 409 => sleep(PAUSE).await,
            other => {
                return Err(other)
                    .with_context(|| format!("could not create probe {}", args.probe));
            }
        }
    }
    loop {
        let probe = probes
            .get(&args.probe)
            .await
            .with_context(|| format!("could not read probe {}", args.probe))?;
        if let Some(line) = probe.status.as_ref().and_then(|it| latency(it, &args.map)) {
            return Ok(line);
        }
        *last = probe.status;
        sleep(PAUSE).await;
    }
}

async fn host_name(client: Client, name: &str) -> anyhow::Result<String> {
    let node = Api::<Node>::all(client)
        .get(name)
        .await
        .with_context(|| format!("could not read node {name}"))?;
    let labels = node.metadata.labels.unwrap_or_default();
    match labels.get(HOST_NAME) {
        Some(host_name) => Ok(host_name.clone()),
        None => bail!("node {name} has no label {HOST_NAME}, by which a probe could select it"),
    }
}

async fn delete(probes: &Api<MapLatencyProbe>, name: &str) -> anyhow::Result<()> {
    match probes.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(failure) => Err(failure.into()),
    }
}

fn latency(status: &MapLatencyProbeStatus, map: &str) -> Option<String> {
    let lookups = status
        .operations
        .iter()
        .find(|it| it.operation == Operation::Lookup && it.count > 0)?;
    let nanoseconds = lookups.until_user?;
    let text = |it: i64| units::duration(u64::try_from(it).unwrap_or_default());
    Some(format!(
        "{} lookups of map {map}: P50 {}, P99 {}, max {} until user",
        lookups.count,
        text(nanoseconds.p50_nanoseconds),
        text(nanoseconds.p99_nanoseconds),
        text(nanoseconds.max_nanoseconds)
    ))
}

/// What a status says is missing.
fn told(status: Option<&MapLatencyProbeStatus>) -> String {
    let conditions: Vec<String> = status
        .into_iter()
        .flat_map(|it| &it.conditions)
        .map(|it| format!("{}={} ({}: {})", it.type_, it.status, it.reason, it.message))
        .collect();
    if conditions.is_empty() {
        "the probe has no status, so no operator watches it".to_owned()
    } else {
        format!("the status says {}", conditions.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_lookups_has_no_latency() {
        let mut status = MapLatencyProbeStatus::default();
        assert_eq!(latency(&status, "m"), None);

        status.operations = serde_json::from_value(json!([{
            "operation": "Lookup", "count": 7, "moved": 0, "outcomes": [],
            "untilUser": {"p50Nanoseconds": 1500, "p90Nanoseconds": 1600, "p99Nanoseconds": 2000, "p999Nanoseconds": 2000, "maxNanoseconds": 30000},
        }]))
        .unwrap();
        let line = latency(&status, "m").unwrap();
        assert_eq!(
            line,
            "7 lookups of map m: P50 1.50µs, P99 2.00µs, max 30.0µs until user"
        );
    }

    #[test]
    fn a_failure_tells_what_is_missing() {
        assert!(told(None).contains("no operator watches it"));
        let status = serde_json::from_value(json!({
            "nodes": {"selected": 1, "ready": 0}, "matchedMaps": 0, "summary": {},
            "conditions": [{"type": "Ready", "status": "False", "reason": "AgentsMissing", "message": "node a has no agent", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }))
        .unwrap();
        assert!(told(Some(&status)).ends_with("Ready=False (AgentsMissing: node a has no agent)"));
    }
}
