//! Events come with transitions and not with figures.

use anyhow::{Result, ensure};
use maplatency_e2e::cluster::{Cluster, PATIENCE};
use maplatency_e2e::http::{get, sample};
use maplatency_e2e::status::measures;
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;

use super::shared::{NODE, spec};

/// Type, reason and count of every event of a probe, oldest first.
async fn events(cluster: &Cluster, probe: &str) -> Result<Vec<(String, String, i64)>> {
    let list = cluster
        .json(&["get", "events.events.k8s.io", "-n", "default"])
        .await?;
    let items = list.pointer("/items").and_then(|it| it.as_array()).cloned();
    let mut items = items.unwrap_or_default();
    let name = serde_json::Value::from(probe);
    items.retain(|it| it.pointer("/regarding/name") == Some(&name));
    items.sort_by_key(|it| it["eventTime"].as_str().map(str::to_owned));
    let text = |it: &serde_json::Value, key: &str| it[key].as_str().unwrap_or_default().to_owned();
    let told = items.iter().map(|it| {
        let count = it
            .pointer("/series/count")
            .and_then(serde_json::Value::as_i64);
        (text(it, "type"), text(it, "reason"), count.unwrap_or(1))
    });
    Ok(told.collect())
}

fn told(events: &[(String, String, i64)]) -> Vec<(&str, &str, i64)> {
    events
        .iter()
        .map(|(kind, reason, count)| (kind.as_str(), reason.as_str(), *count))
        .collect()
}

/// Waits until exactly these events of a probe are there: type, reason and count.
pub(crate) async fn expect(
    cluster: &Cluster,
    probe: &str,
    expected: &[(&str, &str, i64)],
) -> Result<()> {
    wait::until("the events", PATIENCE, async || {
        let events = events(cluster, probe).await?;
        ensure!(told(&events) == expected, "{events:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transition_is_told_once_however_often_a_status_is_written() -> Result<()> {
    const MEASURING: (&str, &str, i64) = ("Normal", "Measuring", 1);
    const MISSING: (&str, &str, i64) = ("Warning", "NodesMissing", 1);
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = Workload::of_one_reader("op_events", "120000", "5000")?;
    cluster.apply_probe("told", &spec(&workload)).await?;
    let mut agent = cluster.start_agent(NODE).await?;
    cluster.status("the map", "told", measures).await?;
    expect(&cluster, "told", &[MEASURING]).await?;
    workload.go()?;
    wait::until("some more statuses", PATIENCE, async || {
        let text = get(cluster.http(), "/metrics", "").await?.text();
        let written = sample(&text, "maplatency_operator_status_writes_total", &[]);
        ensure!(written >= Some(4.0), "{written:?}");
        Ok(Some(()))
    })
    .await?;
    expect(&cluster, "told", &[MEASURING]).await?;

    agent.kill()?;
    expect(&cluster, "told", &[MEASURING, MISSING]).await?;
    let _agent = cluster.start_agent(NODE).await?;
    // The same again is counted on the event that there is.
    let twice = ("Normal", "Measuring", 2);
    expect(&cluster, "told", &[twice, MISSING]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_spec_is_told_with_what_to_write_instead() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let spec = "{maps: [{names: ['*']}], activeReads: {cpus: 3-1}}";
    cluster.apply_probe("wrong", spec).await?;
    expect(&cluster, "wrong", &[("Warning", "InvalidSpec", 1)]).await?;
    let text = cluster.kubectl(&["describe", "mlp", "wrong"]).await?.ok()?;
    ensure!(
        text.contains("InvalidSpec") && text.contains("spec.activeReads.cpus"),
        "{text}"
    );
    // Another mistake is told beside it, though type and reason are the same.
    let spec = "{maps: [{names: ['*']}], activeReads: {cpus: '9000'}}";
    cluster.apply_probe("wrong", spec).await?;
    wait::until("words about the second mistake", PATIENCE, async || {
        let text = cluster.kubectl(&["describe", "mlp", "wrong"]).await?.ok()?;
        let events = text.split("Events:").nth(1).unwrap_or_default();
        ensure!(events.contains("names CPU 9000"), "{text}");
        Ok(Some(()))
    })
    .await
}
