//! The real operator and the real agent against a real API server, with a real program that reads a real map.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use maplatency_core::vocabulary::Operation;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus};
use maplatency_e2e::cluster::{Cluster, PATIENCE, probe_yaml};
use maplatency_e2e::workload::Workload;
use maplatency_e2e::{process, wait, workspace};

const NODE: &str = "node-a";
const READER: [&str; 3] = ["--rate", "0", "--no-refresh"];

/// Operations by callers in the window.
fn count(status: &MapLatencyProbeStatus, operation: Operation) -> i64 {
    status
        .operations
        .iter()
        .find(|it| it.operation == operation)
        .map_or(0, |it| it.count)
}

fn lookups(status: &MapLatencyProbeStatus) -> i64 {
    count(status, Operation::Lookup)
}

fn is_ready(status: &MapLatencyProbeStatus) -> bool {
    condition(status, "Ready").is_some_and(|it| it.0 == "True")
}

/// Status, reason and message of a condition.
fn condition<'a>(
    status: &'a MapLatencyProbeStatus,
    kind: &str,
) -> Option<(&'a str, &'a str, &'a str)> {
    let found = status.conditions.iter().find(|it| it.type_ == kind)?;
    Some((&found.status, &found.reason, &found.message))
}

fn reads(workload: &Workload) -> String {
    // Whoever else reads the map is not the workload.
    let id = workload.ready().map_id;
    format!(
        "{{maps: [{{ids: [{id}]}}], operations: [Lookup], callers: {{commands: [demo-reader]}}, windowSeconds: 600}}"
    )
}

/// Counts of a probe in every status that is written from now on.
struct Counts {
    task: tokio::task::JoinHandle<()>,
    seen: std::sync::Arc<std::sync::Mutex<Vec<(Instant, i64)>>>,
}

impl Counts {
    fn watch(cluster: &Cluster, name: &str) -> Self {
        let seen = std::sync::Arc::<std::sync::Mutex<Vec<_>>>::default();
        let into = std::sync::Arc::clone(&seen);
        let probes: Api<MapLatencyProbe> = Api::all(cluster.client());
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let task = tokio::spawn(async move {
            let mut changes = watcher(probes, only)
                .default_backoff()
                .applied_objects()
                .boxed();
            while let Some(change) = changes.next().await {
                if let Ok(probe) = change {
                    let count = probe.status.as_ref().map_or(0, lookups);
                    into.lock()
                        .expect("nobody panics with it")
                        .push((Instant::now(), count));
                }
            }
        });
        Self { task, seen }
    }

