//! What happens to agents while keys, certificates and files are replaced.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use maplatency_core::vocabulary::Operation;
use maplatency_e2e::cluster::{Cluster, PATIENCE, Transport, free_port};
use maplatency_e2e::kubelet::replace;
use maplatency_e2e::process::Daemon;
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;

use super::shared::{Caller, agent_pod, agent_token, bundle, ending, secret};

const NODE: &str = "node-a";
/// Longer than one life of a CA.
const LIFE: Duration = Duration::from_mins(1);

async fn log_has(process: &Daemon, text: &str, times: usize) -> Result<()> {
    wait::until(&format!("{text:?} {times} times"), PATIENCE, async || {
        let seen = process.output()?.matches(text).count();
        ensure!(seen >= times, "{}", process.log_tail());
        Ok(Some(()))
    })
    .await
}

fn times(process: &Daemon, text: &str) -> Result<usize> {
    Ok(process.output()?.matches(text).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_is_replaced_while_a_stream_goes_on_and_no_count_is_lost() -> Result<()> {
    const READS: i64 = 80_000;
    let nodes: [(&str, &[(&str, &str)]); 2] = [(NODE, &[]), ("node-b", &[])];
    let short = Transport::tls(&[
        "--ca-lifetime=36s",
        "--certificate-lifetime=6s",
        "--ca-spread=4s",
    ]);
    let mut cluster = Cluster::start_with(&nodes, short).await?;
    let mut workload = Workload::start(&[
        "--no-refresh",
        "--entries=1000",
        "--name=rotation",
        "--reads=80000",
        "--rate=2000",
    ])?;
    let spec = format!(
        "{{maps: [{{ids: [{}]}}], callers: {{commands: [demo-reader]}}, windowSeconds: 600}}",
        workload.ready().map_id
    );
    let first = bundle(&cluster).await?;
    ensure!(first.matches("BEGIN CERTIFICATE").count() == 1, "{first}");
    cluster.apply_probe("rotation", &spec).await?;
    let agent = cluster.start_agent(NODE).await?;
    cluster
        .status("the map", "rotation", |it| {
            it.matched_maps == 1 && it.nodes.ready == 1
        })
        .await?;
    workload.go()?;
    let pod = agent_pod(&cluster, "agent-b", "node-b").await?;
    let token = agent_token(&cluster, &pod).await?;

    wait::until("the next CA", LIFE, async || {
        secret(&cluster, "next-ca.crt").await
    })
    .await?;
    let old = Caller::trusting(&first, cluster.address())?;
    old.stream(&token, "node-b").await?;
    wait::until("both CAs in the bundle", PATIENCE, async || {
        Ok((bundle(&cluster).await? != first).then_some(()))
    })
    .await?;
    let both = Caller::new(&cluster).await?;
    wait::until("the new CA to sign", LIFE, async || {
        Ok(secret(&cluster, "next-ca.crt")
            .await?
            .is_none()
            .then_some(()))
    })
    .await?;
    wait::until("the new CA to be served", PATIENCE, async || {
        ensure!(old.dial().await.is_err(), "the old CA still signs");
        Ok(Some(()))
    })
    .await?;
    both.stream(&token, "node-b").await?;
    let last = wait::until("the old CA to go", LIFE, async || {
        let now = bundle(&cluster).await?;
        let alone = now.matches("BEGIN CERTIFICATE").count() == 1;
        Ok((alone && now != first).then_some(now))
    })
    .await?;
    Caller::trusting(&last, cluster.address())?
        .stream(&token, "node-b")
        .await?;

    tokio::task::block_in_place(|| workload.truth())?;
    let lookups = |it: &maplatency_core::MapLatencyProbeStatus| {
        let all = &it.operations;
        let found = all.iter().find(|it| it.operation == Operation::Lookup);
        found.map_or(0, |it| it.count)
    };
    cluster
        .status("every read", "rotation", |it| lookups(it) == READS)
        .await?;
    ensure!(
        times(&agent, "Connected to the operator")? == 1,
        "{}",
        agent.log_tail()
    );

    // The agent still has the files of its start. It takes the new ones without a restart of its own.
    cluster.kill_operator()?;
    cluster.start_operator()?;
    log_has(&agent, "UnknownIssuer", 1).await?;
    cluster.renew_identity(NODE).await?;
    log_has(&agent, "Connected to the operator", 2).await?;
    cluster
        .status("every read again", "rotation", |it| {
            lookups(it) == READS && it.nodes.ready == 1
        })
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sends_the_token_that_the_kubelet_has_renewed() -> Result<()> {
    let cluster = Cluster::start_with(&[(NODE, &[])], Transport::tls(&[])).await?;
    cluster
        .apply_probe("any", "{maps: [{names: [no_such_map_here]}]}")
        .await?;
    let agent = cluster.start_agent(NODE).await?;
    cluster
        .status("a report", "any", |it| it.nodes.ready == 1)
        .await?;
    let file = cluster.identity_folder(NODE).join("token");
    let token = std::fs::read_to_string(&file)?;

    // That the stream ends with this token shows that it replaced the one that the stream began with.
    replace(&file, &ending(&cluster, &token, 14)?)?;
    log_has(&agent, "the token has expired and no fresh one came", 1).await?;
    ensure!(times(&agent, "Connected to the operator")? == 1);

    cluster.renew_identity(NODE).await?;
    log_has(&agent, "Connected to the operator", 2).await?;
    cluster
        .status("a report again", "any", |it| it.nodes.ready == 1)
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_serve_under_one_ca_which_a_restart_keeps() -> Result<()> {
    let mut cluster = Cluster::start_with(&[(NODE, &[])], Transport::tls(&[])).await?;
    let others = [free_port()?, free_port()?];
    let replicas = [
        cluster.start_another("replica-1", others[0])?,
        cluster.start_another("replica-2", others[1])?,
    ];
    for replica in &replicas {
        log_has(replica, "Serving agents", 1).await?;
    }
    let first = bundle(&cluster).await?;
    for address in others.into_iter().chain([cluster.address()]) {
        let caller = Caller::trusting(&first, address)?;
        caller.dial().await.with_context(|| address.to_string())?;
    }

    cluster.kill_operator()?;
    cluster.start_operator()?;
    let caller = Caller::trusting(&first, cluster.address())?;
    wait::until("the operator to serve again", PATIENCE, async || {
        caller.dial().await?;
        Ok(Some(()))
    })
    .await?;
    ensure!(bundle(&cluster).await? == first, "the CA was replaced");

    // A Secret that is lost is replaced, and agents learn of it.
    cluster
        .kubectl(&[
            "-n",
            "maplatency-system",
            "delete",
            "secret",
            "maplatency-operator-ca",
        ])
        .await?
        .ok()?;
    wait::until("another CA", LIFE, async || {
        let now = bundle(&cluster).await?;
        ensure!(now != first, "the bundle is the old one");
        Caller::trusting(&now, cluster.address())?.dial().await?;
        Ok(Some(()))
    })
    .await
}
