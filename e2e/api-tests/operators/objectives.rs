//! Objectives are held against what was measured, and their breach is told once and survives its operator.

use anyhow::{Context as _, Result, ensure};
use maplatency_core::crd::objectives::{ObjectiveState, ObjectiveStatus};
use maplatency_core::{MapLatencyProbeStatus, Operation};
use maplatency_e2e::cluster::{Cluster, PATIENCE};
use maplatency_e2e::http::{get, sample};
use maplatency_e2e::status::{condition, is_ready, lookups, measures};
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;

use super::events::expect;
use super::shared::NODE;

/// No read takes so long.
const LONG: u32 = 10_000_000;

const MEASURING: (&str, &str, i64) = ("Normal", "Measuring", 1);
const BREACHED: (&str, &str, i64) = ("Warning", "ObjectiveBreached", 1);
const MET: (&str, &str, i64) = ("Normal", "ObjectivesMet", 1);

fn spec(threshold: i64) -> String {
    format!(
        "{{maps: [{{names: [held_slow, held_fast]}}], operations: [Lookup, Update], callers: {{commands: [demo-reader]}},
           windowSeconds: 10, objectives: [
             {{name: loose, operation: Lookup, percentile: P999, latency: KernelWindow, thresholdMicroseconds: {LONG}}},
             {{name: tight, operation: Lookup, percentile: P50, thresholdMicroseconds: {threshold}, forSeconds: 8}},
             {{name: unused, operation: Update, thresholdMicroseconds: 5}}]}}"
    )
}

/// Size of values and reads a second. What a read takes follows from the size.
type Kind = (&'static str, &'static str);
const SLOW: Kind = ("32768", "200");
const FAST: Kind = ("8", "20000");

/// A workload that reads values of one size for so long.
fn reader(name: &str, (value_size, rate): Kind, time: &str) -> Result<Workload> {
    let name = format!("held_{name}");
    let map = [
        "--no-refresh",
        "--entries=100",
        "--name",
        &name,
        "--value-size",
        value_size,
    ];
    Workload::start(&[&map[..], &["--rate", rate, "--for", time]].concat())
}

/// Half of such reads take at most so long on this machine, in nanoseconds.
async fn typical(cluster: &Cluster, kind: Kind) -> Result<i64> {
    let mut workload = reader("typical", kind, "2s")?;
    let id = workload.ready().map_id;
    let spec = format!("{{maps: [{{ids: [{id}]}}], operations: [Lookup]}}");
    cluster.apply_probe("first", &spec).await?;
    cluster.status("the map", "first", measures).await?;
    workload.go()?;
    let truth = tokio::task::block_in_place(|| workload.truth())?;
    let all = i64::try_from(truth.reads)?;
    let counted = |it: &MapLatencyProbeStatus| lookups(it) >= all;
    let status = cluster.status("all reads", "first", counted).await?;
    let latency = status.operations.first().and_then(|it| it.until_user);
    Ok(latency.context("a latency")?.p50_nanoseconds)
}

fn state<'a>(status: &'a MapLatencyProbeStatus, name: &str) -> Option<&'a ObjectiveStatus> {
    status.objectives.iter().find(|it| it.name == name)
}

