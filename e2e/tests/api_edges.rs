//! Beyond the plain course of things: every status that is written counts exactly, and nothing is left of what is over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use maplatency_bpf::sys;
use maplatency_core::vocabulary::Operation;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus};
use maplatency_e2e::cluster::{AGENTS, Cluster, NAMESPACE, PATIENCE, probe_yaml};
use maplatency_e2e::process::{Daemon, workspace_binary};
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;

const NODE: &str = "node-a";
/// What a process that is told to end may take.
const END: Duration = Duration::from_secs(2);

/// Every status of a probe from now on, in order.
struct Statuses {
    seen: Arc<Mutex<Vec<MapLatencyProbeStatus>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Statuses {
    fn watch(cluster: &Cluster, name: &str) -> Self {
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let into = Arc::clone(&seen);
        let probes: Api<MapLatencyProbe> = Api::all(cluster.client());
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let task = tokio::spawn(async move {
            let mut changes = watcher(probes, only)
                .default_backoff()
                .applied_objects()
                .boxed();
            while let Some(change) = changes.next().await {
                if let Ok(Some(status)) = change.map(|it| it.status) {
                    into.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(status);
                }
            }
        });
        Self { seen, task }
    }

    fn so_far(&self) -> Vec<MapLatencyProbeStatus> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The counts of lookups, once the last status is among them.
    async fn lookups_up_to(&self, last: &MapLatencyProbeStatus) -> Result<Vec<i64>> {
        wait::until("the watch to show the last status", PATIENCE, async || {
            let seen = self.so_far();
            ensure!(seen.contains(last), "{} statuses", seen.len());
            Ok(Some(seen.iter().map(lookups).collect()))
        })
        .await
    }
}

impl Drop for Statuses {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn count(status: &MapLatencyProbeStatus, operation: Operation) -> i64 {
    let mut rows = status.operations.iter();
    rows.find(|it| it.operation == operation)
        .map_or(0, |it| it.count)
}

fn lookups(status: &MapLatencyProbeStatus) -> i64 {
    count(status, Operation::Lookup)
}

/// Reason and message of a condition with this status.
fn condition<'a>(
    status: &'a MapLatencyProbeStatus,
    kind: &str,
    truth: &str,
) -> Option<(&'a str, &'a str)> {
    let mut all = status.conditions.iter();
    all.find(|it| it.type_ == kind && it.status == truth)
        .map(|it| (it.reason.as_str(), it.message.as_str()))
}

fn measures(status: &MapLatencyProbeStatus) -> bool {
    condition(status, "Ready", "True").is_some() && status.matched_maps == 1
}

/// A map that only this test reads.
fn workload(name: &str, reads: &str, rate: &str) -> Result<Workload> {
    Workload::start(&[
        "--no-refresh",
        "--entries",
        "1000",
        "--name",
        name,
        "--reads",
        reads,
        "--rate",
        rate,
    ])
}

/// The fields of a spec that select the workload's map, and its reader alone.
fn selecting(workload: &Workload) -> String {
    let id = workload.ready().map_id;
    format!("maps: [{{ids: [{id}]}}], callers: {{commands: [demo-reader]}}, windowSeconds: 600")
}

/// Reads the workload's map from a thread of this process that is called `api-reader`.
fn read_as_another(workload: &Workload, lookups: u64, next_keys: u64) -> Result<()> {
    let id = workload.ready().map_id;
    let work = move || -> Result<()> {
        let map = sys::Map::from_id(id)?;
        let mut value = vec![0; map.value_size()];
        for _ in 0..lookups {
            ensure!(
                map.lookup(&0u64.to_ne_bytes(), &mut value)?,
                "the entry is missing"
            );
        }
        let mut next = vec![0; map.key_size()];
        for _ in 0..next_keys {
            map.next_key(None, &mut next)?;
        }
        Ok(())
    };
    let reader = thread::Builder::new()
        .name("api-reader".to_owned())
        .spawn(work)?;
    reader.join().map_err(|_| anyhow!("the reader panicked"))?
}

async fn log_has(agent: &Daemon, text: &str, times: usize) -> Result<()> {
    wait::until(
        &format!("{text:?} {times} times in the agent's log"),
        PATIENCE,
        async || {
            ensure!(
                agent.output()?.matches(text).count() >= times,
                "{}",
                agent.log_tail()
            );
            Ok(Some(()))
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_probes_count_exactly_what_each_selects() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = workload("api_overlap", "40000", "0")?;
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

#[tokio::test(flavor = "multi_thread")]
async fn no_status_mixes_two_generations() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = workload("api_change", "30000", "0")?;
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
    for status in statuses.so_far() {
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
    let mut workload = workload("api_delete", "20000", "0")?;
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

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_twice_while_reads_go_on_counts_each_once() -> Result<()> {
    const READS: i64 = 48_000;
    let mut cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = workload("api_restart", "48000", "4000")?;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_loses_its_label_is_measured_no_more() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[("pool", "a")]), ("node-b", &[])]).await?;
    let mut workload = workload("api_label", "5000", "0")?;
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
    let (reason, message) =
        condition(&joined, "AgentsReady", "False").context("AgentsReady is False")?;
    assert_eq!(
        (reason, message),
        ("NodesMissing", "1 of 2 nodes measure; missing: node-b")
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

/// Objects of BPF that a process has descriptors of.
#[derive(Debug, Default)]
struct Held {
    maps: BTreeSet<u32>,
    programs: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Held {
    fn by(process: &Daemon) -> Result<Self> {
        let mut held = Self::default();
        for entry in std::fs::read_dir(format!("/proc/{}/fdinfo", process.id()))? {
            // One that was closed since is held no more.
            let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
            for (key, value) in text.lines().filter_map(|it| it.split_once(':')) {
                let ids = match key {
                    "map_id" => &mut held.maps,
                    "prog_id" => &mut held.programs,
                    "link_id" => &mut held.links,
                    _ => continue,
                };
                ids.insert(value.trim().parse()?);
            }
        }
        Ok(held)
    }

    async fn freed(&self) -> Result<()> {
        wait::until("the kernel to free what it held", PATIENCE, async || {
            let left = |held: &BTreeSet<u32>, ids: Vec<u32>| -> Vec<u32> {
                ids.into_iter().filter(|it| held.contains(it)).collect()
            };
            let maps = left(&self.maps, sys::map_ids()?);
            let programs = left(&self.programs, sys::program_ids()?);
            let links = left(&self.links, sys::link_ids()?);
            ensure!(
                maps.is_empty() && programs.is_empty() && links.is_empty(),
                "maps {maps:?}, programs {programs:?}, links {links:?}"
            );
            Ok(Some(()))
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_serves_leaves_nothing_however_it_ends() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let workload = workload("api_end", "1", "0")?;
    let spec = format!(
        "{{{}, activeReads: {{periodMilliseconds: 10}}}}",
        selecting(&workload)
    );
    cluster.apply_probe("ending", &spec).await?;
    for end in [
        (|agent| agent.terminate(PATIENCE)?.within(END)) as fn(&mut Daemon) -> Result<()>,
        |agent| agent.kill().map(drop),
    ] {
        let mut agent = cluster.start_agent(NODE).await?;
        cluster.status("the map", "ending", measures).await?;
        let held = Held::by(&agent)?;
        ensure!(
            held.maps.len() >= 7 && held.programs.len() >= 3 && held.links.len() >= 3,
            "an agent that measures holds more than {held:?}"
        );
        end(&mut agent)?;
        held.freed().await?;
        cluster
            .status("the agent to be missed", "ending", |it| it.nodes.ready == 0)
            .await?;
    }
    Ok(())
}

trait Within {
    fn within(&self, limit: Duration) -> Result<()>;
}

impl Within for maplatency_e2e::process::Ended {
    fn within(&self, limit: Duration) -> Result<()> {
        ensure!(self.took < limit, "it took {:?}", self.took);
        self.ensure_clean()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_told_to_end_does_so_with_streams_open_and_without_an_api_server()
-> Result<()> {
    let mut cluster = Cluster::start(&[(NODE, &[])]).await?;
    cluster
        .apply_probe("any", "{maps: [{names: [no_such_map_here]}]}")
        .await?;
    let _agent = cluster.start_agent(NODE).await?;
    cluster
        .status("a report", "any", |it| it.nodes.ready == 1)
        .await?;
    cluster.operator()?.terminate(PATIENCE)?.within(END)?;

    // Nobody answers here.
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
         users: [{name: u, user: {}}], clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}",
    )?;
    let mut command = std::process::Command::new(workspace_binary("maplatency-operator")?);
    command
        .args(["run", "--insecure-plaintext", "--listen", "127.0.0.1:0"])
        .env("KUBECONFIG", &kubeconfig)
        .env_remove("RUST_LOG");
    let mut alone = Daemon::spawn("the operator", command, &folder.path().join("log"))?;
    wait::until("a watch to fail", PATIENCE, async || {
        alone.ensure_alive()?;
        ensure!(
            alone.output()?.contains("Could not watch"),
            "{}",
            alone.log_tail()
        );
        Ok(Some(()))
    })
    .await?;
    alone.terminate(PATIENCE)?.within(END)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_p99_comes_soon_after_the_agent() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut workload = workload("api_first", "1000000", "20000")?;
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

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_texts_that_are_too_long_are_refused() -> Result<()> {
    let cluster = Cluster::start(&[]).await?;
    let long = "x".repeat(64);
    let entries = vec!["{ids: [1]}"; 17].join(", ");
    let cases = [
        (
            format!("{{maps: [{entries}]}}"),
            "spec.maps: Too many: 17: must have at most 16 items",
        ),
        (
            format!("{{maps: [{{names: [{long}]}}]}}"),
            "spec.maps[0].names[0]: Too long: may not be more than 63",
        ),
        (
            format!("{{maps: [{{pinPaths: [/{long}{long}{long}{long}]}}]}}"),
            "spec.maps[0].pinPaths[0]: Too long: may not be more than 255",
        ),
        (
            format!("{{maps: [{{ids: [1]}}], callers: {{commands: [{long}]}}}}"),
            "spec.callers.commands[0]: Too long: may not be more than 63",
        ),
        (
            format!("{{maps: [{{ids: [1]}}], nodeSelector: {{matchLabels: {{pool: {long}}}}}}}"),
            "a label's value has at most 63 characters",
        ),
        (
            format!(
                "{{maps: [{{ids: [1]}}], nodeSelector: {{matchExpressions: [{{key: a, operator: In, values: [{long}]}}]}}}}"
            ),
            "spec.nodeSelector.matchExpressions[0].values[0]: Too long: may not be more than 63",
        ),
        (
            "{maps: [{ids: [2147483648]}]}".to_owned(),
            "spec.maps[0].ids[0] in body should be less than or equal to 2147483647",
        ),
    ];
    for (spec, message) in cases {
        let answer = cluster.apply(&probe_yaml("bad", &spec)).await?;
        ensure!(
            !answer.success && answer.stderr.contains(message),
            "{spec}: {}",
            answer.stderr
        );
    }
    let sets: Api<DaemonSet> = Api::namespaced(cluster.client(), NAMESPACE);
    ensure!(sets.get_opt(AGENTS).await?.is_none());
    Ok(())
}
