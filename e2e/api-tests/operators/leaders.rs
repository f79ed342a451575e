//! Two operators of which one leads.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use maplatency_core::MapLatencyProbe;
use maplatency_e2e::cluster::{Cluster, NAMESPACE, PATIENCE, Transport};
use maplatency_e2e::http::get;
use maplatency_e2e::replicas::Replicas;
use maplatency_e2e::status::{lookups, measures};
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;
use tokio::task::JoinHandle;

use super::shared::{NODE, spec};

const LEASE: &str = "maplatency-operator";
const READS: i64 = 200_000;

/// What the agents may take to find a new leader.
const FOUND: Duration = Duration::from_secs(10);

/// The lookups of every status from now on, in order.
struct Counts {
    seen: Arc<Mutex<Vec<i64>>>,
    task: JoinHandle<()>,
}

impl Counts {
    fn watch(cluster: &Cluster) -> Self {
        let seen = Arc::<Mutex<Vec<i64>>>::default();
        let into = Arc::clone(&seen);
        let probes: Api<MapLatencyProbe> = Api::all(cluster.client());
        let task = tokio::spawn(async move {
            let changes = watcher(probes, watcher::Config::default()).default_backoff();
            let mut changes = changes.applied_objects().boxed();
            while let Some(change) = changes.next().await {
                if let Ok(Some(status)) = change.map(|it| it.status) {
                    let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.push(lookups(&status));
                }
            }
        });
        Self { seen, task }
    }

