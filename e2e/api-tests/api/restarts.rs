//! Operators and agents that are killed and come back.

use anyhow::{Result, ensure};
use maplatency_e2e::cluster::Cluster;
use maplatency_e2e::status::{is_ready, lookups, measures};
use maplatency_e2e::workload::Workload;

use super::shared::{NODE, READER, Statuses, reads, selecting};

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_and_restarted_goes_on_without_doubling() -> Result<()> {
    const READS: i64 = 400_000;
    let mut cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = Workload::start(&["--rate", "50000", "--no-refresh", "--reads", "400000"])?;
    cluster.apply_probe("steady", &reads(&workload)).await?;
    let _agent = cluster.start_agent(NODE).await?;
    cluster
        .status("the map", "steady", |it| {
            is_ready(it) && it.matched_maps == 1
        })
        .await?;
    let statuses = Statuses::watch(&cluster, "steady");
    workload.go()?;
    cluster
        .status("some reads", "steady", |it| lookups(it) > 0)
        .await?;

    cluster.kill_operator()?;
    let truth = tokio::task::block_in_place(|| workload.truth())?;
    assert_eq!(i64::try_from(truth.reads)?, READS);
    cluster.start_operator()?;

    let last = cluster
        .status("every read", "steady", |it| {
            lookups(it) == READS && is_ready(it)
        })
        .await?;
    let seen = statuses.lookups_up_to(&last).await?;
    ensure!(
        seen.is_sorted() && seen.iter().all(|it| *it <= READS),
        "a count went back or was too high: {seen:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_and_restarted_begins_a_new_epoch_without_doubling() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let name = ["--name", "epoch_map"];
    let mut before = Workload::start(&[&READER[..], &name, &["--reads", "60000"]].concat())?;
    let mut after = Workload::start(&[&READER[..], &name, &["--reads", "25000"]].concat())?;
    let spec = "{maps: [{names: [epoch_map]}], operations: [Lookup], callers: {commands: [demo-reader]}, windowSeconds: 600}";
    cluster.apply_probe("epochs", spec).await?;
    let mut agent = cluster.start_agent(NODE).await?;
    cluster
        .status("both maps", "epochs", |it| {
            is_ready(it) && it.matched_maps == 2
        })
        .await?;
    let statuses = Statuses::watch(&cluster, "epochs");
    before.go()?;
    cluster
        .status("the reads of the first epoch", "epochs", |it| {
            lookups(it) == 60_000
        })
        .await?;

    agent.kill()?;
    cluster
        .status("the lost agent", "epochs", |it| {
            it.nodes.ready == 0 && lookups(it) == 60_000
        })
        .await?;
    let _agent = cluster.start_agent(NODE).await?;
    cluster
        .status("the new agent", "epochs", |it| {
            is_ready(it) && it.matched_maps == 2
        })
        .await?;
    after.go()?;
    let last = cluster
        .status("the reads of both epochs", "epochs", |it| {
            lookups(it) == 85_000
        })
        .await?;
    let seen = statuses.lookups_up_to(&last).await?;
    ensure!(seen.is_sorted(), "no count goes back or doubles: {seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_twice_while_reads_go_on_counts_each_once() -> Result<()> {
    const READS: i64 = 48_000;
    let mut cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = Workload::of_one_reader("api_restart", "48000", "4000")?;
    cluster
        .apply_probe("steady", &format!("{{{}}}", selecting(&workload)))
        .await?;
    let _agent = cluster.start_agent(NODE).await?;
    cluster.status("the map", "steady", measures).await?;
    let statuses = Statuses::watch(&cluster, "steady");
    workload.go()?;
    let mut more_than = 0;
    for _ in 0..2 {
        let status = cluster
            .status("more reads", "steady", |it| lookups(it) > more_than)
            .await?;
        more_than = lookups(&status);
        ensure!(more_than < READS, "the reads were over too soon");
        cluster.kill_operator()?;
        cluster.start_operator()?;
    }
    let last = cluster
        .status("every read", "steady", |it| {
            lookups(it) == READS && measures(it)
        })
        .await?;
    let seen = statuses.lookups_up_to(&last).await?;
    ensure!(
        seen.is_sorted() && seen.iter().all(|it| *it <= READS),
        "a count went back or was too high: {seen:?}"
    );
    Ok(())
}
