//! What operator and agent export is right, named as documented, and taken by Prometheus.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use maplatency_e2e::cluster::{Cluster, PATIENCE, Transport};
use maplatency_e2e::http::{get, sample};
use maplatency_e2e::prometheus::{self, Prometheus};
use maplatency_e2e::status::{lookups, measures};
use maplatency_e2e::workload::Workload;
use maplatency_e2e::{not_run, wait, workspace};

use super::shared::{NODE, spec};

const READS: i64 = 40_000;
const CLASS: (&str, &str) = ("node.kubernetes.io/instance-type", "large");

/// Names of the families in the text format.
fn families(text: &str) -> BTreeSet<&str> {
    let types = text.lines().filter_map(|it| it.strip_prefix("# TYPE "));
    types.filter_map(|it| it.split(' ').next()).collect()
}

/// Names of labels in the text format.
fn labels(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|it| !it.starts_with('#'));
    let sets = samples.filter_map(|it| it.split_once('{')?.1.rsplit_once('}'));
    sets.flat_map(|(set, _)| set.split(',').filter_map(|it| Some(it.split_once('=')?.0)))
        .collect()
}

/// The names that a section of docs/metrics.md has.
fn documented<'a>(page: &'a str, section: &str) -> Result<BTreeSet<&'a str>> {
    let begin = format!("## {section}\n");
    let (_, rest) = page.split_once(&begin).context("no such section")?;
    let section = rest.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|it| it.strip_prefix("| `"));
    Ok(rows.filter_map(|it| it.split('`').next()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_and_agent_export_what_was_read_under_documented_names() -> Result<()> {
    let mut cluster = Cluster::without_operator(&[(NODE, &[CLASS])], Transport::Plaintext).await?;
    let agent_http = cluster.export_agent()?;
    cluster.start_operator()?;
    let mut workload = Workload::of_one_reader("op_metrics", &READS.to_string(), "0")?;
    let objectives =
        "objectives: [{name: reads, operation: Lookup, thresholdMicroseconds: 1000000}]";
    let spec = spec(&workload).replacen('{', &format!("{{{objectives}, "), 1);
    cluster.apply_probe("exported", &spec).await?;
    let _agent = cluster.start_agent(NODE).await?;
    cluster.status("the map", "exported", measures).await?;
    workload.go()?;
    cluster
        .status("every read", "exported", |it| lookups(it) == READS)
        .await?;

    let expected = Some(f64::from(i32::try_from(READS)?));
    let of_probe = [r#"probe="exported""#, r#"operation="Lookup""#];
    for latency in [r#"latency="until_user""#, r#"latency="kernel_window""#] {
        let labels = [&of_probe[..], &[latency]].concat();
        let here = get(agent_http, "/metrics", "").await?.text();
        let name = "maplatency_agent_operation_duration_seconds_count";
        assert_eq!(sample(&here, name, &labels), expected, "{here}");
        let merged = get(cluster.http(), "/metrics", "").await?.text();
        let labels = [&labels[..], &[r#"node_class="large""#]].concat();
        let name = "maplatency_operation_duration_seconds_count";
        assert_eq!(sample(&merged, name, &labels), expected, "{merged}");
    }

    let merged = get(cluster.http(), "/metrics", "").await?.text();
    let of_objective = [r#"probe="exported""#, r#"objective="reads""#];
    for (name, value) in [
        ("breached", 0.0),
        ("nodes_above", 0.0),
        ("threshold_seconds", 1.0),
    ] {
        let name = format!("maplatency_probe_objective_{name}");
        assert_eq!(
            sample(&merged, &name, &of_objective),
            Some(value),
            "{merged}"
        );
    }

    let page = fs::read_to_string(workspace().join("docs/metrics.md"))?;
    for (section, address) in [("Operator", cluster.http()), ("Agent", agent_http)] {
        let text = get(address, "/metrics", "").await?.text();
        let (exported, documented) = (families(&text), documented(&page, section)?);
        ensure!(exported.is_subset(&documented), "{section}: {exported:?}");
        ensure!(exported.len() >= 9, "{section}: {exported:?}");
        let wrong = ["node", "map", "map_id", "pid", "command", "cpu", "uid"];
        let labels = labels(&text);
        ensure!(wrong.iter().all(|it| !labels.contains(it)), "{labels:?}");
    }
    in_prometheus(&cluster, agent_http, expected).await
}

/// promtool finds nothing to say, and Prometheus takes the histograms as native ones.
async fn in_prometheus(
    cluster: &Cluster,
    agent_http: std::net::SocketAddr,
    expected: Option<f64>,
) -> Result<()> {
    let folder = match prometheus::folder() {
        Ok(folder) => folder,
        Err(reason) => return not_run("metrics in Prometheus", &format!("{reason:#}")),
    };
    for address in [cluster.http(), agent_http] {
        let text = get(address, "/metrics", "").await?.text();
        prometheus::check(&folder, &text)
            .await
            .with_context(|| text.clone())?;
    }
    let prometheus = Prometheus::start(&folder, cluster.http())?;
    // Of a classic histogram there is no series of this name.
    let series = r#"maplatency_operation_duration_seconds{probe="exported",latency="until_user"}"#;
    wait::until("a native histogram", PATIENCE, async || {
        let counts = prometheus
            .query(&format!("histogram_count({series})"))
            .await?;
        ensure!(counts.len() == 1, "{counts:?}");
        ensure!(Some(counts[0].1) == expected, "{counts:?}");
        Ok(Some(()))
    })
    .await?;
    let median = prometheus
        .query(&format!("histogram_quantile(0.5, {series})"))
        .await?;
    let median = median.first().context("no quantile")?.1;
    let probe = cluster.probe("exported").await?;
    let status = probe.status.context("a status")?.operations;
    let told = status[0]
        .until_user
        .as_ref()
        .context("a latency")?
        .p50_nanoseconds;
    let told = f64::from(i32::try_from(told)?) / 1e9;
    ensure!(
        (median / told - 1.0).abs() < 0.06,
        "{median} in Prometheus, {told} in the status"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_apart_from_readiness() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let code = async |path: &str| Ok::<_, anyhow::Error>(get(cluster.http(), path, "").await?.code);
    wait::until("the operator to be ready", PATIENCE, async || {
        Ok((code("/readyz").await? == 200).then_some(()))
    })
    .await?;
    assert_eq!(code("/healthz").await?, 200);
    assert_eq!(code("/standbyz").await?, 200);
    assert_eq!(code("/nothing").await?, 404);
    Ok(())
}