    /// Fails if a count ever fell, or was higher than what was read.
    fn never_fell(&self) -> Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(
            seen.is_sorted() && seen.iter().all(|it| *it <= READS),
            "a count went back or was too high: {seen:?}"
        );
        Ok(())
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn holder(cluster: &Cluster) -> Result<String> {
    let lease = cluster
        .json(&["get", "lease", LEASE, "-n", NAMESPACE])
        .await?;
    let holder = lease.pointer("/spec/holderIdentity").cloned();
    Ok(holder
        .unwrap_or_default()
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_has_the_agents_within_ten_seconds_of_a_kill_and_counts_each_read_once()
-> Result<()> {
    let cluster = Cluster::without_operator(&[(NODE, &[])], Transport::tls(&[])).await?;
    let mut operators = Replicas::start(&cluster, 2).await?;
    let mut workload = Workload::of_one_reader("op_kill", &READS.to_string(), "8000")?;
    cluster.apply_probe("steady", &spec(&workload)).await?;
    let old = operators.ready(None).await?;
    let _agent = cluster.start_agent(NODE).await?;
    cluster.status("the map", "steady", measures).await?;
    let standby = get(operators.replicas[1 - old].http, "/readyz", "").await?;
    assert_eq!(
        (standby.code, standby.text().as_str()),
        (503, "does not lead\n")
    );
    let standby = get(operators.replicas[1 - old].http, "/standbyz", "").await?;
    assert_eq!(
        (standby.code, standby.text().as_str()),
        (200, "stands by\n")
    );
    ensure!(
        holder(&cluster)
            .await?
            .starts_with(&format!("replica-{old}_"))
    );

    let counts = Counts::watch(&cluster);
    workload.go()?;
    let before = cluster
        .status("some reads", "steady", |it| lookups(it) > 0)
        .await?;
    ensure!(lookups(&before) < READS, "the reads were over too soon");
    let killed = Instant::now();
    operators.replicas[old].daemon.kill()?;
    let new = operators.ready_with_agents(Some(old), 1).await?;
    let took = killed.elapsed();
    ensure!(took < wait::limit(FOUND)?, "it took {took:?}");
    eprintln!("the new leader had the agent {took:?} after the old one was killed");
    ensure!(
        holder(&cluster)
            .await?
            .starts_with(&format!("replica-{new}_"))
    );

    let truth = tokio::task::block_in_place(|| workload.truth())?;
    assert_eq!(i64::try_from(truth.reads)?, READS);
    cluster
        .status("every read", "steady", |it| {
            lookups(it) == READS && measures(it)
        })
        .await?;
    counts.never_fell()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_ends_without_writing_and_the_agents_have_another() -> Result<()> {
    let cluster = Cluster::without_operator(&[(NODE, &[])], Transport::Plaintext).await?;
    let mut operators = Replicas::start(&cluster, 2).await?;
    let mut workload = Workload::of_one_reader("op_pause", &READS.to_string(), "8000")?;
    cluster.apply_probe("steady", &spec(&workload)).await?;
    let old = operators.ready(None).await?;
    let _agent = cluster.start_agent(NODE).await?;
    cluster.status("the map", "steady", measures).await?;
    let counts = Counts::watch(&cluster);
    workload.go()?;
    cluster
        .status("some reads", "steady", |it| lookups(it) > 0)
        .await?;

    let paused = Instant::now();
    operators.replicas[old].daemon.suspend()?;
    let new = operators.ready_with_agents(Some(old), 1).await?;
    let took = paused.elapsed();
    ensure!(
        took < wait::limit(FOUND + Duration::from_secs(2))?,
        "it took {took:?}"
    );
    eprintln!("the new leader had the agent {took:?} after the old one was paused");
    let later = cluster
        .status("more reads", "steady", |it| measures(it) && lookups(it) > 0)
        .await?;
    ensure!(lookups(&later) <= READS);

    operators.replicas[old].daemon.resume()?;
    let exit = wait::until("the old leader to end", PATIENCE, async || {
        operators.replicas[old].daemon.exited()
    })
    .await?;
    let log = operators.replicas[old].daemon.output()?;
    ensure!(exit.code() == Some(1), "{exit}: {log}");
    let last = log.lines().last().context("a last line")?;
    ensure!(
        last.starts_with("error: lease maplatency-operator "),
        "{last}"
    );
    ensure!(
        holder(&cluster)
            .await?
            .starts_with(&format!("replica-{new}_"))
    );

    tokio::task::block_in_place(|| workload.truth())?;
    cluster
        .status("every read", "steady", |it| {
            lookups(it) == READS && measures(it)
        })
        .await?;
    counts.never_fell()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_end_hands_over_at_once() -> Result<()> {
    let cluster = Cluster::without_operator(&[(NODE, &[])], Transport::Plaintext).await?;
    let mut operators = Replicas::start(&cluster, 2).await?;
    cluster
        .apply_probe("any", "{maps: [{names: [no_such_map_here]}]}")
        .await?;
    let old = operators.ready(None).await?;
    let began = Instant::now();
    let ended = operators.replicas[old].daemon.terminate(PATIENCE)?;
    ended.ensure_clean()?;
    let new = operators.ready(Some(old)).await?;
    let took = began.elapsed();
    ensure!(
        took < wait::limit(Duration::from_secs(4))?,
        "it took {took:?}"
    );
    ensure!(
        holder(&cluster)
            .await?
            .starts_with(&format!("replica-{new}_"))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_lease_is_deleted_makes_it_anew_and_no_other_takes_it() -> Result<()> {
    let cluster = Cluster::without_operator(&[(NODE, &[])], Transport::Plaintext).await?;
    let operators = Replicas::start(&cluster, 2).await?;
    let leader = operators.ready(None).await?;
    let before = holder(&cluster).await?;
    wait::until("the other one to stand by", PATIENCE, async || {
        let log = operators.replicas[1 - leader].daemon.output()?;
        ensure!(log.contains("Standing by"), "{log}");
        Ok(Some(()))
    })
    .await?;
    // Often enough that one that stands by would look first now and then.
    for _ in 0..4 {
        let delete = ["delete", "lease", LEASE, "-n", NAMESPACE];
        cluster.kubectl(&delete).await?.ok()?;
        // Renewed so often that the other one has seen it.
        let mut seen = BTreeSet::new();
        wait::until("a lease that is renewed", PATIENCE, async || {
            let lease = cluster
                .json(&["get", "lease", LEASE, "-n", NAMESPACE])
                .await?;
            assert_eq!(lease["spec"]["holderIdentity"], before);
            seen.insert(lease["spec"]["renewTime"].to_string());
            Ok((seen.len() > 3).then_some(()))
        })
        .await?;
    }
    let still = get(operators.replicas[leader].http, "/readyz", "").await?;
    assert_eq!(still.code, 200, "{}", still.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_taken_away_ends_the_leader() -> Result<()> {
    let cluster = Cluster::without_operator(&[(NODE, &[])], Transport::Plaintext).await?;
    let mut operators = Replicas::start(&cluster, 1).await?;
    operators.ready(None).await?;
    // By a clock that is a year ahead.
    let patch =
        r#"{"spec": {"holderIdentity": "somebody", "renewTime": "2099-01-01T00:00:00.000000Z"}}"#;
    let args = [
        "patch",
        "lease",
        LEASE,
        "-n",
        NAMESPACE,
        "--type=merge",
        "-p",
        patch,
    ];
    cluster.kubectl(&args).await?.ok()?;
    let exit = wait::until("the leader to end", PATIENCE, async || {
        operators.replicas[0].daemon.exited()
    })
    .await?;
    let log = operators.replicas[0].daemon.output()?;
    ensure!(exit.code() == Some(1), "{exit}: {log}");
    ensure!(log.contains("was taken by \"somebody\""), "{log}");

    // Nobody renews it, so the next one gets it whatever time it tells.
    let others = Replicas::start(&cluster, 1).await?;
    let began = Instant::now();
    others.ready(None).await?;
    ensure!(
        began.elapsed() > Duration::from_secs(5),
        "it took {:?}",
        began.elapsed()
    );
    Ok(())
}
