//! From an applied example to a status with figures that can be.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use maplatency_core::MapLatencyProbeStatus;
use maplatency_core::vocabulary::Operation;
use maplatency_e2e::cluster::{Cluster, PATIENCE};
use maplatency_e2e::status::{condition, is_ready, lookups};
use maplatency_e2e::workload::Workload;
use maplatency_e2e::{wait, workspace};

use super::shared::{NODE, Statuses, selecting};

#[tokio::test(flavor = "multi_thread")]
async fn applying_the_example_shows_a_p99_in_kubectl_get() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = Workload::start(&["--rate", "0", "--for", "40s", "--refresher-cpu", "0"])?;
    workload.go()?;
    let example = workspace().join("examples/refresh-incident.yaml");
    cluster
        .kubectl(&["apply", "-f", example.to_str().context("UTF-8")?])
        .await?
        .ok()?;
    let first = cluster
        .status("conditions at the first visit", "refresh-incident", |_| {
            true
        })
        .await?;
    for kind in ["Ready", "AgentsReady", "MapsFound"] {
        ensure!(
            condition(&first, kind).is_some(),
            "{kind} is missing: {first:?}"
        );
    }

    let agent = cluster.start_agent(NODE).await?;
    let started = Instant::now();
    let row = wait::until("a P99 in kubectl get", PATIENCE, async || {
        let table = cluster.kubectl(&["get", "maplatencyprobes"]).await?.ok()?;
        let mut lines = table.lines();
        let heads: Vec<&str> = lines
            .next()
            .context("a header")?
            .split_whitespace()
            .collect();
        ensure!(
            heads
                == [
                    "NAME",
                    "MAPS",
                    "NODES",
                    "READS",
                    "P50",
                    "P99",
                    "P99.9",
                    "MAX",
                    "OBJECTIVES",
                    "READY",
                    "AGE"
                ],
            "{table}"
        );
        let row: Vec<String> = lines
            .next()
            .context("a row")?
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        // A figure that is absent leaves its column empty, as that of the objectives is here.
        ensure!(row.len() == heads.len() - 1, "{table}");
        println!("{table}");
        Ok(Some(row))
    })
    .await?;
    println!(
        "the first P99 came {:.1} s after the agent",
        started.elapsed().as_secs_f64()
    );
    assert_eq!(row[1..3], ["1", "1/1"]);
    assert_eq!(row[8], "True");
    for figure in &row[4..8] {
        ensure!(
            ["ns", "µs", "ms", "s"]
                .iter()
                .any(|unit| figure.ends_with(unit)),
            "{figure}"
        );
    }

    let status = cluster
        .status("reads in a whole status", "refresh-incident", |it| {
            lookups(it) > 100_000 && is_ready(it)
        })
        .await?;
    assert_is_sound(&status)?;
    assert_tells_of_its_agent(&cluster, "refresh-incident").await?;
    assert_is_paced(&cluster, "refresh-incident").await?;
    println!(
        "{}",
        cluster.kubectl(&["get", "maplatencyprobes"]).await?.ok()?
    );
    drop(agent);
    Ok(())
}

/// Whether the status names the hooks of the one agent, and its node for every figure of its cost.
async fn assert_tells_of_its_agent(cluster: &Cluster, name: &str) -> Result<()> {
    let has_cost = |it: &MapLatencyProbeStatus| {
        let agents = it.agents.as_ref();
        agents.is_some_and(|it| it.cost.bpf_run_time.is_some())
    };
    let status = cluster
        .status("what the agent costs", name, has_cost)
        .await?;
    let agents = status.agents.context("agents")?;
    let tiers: Vec<i32> = agents.tiers.iter().map(|it| it.nodes).collect();
    assert_eq!(tiers, [1], "{agents:?}");
    let cost = &agents.cost;
    let (cpu, rss) = (cost.cpu.as_ref(), cost.rss.as_ref());
    let (memory, run) = (cost.bpf_memory.as_ref(), cost.bpf_run_time.as_ref());
    let nodes = [
        cpu.map(|it| &it.node),
        rss.map(|it| &it.node),
        memory.map(|it| &it.node),
        run.map(|it| &it.node),
    ];
    assert_eq!(nodes.map(|it| it.map(String::as_str)), [Some(NODE); 4]);
    ensure!(rss.is_some_and(|it| it.bytes > 1 << 20), "{cost:?}");
    ensure!(run.is_some_and(|it| it.parts_per_million > 0), "{cost:?}");
    Ok(())
}

/// Whether the figures of the demo's reads can be.
fn assert_is_sound(status: &MapLatencyProbeStatus) -> Result<()> {
    let lookup = status
        .operations
        .iter()
        .find(|it| it.operation == Operation::Lookup)
        .context("Lookup")?;
    let user = lookup.until_user.context("untilUser")?;
    let kernel = lookup.kernel_window.context("kernelWindow")?;
    for it in [user, kernel] {
        let rising = [
            it.p50_nanoseconds,
            it.p90_nanoseconds,
            it.p99_nanoseconds,
            it.p999_nanoseconds,
            it.max_nanoseconds,
        ];
        ensure!(rising.is_sorted() && rising[0] > 0, "{it:?}");
    }
    ensure!(kernel.p50_nanoseconds < user.p50_nanoseconds);
    let worst = lookup.worst_second.as_ref().context("worstSecond")?;
    assert_eq!(
        (worst.node.as_str(), worst.map.name.as_str()),
        (NODE, "demo_conntrack")
    );
    ensure!(
        lookup.active.as_ref().is_some_and(|it| it.count > 0),
        "active reads are apart: {lookup:?}"
    );
    ensure!(
        status
            .slowest
            .iter()
            .any(|it| it.cpu == 0 && it.operation == Operation::Lookup)
    );
    assert_eq!(status.losses, vec![]);
    Ok(())
}

/// Whether a status whose figures change all the time is written every five seconds at most.
async fn assert_is_paced(cluster: &Cluster, name: &str) -> Result<()> {
    let statuses = Statuses::watch(cluster, name);
    let seen = wait::until("three more writes", PATIENCE, async || {
        let seen = statuses.so_far();
        ensure!(seen.len() >= 4, "{} statuses", seen.len());
        Ok(Some(seen))
    })
    .await?;
    // The first is the state at the beginning of the watch.
    for pair in seen[1..].windows(2) {
        let gap = pair[1].0 - pair[0].0;
        ensure!(
            gap > Duration::from_millis(4_500),
            "two statuses within {gap:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_p99_comes_soon_after_the_agent() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = Workload::of_one_reader("api_first", "1000000", "20000")?;
    workload.go()?;
    let applied = Instant::now();
    cluster
        .apply_probe("first", &format!("{{{}}}", selecting(&workload)))
        .await?;
    let _agent = cluster.start_agent(NODE).await?;
    let started = Instant::now();
    cluster
        .status("a P99", "first", |it| it.summary.p99.is_some())
        .await?;
    let (since_apply, since_start) = (applied.elapsed(), started.elapsed());
    println!(
        "the first P99 came {since_apply:.1?} after the probe and {since_start:.1?} after the agent"
    );
    ensure!(since_start < Duration::from_secs(10), "{since_start:?}");
    Ok(())
}
