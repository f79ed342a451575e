//! How operator and agent begin and end, and what is left of them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use maplatency_bpf::sys;
use maplatency_e2e::cluster::{Cluster, PATIENCE};
use maplatency_e2e::process::{Daemon, Ended, workspace_binary};
use maplatency_e2e::status::measures;
use maplatency_e2e::wait;
use maplatency_e2e::workload::Workload;

use super::shared::{NODE, selecting};

/// What a process that is told to end may take.
const END: Duration = Duration::from_secs(2);

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
    let workload = Workload::of_one_reader("api_end", "1", "0")?;
    let spec = format!(
        "{{{}, activeReads: {{periodMilliseconds: 10}}}}",
        selecting(&workload)
    );
    cluster.apply_probe("ending", &spec).await?;
    for end in [
        (|agent| ended(&agent.terminate(PATIENCE)?)) as fn(&mut Daemon) -> Result<()>,
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

/// Whether a process ended as it should, in time.
fn ended(ended: &Ended) -> Result<()> {
    ensure!(ended.took < END, "it took {:?}", ended.took);
    ended.ensure_clean()
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
    ended(&cluster.operator()?.terminate(PATIENCE)?)?;

    // Nobody answers here.
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
         users: [{name: u, user: {}}], clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}",
    )?;
    for (elects, failure) in [
        ("false", "Could not watch"),
        ("true", "Could not stand for leader"),
    ] {
        let mut command = std::process::Command::new(workspace_binary("maplatency-operator")?);
        command
            .args(["run", "--insecure-plaintext", "--listen", "127.0.0.1:0"])
            .args(["--http-listen", "127.0.0.1:0", "--leader-elect", elects])
            .env("KUBECONFIG", &kubeconfig)
            .env_remove("RUST_LOG");
        let mut alone = Daemon::spawn("the operator", command, &folder.path().join(elects))?;
        wait::until(failure, PATIENCE, async || {
            alone.ensure_alive()?;
            ensure!(alone.output()?.contains(failure), "{}", alone.log_tail());
            Ok(Some(()))
        })
        .await?;
        ended(&alone.terminate(PATIENCE)?)?;
    }
    Ok(())
}

#[test]
fn an_operator_refuses_plaintext_that_others_could_reach() -> Result<()> {
    let output = std::process::Command::new(workspace_binary("maplatency-operator")?)
        .args(["run", "--insecure-plaintext", "--listen", "0.0.0.0:7443"])
        .env_remove("KUBECONFIG")
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}", output.status);
    for part in [
        "--listen 127.0.0.1:7443",
        "leave --insecure-plaintext out",
        "Usage: maplatency-operator run",
    ] {
        if !said.contains(part) {
            bail!("{part} is not in: {said}");
        }
    }
    Ok(())
}
