//! Several probes on the same maps.

use anyhow::{Result, ensure};
use maplatency_core::vocabulary::Operation;
use maplatency_e2e::cluster::Cluster;
use maplatency_e2e::status::{count, is_ready, lookups, measures};
use maplatency_e2e::workload::Workload;

use super::shared::{NODE, Statuses, log_has, read_as_another};

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
async fn overlapping_probes_count_exactly_what_each_selects() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = Workload::of_one_reader("api_overlap", "40000", "0")?;
    let by_name =
        "maps: [{names: [api_overlap]}], callers: {commands: [demo-reader]}, windowSeconds: 600";
    let by_type = "maps: [{names: ['api_over*'], types: [PerCpuHash, Queue]}], \
                   callers: {excludeCommands: [demo-reader]}, operations: [Lookup, GetNextKey], windowSeconds: 600";
    cluster
        .apply_probe("readers", &format!("{{{by_name}}}"))
        .await?;
    cluster
        .apply_probe("others", &format!("{{{by_type}}}"))
        .await?;
    let agent = cluster.start_agent(NODE).await?;
    for name in ["readers", "others"] {
        cluster.status("the map", name, measures).await?;
    }
    workload.go()?;
    read_as_another(&workload, 7_000, 300)?;
    let truth = tokio::task::block_in_place(|| workload.truth())?;
    assert_eq!(truth.reads, 40_000);

    let readers = cluster
        .status("every read", "readers", |it| lookups(it) == 40_000)
        .await?;
    assert_eq!(readers.operations.len(), 1, "{:?}", readers.operations);
    cluster
        .status("every other operation", "others", |it| {
            lookups(it) == 7_000 && count(it, Operation::GetNextKey) == 300
        })
        .await?;

    let statuses = Statuses::watch(&cluster, "others");
    cluster.kubectl(&["delete", "mlp", "readers"]).await?.ok()?;
    log_has(&agent, "Stopped measuring", 1).await?;
    read_as_another(&workload, 2_000, 0)?;
    let last = cluster
        .status("the operations after the deletion", "others", |it| {
            lookups(it) == 9_000
        })
        .await?;
    assert_eq!(count(&last, Operation::GetNextKey), 300);
    let seen = statuses.lookups_up_to(&last).await?;
    ensure!(
        seen.is_sorted() && seen.iter().all(|it| (7_000..=9_000).contains(it)),
        "the deletion disturbed the other probe: {seen:?}"
    );
    Ok(())
}