    fn end(self) -> Vec<(Instant, i64)> {
        self.task.abort();
        self.seen.lock().expect("nobody panics with it").clone()
    }
}

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
                    "NAME", "MAPS", "NODES", "READS", "P50", "P99", "P99.9", "MAX", "READY", "AGE"
                ],
            "{table}"
        );
        let row: Vec<String> = lines
            .next()
            .context("a row")?
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        // A figure that is absent leaves its column empty.
        ensure!(row.len() == heads.len(), "{table}");
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
    let counts = Counts::watch(cluster, name);
    wait::until("three more writes", PATIENCE, async || {
        let seen = counts.seen.lock().expect("nobody panics with it").len();
        ensure!(seen >= 4, "{seen} statuses");
        Ok(Some(()))
    })
    .await?;
    let seen = counts.end();
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
    let counts = Counts::watch(&cluster, "steady");
    workload.go()?;
    cluster
        .status("some reads", "steady", |it| lookups(it) > 0)
        .await?;

    cluster.kill_operator()?;
    let truth = tokio::task::block_in_place(|| workload.truth())?;
    assert_eq!(i64::try_from(truth.reads)?, READS);
    cluster.start_operator()?;

    cluster
        .status("every read", "steady", |it| {
            lookups(it) == READS && is_ready(it)
        })
        .await?;
    let seen = counts.end();
    ensure!(
        seen.iter().map(|it| it.1).is_sorted(),
        "no count goes back: {seen:?}"
    );
    ensure!(
        seen.iter().all(|it| it.1 <= READS),
        "no read counts twice: {seen:?}"
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
    let counts = Counts::watch(&cluster, "epochs");
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
    cluster
        .status("the reads of both epochs", "epochs", |it| {
            lookups(it) == 85_000
        })
        .await?;
    let seen = counts.end();
    ensure!(
        seen.iter().map(|it| it.1).is_sorted(),
        "no count goes back or doubles: {seen:?}"
    );
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

/// Specs that the API server refuses, and a part of what kubectl then says.
const REFUSED: [(&str, &str); 32] = [
    ("{}", "spec.maps: Required value"),
    (
        "{maps: []}",
        "spec.maps in body should have at least 1 items",
    ),
    (
        "{maps: [{}]}",
        "an entry of maps needs names, types, ids, pinPaths or heldBy; to match every map write names: [\"*\"]",
    ),
    (
        "{maps: [{pinPaths: ['tc/globals/*']}]}",
        "spec.maps[0].pinPaths[0] in body should match",
    ),
    (
        "{maps: [{heldBy: {}}]}",
        "heldBy needs commands or cgroups; to match maps whoever holds them leave heldBy out",
    ),
    (
        "{maps: [{heldBy: {cgroups: [/kubepods]}}]}",
        "spec.maps[0].heldBy.cgroups[0] in body should match",
    ),
    (
        "{maps: [{names: []}]}",
        "spec.maps[0].names in body should have at least 1 items",
    ),
    (
        "{maps: [{names: ['']}]}",
        "spec.maps[0].names[0] in body should be at least 1 chars long",
    ),
    (
        "{maps: [{names: ['ä']}]}",
        "spec.maps[0].names[0] in body should match",
    ),
    (
        "{maps: [{names: [a, a]}]}",
        "spec.maps[0].names[1]: Duplicate value: \"a\"",
    ),
    (
        "{maps: [{types: [Hsh]}]}",
        "spec.maps[0].types[0]: Unsupported value: \"Hsh\": supported values: \"Hash\"",
    ),
    (
        "{maps: [{ids: [0]}]}",
        "spec.maps[0].ids[0] in body should be greater than or equal to 1",
    ),
    (
        "{maps: [{ids: ['7']}]}",
        "spec.maps[0].ids[0] in body must be of type integer",
    ),
    (
        "{maps: [{ids: [1]}], operations: []}",
        "spec.operations in body should have at least 1 items",
    ),
    (
        "{maps: [{ids: [1]}], operations: [Read]}",
        "spec.operations[0]: Unsupported value: \"Read\"",
    ),
    (
        "{maps: [{ids: [1]}], operations: [Lookup, Lookup]}",
        "spec.operations[1]: Duplicate value: \"Lookup\"",
    ),
    (
        "{maps: [{ids: [1]}], callers: {}}",
        "callers needs commands or excludeCommands; to measure every caller leave callers out",
    ),
    (
        "{maps: [{ids: [1]}], callers: {commands: [a], excludeCommands: [a]}}",
        "a pattern stands in both commands and excludeCommands; take it out of one of them",
    ),
    (
        "{maps: [{ids: [1]}], activeReads: {cpus: all}}",
        "spec.activeReads.cpus in body should match",
    ),
    (
        "{maps: [{ids: [1]}], activeReads: {periodMilliseconds: 1}}",
        "spec.activeReads.periodMilliseconds in body should be greater than or equal to 10",
    ),
    (
        "{maps: [{ids: [1]}], activeReads: {method: Batch}}",
        "spec.activeReads.method: Unsupported value: \"Batch\"",
    ),
    (
        "{maps: [{ids: [1]}], windowSeconds: 5}",
        "spec.windowSeconds in body should be greater than or equal to 10",
    ),
    (
        "{maps: [{ids: [1]}], aggregation: {oneIn: 8}}",
        "oneIn goes with strategy Sampled only; write strategy: Sampled, or leave oneIn out",
    ),
    (
        "{maps: [{ids: [1]}], aggregation: {strategy: Sampled, oneIn: 3}}",
        "spec.aggregation.oneIn: Unsupported value: 3: supported values: ",
    ),
    (
        "{maps: [{ids: [1]}], aggregation: {strategy: Direct, lastOperations: 256}}",
        "lastOperations goes with strategy SlidingWindow only; write strategy: SlidingWindow, or leave lastOperations out",
    ),
    (
        "{maps: [{ids: [1]}], aggregation: {strategy: SlidingWindow, lastOperations: 255}}",
        "spec.aggregation.lastOperations in body should be greater than or equal to 256",
    ),
    (
        "{maps: [{ids: [1]}], windowSeconds: 601}",
        "spec.windowSeconds in body should be less than or equal to 600",
    ),
    (
        "{maps: [{ids: [1]}], windowSeconds: 60s}",
        "spec.windowSeconds in body must be of type integer",
    ),
    (
        "{maps: [{ids: [1]}], nodeSelector: {matchExpressions: [{key: a, operator: In}]}}",
        "operators In and NotIn need values; write values: [...]",
    ),
    (
        "{maps: [{ids: [1]}], nodeSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
        "operators Exists and DoesNotExist take no values; leave values out",
    ),
    (
        "{maps: [{ids: [1]}], nodeSelector: {matchExpressions: [{key: a, operator: Gt, values: ['1']}]}}",
        "Unsupported value: \"Gt\"",
    ),
    (
        "{maps: [{ids: [1]}], window: 5}",
        "unknown field \"spec.window\"",
    ),
];

/// Specs that no schema can refuse, and what the condition then says.
const INVALID: [(&str, &str); 5] = [
    (
        "{maps: [{ids: [1]}], activeReads: {cpus: '3-1'}}",
        "spec.activeReads.cpus: \"3-1\" counts down; write 1-3 instead of 3-1",
    ),
    (
        "{maps: [{ids: [1]}], activeReads: {cpus: '9000'}}",
        "spec.activeReads.cpus: \"9000\" names CPU 9000; the highest number is 8191",
    ),
    (
        "{maps: [{names: ['*xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx']}]}",
        "has more than 15 characters besides \"*\"",
    ),
    (
        "{maps: [{ids: [1]}], nodeSelector: {matchLabels: {'bad key': a}}}",
        "\"bad key\" is no label key; write a name of letters, digits, '-', '_' and '.'",
    ),
    (
        "{maps: [{ids: [1]}], nodeSelector: {matchLabels: {pool: '-x'}}}",
        "\"-x\" is no label value; write at most 63 letters, digits, '-', '_' and '.'",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn bad_specs_are_refused_with_the_intended_message() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut wrong = Vec::new();
    for (spec, message) in REFUSED {
        let answer = cluster.apply(&probe_yaml("bad", spec)).await?;
        if answer.success || !answer.stderr.contains(message) {
            wrong.push(format!("{spec}: {}", answer.stderr));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));

    for (spec, message) in INVALID {
        cluster.apply_probe("invalid", spec).await?;
        let status = cluster
            .status("the verdict", "invalid", |it| {
                condition(it, "Ready").is_some()
            })
            .await?;
        let (truth, reason, text) = condition(&status, "Ready").context("Ready")?;
        assert_eq!((truth, reason), ("False", "InvalidSpec"));
        ensure!(text.contains(message), "{spec}: {text}");
    }
    // It is no reason to run agents anywhere.
    cluster.no_daemon_set().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_and_the_agent_end_within_two_seconds() -> Result<()> {
    let mut cluster = Cluster::start(&[(NODE, &[])]).await?;
    cluster
        .apply_probe("any", "{maps: [{names: ['*']}], activeReads: {}}")
        .await?;
    let mut agent = cluster.start_agent(NODE).await?;
    cluster
        .status("a report", "any", |it| it.nodes.ready == 1)
        .await?;

    let limit = Duration::from_secs(2);
    for ended in [
        agent.terminate(PATIENCE)?,
        cluster.operator()?.terminate(PATIENCE)?,
    ] {
        ensure!(ended.took < limit, "it took {:?}", ended.took);
        ended.ensure_clean()?;
    }
    Ok(())
}

#[test]
fn an_operator_without_the_insecure_flag_refuses_to_start() -> Result<()> {
    let output = std::process::Command::new(process::workspace_binary("maplatency-operator")?)
        .arg("run")
        .env_remove("KUBECONFIG")
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}", output.status);
    for part in [
        "--insecure-plaintext",
        "TLS",
        "Usage: maplatency-operator run",
    ] {
        if !said.contains(part) {
            bail!("{part} is not in: {said}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_taken() -> Result<()> {
    let cluster = Cluster::start(&[]).await?;
    let folder = workspace().join("examples");
    let applied = cluster
        .kubectl(&["apply", "-f", folder.to_str().context("UTF-8")?])
        .await?
        .ok()?;
    let there = Api::<MapLatencyProbe>::all(cluster.client())
        .list(&kube::api::ListParams::default())
        .await?;
    assert_eq!(there.items.len(), applied.lines().count());
    for probe in there {
        ensure!(probe.spec.check().is_ok(), "{}", probe.name_any());
    }
    Ok(())
}
