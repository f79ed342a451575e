//! Nodes that do not measure, and why.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use maplatency_e2e::cluster::{AGENTS, Cluster, NAMESPACE, PATIENCE};
use maplatency_e2e::status::{condition, lookups, measures};
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;

use super::shared::{NODE, spec};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_reporting_is_stale_and_one_that_is_removed_goes() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[]), ("node-b", &[])]).await?;
    let mut workload = Workload::of_one_reader("op_stale", "3000", "0")?;
    cluster.apply_probe("nodes", &spec(&workload)).await?;
    let (first, second) = (
        cluster.start_agent(NODE).await?,
        cluster.start_agent("node-b").await?,
    );
    cluster.status("both nodes", "nodes", measures).await?;
    workload.go()?;
    cluster
        .status("the reads of both", "nodes", |it| lookups(it) == 6_000)
        .await?;

    second.suspend()?;
    let stale = cluster
        .status("a stale node", "nodes", |it| it.nodes.stale == 1)
        .await?;
    let (truth, reason, message) = condition(&stale, "Ready").context("Ready")?;
    assert_eq!((truth, reason), ("False", "NodesStale"));
    assert_eq!(
        message,
        "1 of 2 nodes measure; no report for two periods: node-b"
    );
    assert_eq!((stale.nodes.selected, stale.nodes.ready), (2, 1));
    let entry = stale
        .nodes
        .not_ready
        .first()
        .context("no node that is not ready")?;
    assert_eq!(
        (entry.name.as_str(), entry.reason.as_str()),
        ("node-b", "Stale")
    );
    ensure!(entry.last_report_time.is_some());
    assert_eq!(lookups(&stale), 6_000, "its figures stay");

    second.resume()?;
    cluster
        .status("the node that is back", "nodes", measures)
        .await?;

    cluster.kubectl(&["delete", "node", "node-b"]).await?.ok()?;
    let left = cluster
        .status("one node", "nodes", |it| it.nodes.selected == 1)
        .await?;
    assert_eq!(
        (left.nodes.ready, left.nodes.stale, left.nodes.missing),
        (1, 0, 0)
    );
    assert_eq!(left.nodes.not_ready, []);
    drop(first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_load_its_probes_says_so_in_the_status() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[]), ("node-b", &[])]).await?;
    let workload = Workload::of_one_reader("op_unable", "1", "0")?;
    cluster.apply_probe("nodes", &spec(&workload)).await?;
    let _agent = cluster.start_agent(NODE).await?;
    let without = [
        "/usr/bin/setpriv",
        "--bounding-set=-sys_admin,-bpf,-perfmon",
    ];
    let mut unable = cluster.start_agent_with("node-b", &without).await?;

    let status = cluster
        .status("a node that cannot", "nodes", |it| {
            (it.nodes.ready, it.nodes.unable) == (1, 1)
        })
        .await?;
    let (truth, reason, message) = condition(&status, "AgentsReady").context("AgentsReady")?;
    assert_eq!((truth, reason), ("False", "CannotLoadProbes"));
    ensure!(
        message.starts_with("1 of 2 nodes measure; 1 node cannot load probes: node-b: ")
            && message.contains("the agent lacks CAP_SYS_ADMIN"),
        "{message}"
    );
    assert_eq!(status.nodes.not_ready[0].reason, "CannotLoadProbes");
    unable.ensure_alive()?;
    unable.terminate(PATIENCE)?.ensure_clean()
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_nodes_come_with_how_far_the_daemonset_is() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[]), ("node-b", &[])]).await?;
    cluster
        .apply_probe("nodes", "{maps: [{names: [no_such_map_here]}]}")
        .await?;
    let _agent = cluster.start_agent(NODE).await?;
    cluster
        .status("one of two", "nodes", |it| it.nodes.ready == 1)
        .await?;
    // As the controller of DaemonSets would; none runs here.
    let patch = r#"{"status": {"currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0,
                    "numberReady": 1, "updatedNumberScheduled": 2}}"#;
    let args = [
        "patch",
        "daemonset",
        AGENTS,
        "-n",
        NAMESPACE,
        "--subresource=status",
        "--type=merge",
        "-p",
        patch,
    ];
    cluster.kubectl(&args).await?.ok()?;
    let expected = "1 of 2 nodes measure; missing: node-b (agents' DaemonSet: 1 of 2 pods ready)";
    cluster
        .status("the rollout", "nodes", |it| {
            condition(it, "AgentsReady").is_some_and(|it| it.2 == expected)
        })
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemonset_that_was_changed_by_hand_is_put_right_and_what_others_own_is_left_alone()
-> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    cluster
        .apply_probe("nodes", "{maps: [{names: [no_such_map_here]}]}")
        .await?;
    let image = |set: &DaemonSet| {
        let pod = set.spec.as_ref()?.template.spec.as_ref()?;
        pod.containers.first()?.image.clone()
    };
    let wanted = image(&cluster.daemon_set().await?).context("an image")?;
    let patch = r#"{"metadata": {"annotations": {"team": "blue"}}, "spec": {"minReadySeconds": 7, "template": {"spec":
                    {"priorityClassName": "system-node-critical", "containers": [{"name": "agent", "image": "other"}]}}}}"#;
    let args = [
        "patch",
        "daemonset",
        AGENTS,
        "-n",
        NAMESPACE,
        "--type=strategic",
        "-p",
        patch,
    ];
    cluster.kubectl(&args).await?.ok()?;
    let set = wait::until("the image to be put right", PATIENCE, async || {
        let set = cluster.daemon_set().await?;
        ensure!(image(&set).as_ref() == Some(&wanted), "{:?}", image(&set));
        Ok(Some(set))
    })
    .await?;
    let annotations = set.metadata.annotations.unwrap_or_default();
    assert_eq!(annotations.get("team").map(String::as_str), Some("blue"));
    let spec = set.spec.context("a spec")?;
    assert_eq!(spec.min_ready_seconds, Some(7));
    let class = spec.template.spec.and_then(|it| it.priority_class_name);
    assert_eq!(class.as_deref(), Some("system-node-critical"));
    Ok(())
}
