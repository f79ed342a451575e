//! Probes that change and go.

use anyhow::{Result, ensure};
use maplatency_core::vocabulary::Operation;
use maplatency_e2e::cluster::{Cluster, PATIENCE};
use maplatency_e2e::status::{count, is_ready, lookups, measures};
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;

use super::shared::{NODE, READER, Statuses, log_has, read_as_another, reads, selecting};

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
async fn no_status_mixes_two_generations() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = Workload::of_one_reader("api_change", "30000", "0")?;
    let spec = selecting(&workload);
    cluster
        .apply_probe("changing", &format!("{{{spec}, operations: [Lookup]}}"))
        .await?;
    let statuses = Statuses::watch(&cluster, "changing");
    let _agent = cluster.start_agent(NODE).await?;
    cluster.status("the map", "changing", measures).await?;
    workload.go()?;
    cluster
        .status("the reads", "changing", |it| lookups(it) == 30_000)
        .await?;

    let changed = spec.replace("demo-reader", "api-reader");
    cluster
        .apply_probe(
            "changing",
            &format!("{{{changed}, operations: [Lookup, GetNextKey]}}"),
        )
        .await?;
    cluster
        .status("the new generation to be measured", "changing", measures)
        .await?;
    read_as_another(&workload, 500, 20)?;
    let last = cluster
        .status("the new generation's reads", "changing", |it| {
            lookups(it) == 500 && count(it, Operation::GetNextKey) == 20
        })
        .await?;

    statuses.lookups_up_to(&last).await?;
    for (_, status) in statuses.so_far() {
        let generation = status.observed_generation;
        for it in &status.conditions {
            assert_eq!(it.observed_generation, generation, "{status:?}");
        }
        let possible = if generation == Some(1) {
            0..=30_000
        } else {
            0..=500
        };
        ensure!(possible.contains(&lookups(&status)), "{status:?}");
    }
    assert_eq!(last.observed_generation, Some(2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_follows_a_deleted_one_counts_from_zero() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = Workload::of_one_reader("api_delete", "20000", "0")?;
    let spec = format!("{{{}}}", selecting(&workload));
    cluster.apply_probe("passing", &spec).await?;
    let agent = cluster.start_agent(NODE).await?;
    cluster.status("the map", "passing", measures).await?;
    workload.go()?;
    cluster
        .status("the reads", "passing", |it| lookups(it) == 20_000)
        .await?;

    cluster.kubectl(&["delete", "mlp", "passing"]).await?.ok()?;
    log_has(&agent, "Stopped measuring", 1).await?;
    cluster.no_daemon_set().await?;
    read_as_another(&workload, 1_000, 0)?;

    let followed = spec.replace("demo-reader", "api-reader");
    cluster.apply_probe("passing", &followed).await?;
    cluster.daemon_set().await?;
    let statuses = Statuses::watch(&cluster, "passing");
    cluster.status("the map again", "passing", measures).await?;
    read_as_another(&workload, 333, 0)?;
    let last = cluster
        .status("only its own reads", "passing", |it| lookups(it) == 333)
        .await?;
    let seen = statuses.lookups_up_to(&last).await?;
    ensure!(seen.iter().all(|it| *it <= 333), "{seen:?}");
    Ok(())
}