fn tight_is(status: &MapLatencyProbeStatus, wanted: ObjectiveState) -> bool {
    state(status, "tight").is_some_and(|it| it.state == wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_is_told_with_node_and_latency_and_survives_the_operator() -> Result<()> {
    let mut cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut slow = reader("slow", SLOW, "5m")?;
    let mut fast = reader("fast", FAST, "5m")?;
    cluster
        .apply_probe("first", "{maps: [{names: [typical]}]}")
        .await?;
    let _agent = cluster.start_agent(NODE).await?;
    let of_fast = typical(&cluster, FAST).await?;
    let of_slow = typical(&cluster, SLOW).await?;
    ensure!(of_slow > 2 * of_fast, "{of_fast} and {of_slow} ns");
    let threshold = (of_fast + of_slow) / 2_000;
    cluster.apply_probe("held", &spec(threshold)).await?;
    let both = |it: &MapLatencyProbeStatus| is_ready(it) && it.matched_maps == 2;
    cluster.status("the maps", "held", both).await?;
    slow.go()?;
    let pending = |it: &MapLatencyProbeStatus| tight_is(it, ObjectiveState::Pending);
    cluster
        .status("a pending objective", "held", pending)
        .await?;
    let breached = |it: &MapLatencyProbeStatus| tight_is(it, ObjectiveState::Breached);
    let status = cluster.status("a breach", "held", breached).await?;

    tells_of_the_breach(&status)?;
    let table = cluster.kubectl(&["get", "mlp", "held"]).await?.ok()?;
    ensure!(
        table.contains("OBJECTIVES") && table.contains("Breached"),
        "{table}"
    );
    expect(&cluster, "held", &[MEASURING, BREACHED]).await?;
    exported(&cluster, "tight", Some(1.0)).await?;
    exported(&cluster, "loose", Some(0.0)).await?;

    // Another operator goes on where this one ended.
    cluster.kill_operator()?;
    cluster.start_operator()?;
    exported(&cluster, "tight", Some(1.0)).await?;
    let probe = cluster.probe("held").await?;
    let after = probe.status.unwrap_or_default();
    let since =
        |it: &MapLatencyProbeStatus| state(it, "tight").map(|it| (it.state, it.since_time.clone()));
    ensure!(
        since(&after) == since(&status),
        "{:?} after {:?}",
        after.objectives,
        status.objectives
    );
    expect(&cluster, "held", &[MEASURING, BREACHED]).await?;

    // Of far more fast ones they are few.
    fast.go()?;
    let met = |it: &MapLatencyProbeStatus| tight_is(it, ObjectiveState::Met);
    cluster.status("all is well", "held", met).await?;
    expect(&cluster, "held", &[MEASURING, BREACHED, MET]).await?;
    exported(&cluster, "tight", Some(0.0)).await
}

fn tells_of_the_breach(status: &MapLatencyProbeStatus) -> Result<()> {
    let tight = state(status, "tight").context("an objective")?;
    ensure!(
        tight.node.as_deref() == Some(NODE) && tight.nodes_above == 1,
        "{tight:?}"
    );
    let lookups = status.operations.iter();
    let lookups = lookups.filter(|it| it.operation == Operation::Lookup);
    let told: Vec<_> = lookups.filter_map(|it| it.until_user).collect();
    // Of one node's window the two are the same figure.
    ensure!(
        told.len() == 1 && Some(told[0].p50_nanoseconds) == tight.highest_nanoseconds,
        "{told:?} {tight:?}"
    );
    let loose = state(status, "loose").context("an objective")?;
    ensure!(loose.state == ObjectiveState::Met, "{loose:?}");
    let unused = state(status, "unused").context("an objective")?;
    ensure!(unused.state == ObjectiveState::NoOperations, "{unused:?}");
    let (truth, reason, message) = condition(status, "ObjectivesMet").context("a condition")?;
    ensure!(
        (truth, reason) == ("False", "ObjectiveBreached"),
        "{message}"
    );
    ensure!(
        message.starts_with("tight: P50 of Lookup until user is ")
            && message.contains(" on node-a, above "),
        "{message}"
    );
    Ok(())
}

/// Waits until the operator exports whether an objective is breached.
async fn exported(cluster: &Cluster, objective: &str, breached: Option<f64>) -> Result<()> {
    let label = format!("objective=\"{objective}\"");
    let labels = ["probe=\"held\"", &label];
    wait::until("an exported objective", PATIENCE, async || {
        let text = get(cluster.http(), "/metrics", "").await?.text();
        let value = sample(&text, "maplatency_probe_objective_breached", &labels);
        ensure!(value == breached, "{value:?}");
        let latency = sample(&text, "maplatency_probe_objective_latency_seconds", &labels);
        ensure!(latency.is_some_and(|it| it > 0.0), "{latency:?}");
        Ok(Some(()))
    })
    .await
}
