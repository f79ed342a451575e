//! Probes that change, go, and stand beside each other, and nodes that change their labels.

use anyhow::{Context as _, Result, ensure};
use maplatency_core::vocabulary::Operation;
use maplatency_e2e::cluster::{Cluster, PATIENCE};
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;

use super::shared::{NODE, READER, condition, count, is_ready, lookups, reads};

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_probe_reaches_the_agent_as_a_new_generation() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut old =
        Workload::start(&[&READER[..], &["--reads", "50000", "--name", "old_map"]].concat())?;
    let mut new =
        Workload::start(&[&READER[..], &["--reads", "30000", "--name", "new_map"]].concat())?;
    cluster.apply_probe("changing", &reads(&old)).await?;
    let _agent = cluster.start_agent(NODE).await?;
    cluster
        .status("the first map", "changing", |it| {
            is_ready(it) && it.matched_maps == 1
        })
        .await?;
    old.go()?;
    cluster
        .status("the reads of the first map", "changing", |it| {
            lookups(it) == 50_000
        })
        .await?;

    cluster.apply_probe("changing", &reads(&new)).await?;
    let changed = cluster
        .status("the new generation", "changing", |it| {
            it.observed_generation == Some(2)
        })
        .await?;
    assert_eq!(
        lookups(&changed),
        0,
        "what the old generation counted is not the new one's"
    );
    for it in &changed.conditions {
        assert_eq!(it.observed_generation, Some(2), "{it:?}");
    }
    cluster
        .status("the second map", "changing", |it| {
            is_ready(it) && it.matched_maps == 1
        })
        .await?;
    new.go()?;
    let status = cluster
        .status("the reads of the second map", "changing", |it| {
            lookups(it) == 30_000
        })
        .await?;
    assert_eq!(status.slowest[0].map.name, "new_map");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_probe_takes_the_daemonset_and_the_measuring_with_it() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = Workload::start(&[&READER[..], &["--reads", "40000"]].concat())?;
    cluster.apply_probe("passing", &reads(&workload)).await?;
    let agent = cluster.start_agent(NODE).await?;
    cluster
        .status("the map", "passing", |it| {
            is_ready(it) && it.matched_maps == 1
        })
        .await?;

    cluster.kubectl(&["delete", "mlp", "passing"]).await?.ok()?;
    cluster.no_daemon_set().await?;
    wait::until("the agent to stop measuring", PATIENCE, async || {
        ensure!(
            agent.output()?.contains("Stopped measuring"),
            "{}",
            agent.log_tail()
        );
        Ok(Some(()))
    })
    .await?;
    workload.go()?;
    tokio::task::block_in_place(|| workload.truth())?;

    // A probe of the same name begins anew: nothing of the reads in between is in it.
    cluster.apply_probe("passing", &reads(&workload)).await?;
    cluster.daemon_set().await?;
    let status = cluster
        .status("the map again", "passing", |it| {
            is_ready(it) && it.matched_maps == 1
        })
        .await?;
    assert_eq!(lookups(&status), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_probes_on_one_node_with_overlapping_maps_each_count_their_own() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = Workload::start(&[
        "--rate",
        "0",
        "--reads",
        "300000",
        "--refresh-period",
        "200ms",
        "--entries",
        "500",
    ])?;
    let id = workload.ready().map_id;
    let by_id = format!("maps: [{{ids: [{id}], types: [PerCpuHash]}}], windowSeconds: 600");
    cluster
        .apply_probe(
            "reads",
            &format!("{{{by_id}, operations: [Lookup], callers: {{commands: ['demo-read*']}}}}"),
        )
        .await?;
    cluster
        .apply_probe("writes", &format!("{{{by_id}, operations: [Lookup, Update], callers: {{excludeCommands: [demo-reader], commands: ['demo-*']}}}}"))
        .await?;
    let _agent = cluster.start_agent(NODE).await?;
    for name in ["reads", "writes"] {
        cluster
            .status("the map", name, |it| is_ready(it) && it.matched_maps == 1)
            .await?;
    }
    workload.go()?;
    tokio::task::block_in_place(|| workload.truth())?;

    let read = cluster
        .status("every read", "reads", |it| lookups(it) == 300_000)
        .await?;
    assert_eq!(count(&read, Operation::Update), 0);
    let written = cluster
        .status("the rewrites", "writes", |it| {
            count(it, Operation::Update) >= 500
        })
        .await?;
    assert_eq!(lookups(&written), 0, "the reader is excluded");
    // Each rewrite is of 500 entries; the last one may have been cut short.
    let updates = count(&written, Operation::Update);

    cluster.kubectl(&["delete", "mlp", "reads"]).await?.ok()?;
    let left = cluster
        .status("the other probe", "writes", is_ready)
        .await?;
    assert_eq!(
        count(&left, Operation::Update),
        updates,
        "its counts are undisturbed"
    );
    Ok(())
}

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
