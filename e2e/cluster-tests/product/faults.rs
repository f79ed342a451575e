//! Whatever ends or hangs, the status is right again, and what could be counted is counted once.
//!
//! Readers say how many reads they made; figures of a probe with a window of ten minutes hold all of them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use maplatency_e2e::wait::until;
use serde_json::json;

use super::shared::{AGENT, NAMESPACE, OPERATOR, PATIENCE, Product, installed_in_kind, nodes};

const MAP: &str = "e2e_faults";
/// How long the API server hangs.
const OUTAGE: Duration = Duration::from_secs(30);
const PROBE: &str = "faults";

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn operators_that_go_and_an_api_server_that_hangs_lose_and_double_nothing() -> Result<()> {
    installed_in_kind(
        "operators that go and an API server that hangs",
        async |product| {
            let [worker, _] = product.workers.clone();
            measure(product, &worker).await?;
            product
                .reader("long", &worker, &reads("100000", "1000"))
                .await?;
            product.map_of("long").await?;

            // Both operators, one after the other, so that the lead passes on with each.
            let leader = leader(product).await?;
            product
                .here(&["delete", "pod", &leader, "--grace-period=0", "--force"])
                .await?;
            let second = new_leader(product, &leader).await?;
            product.here(&["delete", "pod", &second]).await?;
            new_leader(product, &second).await?;
            // The one that leads by now is killed where it runs, and its pod stays.
            let third = self::leader(product).await?;
            kill(product, &third).await?;
            product.measuring(PROBE).await?;

            hang_api_server(product).await?;
            product.measuring(PROBE).await?;

            let made = product.truth_of("long").await?.reads;
            ensure!(made == 100_000, "the reader made {made} reads");
            counted(product, made).await
        },
    )
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn agents_that_go_and_a_worker_that_restarts_double_nothing_and_count_on() -> Result<()> {
    installed_in_kind(
        "agents that go and a worker that restarts",
        async |product| {
            // What an agent has reported is with the leader alone once the agent is gone, so not both may go at once.
            let (_, worker) = workers_by_leader(product).await?;
            measure(product, &worker).await?;
            let mut expected = batch(product, "first", &worker).await?;
            counted(product, expected).await?;

            let agents = product.pods(AGENT, Some(&worker)).await?;
            let agent = agents.first().context("no agent runs there")?.clone();
            product.here(&["delete", &agent]).await?;
            new_agent(product, &worker, &agent).await?;
            expected += batch(product, "second", &worker).await?;
            counted(product, expected).await?;

            restart(product, &worker).await?;
            expected += batch(product, "third", &worker).await?;
            counted(product, expected).await
        },
    )
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn after_a_restart_of_the_worker_with_the_leader_on_it_only_new_reads_count() -> Result<()> {
    installed_in_kind("a restart of the worker with the leader", async |product| {
        let (worker, _) = workers_by_leader(product).await?;
        measure(product, &worker).await?;
        let before = batch(product, "before", &worker).await?;
        counted(product, before).await?;

        restart(product, &worker).await?;

        // The agent that measured the first ones has gone, and so has the leader that it told them.
        let after = batch(product, "after", &worker).await?;
        counted(product, after).await?;
        let status = product.read(PROBE).await?.status.unwrap_or_default();
        let partial = status.nodes.partial_window.context("a partial window")?;
        ensure!(
            partial.nodes == 1 && partial.name == worker && partial.seconds < 300,
            "{partial:?}"
        );
        Ok(())
    })
    .await
}

/// Has a worker measured.
async fn measure(product: &Product, worker: &str) -> Result<()> {
    let maps = json!([{"names": [MAP]}]);
    let spec = json!({"maps": maps, "nodeSelector": nodes(&[worker]), "windowSeconds": 600});
    product.probe(PROBE, spec).await?;
    product.measuring(PROBE).await
}

fn reads<'a>(count: &'a str, rate: &'a str) -> Vec<&'a str> {
    let map = ["--name", MAP, "--entries", "1000", "--no-refresh"];
    [
        &map[..],
        &["--reader-cpu", "1", "--reads", count, "--rate", rate],
    ]
    .concat()
}

/// Has a pod make some reads, and says how many.
async fn batch(product: &Product, name: &str, worker: &str) -> Result<u64> {
    product.reader(name, worker, &reads("5000", "2000")).await?;
    Ok(product.truth_of(name).await?.reads)
}

/// Waits until the status tells exactly so many reads, and looks whether that stays so with the next reports.
async fn counted(product: &Product, expected: u64) -> Result<()> {
    let expected = i64::try_from(expected)?;
    let count = async || -> Result<i64> {
        let status = product.read(PROBE).await?.status.unwrap_or_default();
        Ok(status.operations.iter().map(|it| it.count).sum())
    };
    let what = format!("{expected} reads in the status");
    until(&what, PATIENCE, async || {
        let count = count().await?;
        ensure!(count == expected, "{count}");
        Ok(Some(()))
    })
    .await?;
    // Three reports later.
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(6) {
        let count = count().await?;
        ensure!(count == expected, "{count} reads after {expected}");
    }
    Ok(())
}

/// The pod of the operator that leads.
async fn leader(product: &Product) -> Result<String> {
    let lease = product.object(&["lease", "maplatency-operator"]).await?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let pods = product.pods(OPERATOR, None).await?;
    let found = pods.iter().filter_map(|it| it.strip_prefix("pod/"));
    let mut found = found.filter(|it| holder.contains(it));
    let found = found.next();
    Ok(found
        .with_context(|| format!("{holder} is none of {pods:?}"))?
        .to_owned())
}

/// The worker that the leader is on, and the other one.
async fn workers_by_leader(product: &Product) -> Result<(String, String)> {
    let leader = until("a leader", PATIENCE, async || {
        leader(product).await.map(Some)
    })
    .await?;
    let pod = product.object(&["pod", &leader]).await?;
    let node = pod["spec"]["nodeName"].as_str().context("it runs")?;
    match product.workers.clone() {
        [with, other] if with == node => Ok((with, other)),
        [other, with] if with == node => Ok((with, other)),
        workers => bail!("the leader is on {node}, which is none of {workers:?}"),
    }
}

async fn new_leader(product: &Product, old: &str) -> Result<String> {
    until("another leader", PATIENCE, async || {
        let now = leader(product).await?;
        Ok((now != old).then_some(now))
    })
    .await
}

/// Kills the process of a pod on its node; the kubelet starts it again.
async fn kill(product: &Product, pod: &str) -> Result<()> {
    let object = product.object(&["pod", pod]).await?;
    let node = object["spec"]["nodeName"].as_str().context("it runs")?;
    let uid = object["metadata"]["uid"].as_str().context("it has a uid")?;
    // The cgroup of a process names its pod, in one of two spellings.
    let spellings = format!("{uid}|{}", uid.replace('-', "_"));
    let script = format!(
        "for p in $(pidof maplatency-operator); do grep -qE '{spellings}' /proc/$p/cgroup && kill -KILL $p && echo $p; done"
    );
    let killed = product
        .cluster
        .on_node(node, &["sh", "-c", &script])
        .await?;
    ensure!(!killed.trim().is_empty(), "found no process of {pod}");
    Ok(())
}

/// Stops the API server, which then answers nobody, and lets it go on.
async fn hang_api_server(product: &Product) -> Result<()> {
    let control_plane = ["get", "nodes", "--output=name"];
    let label = "--selector=node-role.kubernetes.io/control-plane";
    let node = product
        .kubectl(&[&control_plane[..], &[label]].concat())
        .await?;
    let node = node
        .trim()
        .strip_prefix("node/")
        .context("one control plane")?
        .to_owned();
    let seconds = OUTAGE.as_secs();
    let script =
        format!("p=$(pidof kube-apiserver) && kill -STOP $p && sleep {seconds}; kill -CONT $p");
    product
        .cluster
        .on_node(&node, &["sh", "-c", &script])
        .await?;
    until("the API server", PATIENCE, async || {
        product.kubectl(&["get", "--raw=/readyz"]).await.map(Some)
    })
    .await?;
    Ok(())
}

/// Restarts a worker, until its agent measures again.
async fn restart(product: &Product, worker: &str) -> Result<()> {
    let started = started_at(product, worker).await?;
    product.cluster.restart_node(worker).await?;
    until("the agent of the restarted worker", PATIENCE, async || {
        ensure!(
            started_at(product, worker).await? != started,
            "it has not begun anew"
        );
        Ok(Some(()))
    })
    .await?;
    began_measuring(product, worker).await
}

/// When the agent's container on a node was started.
async fn started_at(product: &Product, node: &str) -> Result<String> {
    let agents = product.pods(AGENT, Some(node)).await?;
    let agent = agents.first().context("no agent runs there")?;
    let pod = product.object(&[agent]).await?;
    let state = &pod["status"]["containerStatuses"][0]["state"];
    let started = state["running"]["startedAt"].as_str();
    Ok(started
        .with_context(|| format!("it does not run: {state}"))?
        .to_owned())
}

async fn new_agent(product: &Product, node: &str, old: &str) -> Result<()> {
    until("another agent", PATIENCE, async || {
        let now = product.pods(AGENT, Some(node)).await?;
        ensure!(now.iter().any(|it| it != old), "{now:?}");
        Ok(Some(()))
    })
    .await?;
    began_measuring(product, node).await
}

/// Waits until the agent of a node says that it measures.
async fn began_measuring(product: &Product, node: &str) -> Result<()> {
    until("an agent that measures", PATIENCE, async || {
        let agents = product.pods(AGENT, Some(node)).await?;
        let [agent] = &agents[..] else {
            bail!("{agents:?} in {NAMESPACE}");
        };
        let logs = product.here(&["logs", agent]).await?;
        ensure!(logs.contains("Began measuring"), "{logs}");
        Ok(Some(()))
    })
    .await
}
