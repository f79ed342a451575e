//! A pod whose reads stall every four seconds, beside one on another node that reads an equal map in peace.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use maplatency_core::MapLatencyProbeStatus;
use maplatency_core::vocabulary::Operation;
use maplatency_e2e::wait::until_asking_every;
use serde_json::json;

use super::shared::{Product, installed, nodes};

const MAP: &str = "e2e_incident";
const PERIOD: f64 = 4e9;
/// To ask all the time takes a part of a CPU, and stalls the reader in every second if that is its own.
const CALM: Duration = Duration::from_secs(2);
/// Five periods, and what pods and agents take to start.
const LIMIT: Duration = Duration::from_mins(2);

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn the_status_names_node_map_cpu_pod_and_period_of_an_incident_and_no_other_node()
-> Result<()> {
    installed(async |product| {
        let [stalled, calm] = product.workers.each_ref().map(String::as_str);
        // As in the demo: 60,000 entries, rewritten every 4 s on the CPU of a reader that waits for each answer.
        let reads = [
            "--name",
            MAP,
            "--rate",
            "0",
            "--reader-cpu",
            "0",
            "--for",
            "5m",
        ];
        product.reader("stalled", stalled, &reads).await?;
        let reads = [
            "--name",
            MAP,
            "--rate",
            "1000",
            "--reader-cpu",
            "1",
            "--for",
            "5m",
        ];
        let reads = [&reads[..], &["--no-refresh"]].concat();
        product.reader("calm", calm, &reads).await?;
        let map = product.map_of("stalled").await?;
        product.map_of("calm").await?;
        let pod = product.object(&["pod", "stalled"]).await?;
        let pod = pod["metadata"]["uid"].as_str().context("a pod has a uid")?;

        product
            .probe(
                "incident",
                json!({"maps": [{"names": [MAP]}], "nodeSelector": nodes(&[stalled, calm])}),
            )
            .await?;
        let what = "the incident in the status";
        let status = until_asking_every(CALM, what, LIMIT, async || {
            let status = product.read("incident").await?.status.unwrap_or_default();
            names(&status, stalled, map, pod)?;
            Ok(Some(status))
        })
        .await?;
        // There are other spikes where all nodes share the CPUs of a small machine, but none that comes and comes again.
        for spike in &status.spikes {
            ensure!(
                spike.node != calm || spike.period_nanoseconds.is_none(),
                "the calm node: {spike:?}"
            );
        }
        let slowest = status.slowest.first().context("a slowest row")?;
        ensure!(slowest.node == stalled, "{slowest:?}");
        let calls = status.callers.iter().any(|it| it.node == calm);
        ensure!(calls, "the calm reader is no caller: {:?}", status.callers);
        show(product).await
    })
    .await
}

/// Whether a status names the incident.
fn names(status: &MapLatencyProbeStatus, node: &str, map: i64, pod: &str) -> Result<()> {
    let reads = |operation| operation == Operation::Lookup;
    let spikes = status.spikes.iter();
    let mut spikes = spikes.filter(|it| it.node == node && it.map.id == map && reads(it.operation));
    let spike = spikes
        .find(|it| it.period_nanoseconds.is_some())
        .with_context(|| format!("no periodic spike in {:?}", status.spikes))?;
    #[allow(clippy::cast_precision_loss, reason = "a period of seconds")]
    let period = spike.period_nanoseconds.unwrap_or_default() as f64;
    ensure!((period / PERIOD - 1.0).abs() <= 0.05, "{spike:?}");
    ensure!(spike.cpus == [0], "{spike:?}");
    let callers = status.callers.iter();
    let mut callers =
        callers.filter(|it| it.node == node && it.map.id == map && reads(it.operation));
    let caller = callers.next().context("nobody calls")?;
    let process = caller
        .process
        .as_ref()
        .context("a caller without a process")?;
    ensure!(
        process.pod_uid.as_deref() == Some(pod),
        "{caller:?}, but the pod is {pod}"
    );
    Ok(())
}

async fn show(product: &Product) -> Result<()> {
    let status = product
        .kubectl(&["get", "maplatencyprobe", "incident", "--output=yaml"])
        .await?;
    eprintln!("{status}");
    Ok(())
}
