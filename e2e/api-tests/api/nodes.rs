//! Nodes that are selected, and are no more.

use anyhow::{Context as _, Result, ensure};
use maplatency_e2e::cluster::{Cluster, PATIENCE};
use maplatency_e2e::status::{condition, lookups, measures};
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;

use super::shared::{NODE, log_has, selecting};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_and_go_with_their_labels() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[("pool", "a")]), ("node-b", &[("pool", "b")])]).await?;
    cluster
        .apply_probe(
            "pools",
            "{maps: [{names: ['*']}], nodeSelector: {matchLabels: {pool: c}}}",
        )
        .await?;
    let nobody = cluster
        .status("no node", "pools", |it| {
            it.nodes.selected == 0 && !it.conditions.is_empty()
        })
        .await?;
    let (truth, reason, message) = condition(&nobody, "AgentsReady").context("AgentsReady")?;
    assert_eq!((truth, reason), ("False", "NoNodesSelected"), "{message}");

    cluster
        .kubectl(&["label", "node", "node-b", "pool=c", "--overwrite"])
        .await?
        .ok()?;
    let one = cluster
        .status("one node", "pools", |it| it.nodes.selected == 1)
        .await?;
    assert_eq!(one.summary.nodes.as_deref(), Some("0/1"));
    cluster
        .apply_probe(
            "others",
            "{maps: [{ids: [1]}], nodeSelector: {matchLabels: {pool: a}}}",
        )
        .await?;
    wait::until("both selectors in the DaemonSet", PATIENCE, async || {
        let set = serde_json::to_value(cluster.daemon_set().await?)?;
        let terms = set
            .pointer("/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms")
            .cloned()
            .unwrap_or_default();
        let expected = serde_json::json!([
            {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]},
            {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["c"]}]},
        ]);
        ensure!(terms == expected, "{terms}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_loses_its_label_is_measured_no_more() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[("pool", "a")]), ("node-b", &[])]).await?;
    let mut workload = Workload::of_one_reader("api_label", "5000", "0")?;
    let spec = format!(
        "{{{}, nodeSelector: {{matchLabels: {{pool: a}}}}}}",
        selecting(&workload)
    );
    cluster.apply_probe("pool", &spec).await?;
    let agent = cluster.start_agent(NODE).await?;
    cluster.status("the map", "pool", measures).await?;
    assert_eq!(nodes_column(&cluster, "pool").await?, "1/1");

    label(&cluster, "node-b", "pool=a").await?;
    let joined = cluster
        .status("the node that joined", "pool", |it| it.nodes.selected == 2)
        .await?;
    assert_eq!(
        condition(&joined, "AgentsReady"),
        Some((
            "False",
            "NodesMissing",
            "1 of 2 nodes measure; missing: node-b"
        ))
    );
    assert_eq!(nodes_column(&cluster, "pool").await?, "1/2");

    label(&cluster, NODE, "pool-").await?;
    log_has(&agent, "Stopped measuring", 1).await?;
    let left = cluster
        .status("the node that left", "pool", |it| it.nodes.selected == 1)
        .await?;
    assert_eq!(left.nodes.ready, 0, "{left:?}");
    assert_eq!(nodes_column(&cluster, "pool").await?, "0/1");
    workload.go()?;
    tokio::task::block_in_place(|| workload.truth())?;

    label(&cluster, NODE, "pool=a").await?;
    log_has(&agent, "Began measuring", 2).await?;
    let back = cluster
        .status("the node that is back", "pool", |it| it.nodes.ready == 1)
        .await?;
    assert_eq!(
        lookups(&back),
        0,
        "it was not measured while these were made"
    );
    Ok(())
}

async fn label(cluster: &Cluster, node: &str, label: &str) -> Result<()> {
    let args = ["label", "node", node, label, "--overwrite"];
    cluster.kubectl(&args).await?.ok().map(drop)
}

/// The column `NODES`, cut out by where its head stands.
async fn nodes_column(cluster: &Cluster, name: &str) -> Result<String> {
    let table = cluster.kubectl(&["get", "mlp", name]).await?.ok()?;
    let (head, row) = table.split_once('\n').context("a head and a row")?;
    let at = head.find("NODES").context("a column NODES")?;
    let cell = row
        .get(at..)
        .and_then(|it| it.split_whitespace().next())
        .with_context(|| table.clone())?;
    Ok(cell.to_owned())
}
