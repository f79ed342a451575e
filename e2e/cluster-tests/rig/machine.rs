//! What is left on the machine of a cluster that has gone.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use maplatency_e2e::kind::{KindCluster, Origin, rig};
use maplatency_e2e::{not_run, wait};

use crate::traces::Traces;

/// Longer than a cluster takes whose image has to be made; the programs are built before.
const UP: Duration = Duration::from_mins(5);

#[tokio::test]
#[ignore = "makes a cluster: make cluster-test"]
async fn a_cluster_that_was_taken_down_leaves_no_traces() -> Result<()> {
    if somebody_uses_one("a_cluster_that_was_taken_down_leaves_no_traces")? {
        return Ok(());
    }
    let before = Traces::now()?;
    let cluster = KindCluster::from_env_or_new().await?;
    assert_eq!(cluster.origin(), Origin::Made);
    // Else the comparison would show nothing.
    let traces = Traces::now()?.since(&before);
    ensure!(!traces.is_empty(), "a cluster without traces");

    drop(cluster);

    before.assert_same_now()
}

#[tokio::test]
#[ignore = "makes a cluster: make cluster-test"]
async fn what_a_crash_leaves_is_cleared_away_by_down() -> Result<()> {
    if somebody_uses_one("what_a_crash_leaves_is_cleared_away_by_down")? {
        return Ok(());
    }
    let before = Traces::now()?;
    let mut up = kind(&["up"]).spawn()?;
    let changed = until_a_kubelet_runs(&mut up).await;
    up.kill()?;
    up.wait()?;
    changed?;
    // The daemon too, which leaves the nodes alone.
    for daemon in dockerds()? {
        run_program(Command::new("kill").args(["-KILL", &daemon]))?;
    }

    run(&["down"])?;

    before.assert_same_now()
}

/// A cluster that is up is not this test's to take down, nor is the machine as it was without it.
fn somebody_uses_one(test: &str) -> Result<bool> {
    if std::env::var_os("KUBECONFIG").is_some() {
        not_run(test, "KUBECONFIG names a cluster; unset it")?;
        return Ok(true);
    }
    if rig::is_up()? {
        not_run(test, "a cluster is up; `make cluster-down` first")?;
        return Ok(true);
    }
    Ok(false)
}

/// The first thing that a kubelet changes for the whole machine.
async fn until_a_kubelet_runs(up: &mut Child) -> Result<()> {
    let path = "/proc/sys/kernel/panic";
    let before = std::fs::read_to_string(path)?;
    wait::until("a kubelet", UP, async || {
        let ended = up.try_wait()?;
        if ended.is_some() {
            return Ok(Some(Err(anyhow::anyhow!(
                "maplatency-kind up ended before"
            ))));
        }
        let panic = std::fs::read_to_string(path)?;
        ensure!(panic != before, "{path} is {panic}");
        Ok(Some(Ok(())))
    })
    .await?
}

/// The own daemons.
fn dockerds() -> Result<Vec<String>> {
    let listed = Command::new("pgrep")
        .args(["--full", "^dockerd --config-file=/run/maplatency-kind/"])
        .output()
        .context("could not start pgrep")?;
    let listed = String::from_utf8(listed.stdout)?;
    Ok(listed.lines().map(str::to_owned).collect())
}

fn kind(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maplatency-kind"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Result<()> {
    run_program(&mut kind(arguments))
}

fn run_program(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
