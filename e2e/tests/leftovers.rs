//! Nothing of the agent stays in the kernel, however it ends.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use maplatency_bpf::sys;
use maplatency_e2e::process::{Daemon, workspace_binary};
use maplatency_e2e::{wait, workspace};

/// Everything of BPF in this kernel.
#[derive(Debug, PartialEq, Eq)]
struct Objects {
    maps: BTreeSet<u32>,
    programs: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Objects {
    fn now() -> Result<Self> {
        let set = |ids: Vec<u32>| ids.into_iter().collect();
        Ok(Self {
            maps: set(sys::map_ids()?),
            programs: set(sys::program_ids()?),
            links: set(sys::link_ids()?),
        })
    }

    /// What is there beyond `before`.
    fn since(&self, before: &Self) -> Self {
        Self {
            maps: &self.maps - &before.maps,
            programs: &self.programs - &before.programs,
            links: &self.links - &before.links,
        }
    }
}

/// Runs the agent until it measures, ends it, and waits until what it brought has gone.
async fn comes_and_goes(end: impl FnOnce(&mut Daemon) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let before = Objects::now()?;
    let mut command = Command::new(workspace_binary("maplatency-agent")?);
    command
        .args(["run", "-f", "examples/all-fields.yaml"])
        .current_dir(workspace());
    let mut agent = Daemon::spawn("the agent", command, &folder.path().join("agent.log"))?;

    let limit = Duration::from_secs(10);
    let brought = wait::until("the agent's first table", limit, async || {
        agent.ensure_alive()?;
        ensure!(
            agent.output()?.contains("OPERATION") || agent.output()?.contains("maps"),
            "no table yet"
        );
        Ok(Some(Objects::now()?.since(&before)))
    })
    .await?;
    // Five programs, three of them attached, and the maps that they share.
    ensure!(brought.programs.len() >= 5, "{brought:?}");
    ensure!(brought.links.len() >= 3, "{brought:?}");
    ensure!(brought.maps.len() >= 7, "{brought:?}");

    end(&mut agent)?;
    wait::until(
        "the kernel to free what the agent brought",
        limit,
        async || {
            let now = Objects::now()?;
            let left = Objects {
                maps: &now.maps & &brought.maps,
                programs: &now.programs & &brought.programs,
                links: &now.links & &brought.links,
            };
            let is_clean =
                left.maps.is_empty() && left.programs.is_empty() && left.links.is_empty();
            ensure!(is_clean, "left: {left:?}");
            Ok(Some(()))
        },
    )
    .await
}

#[tokio::test]
async fn an_agent_that_is_stopped_leaves_nothing_in_the_kernel() -> Result<()> {
    comes_and_goes(|agent| {
        let ended = agent.terminate(wait::limit(Duration::from_secs(5))?)?;
        ensure!(
            ended.took < wait::limit(Duration::from_secs(2))?,
            "it took {:?}",
            ended.took
        );
        ended.ensure_clean()
    })
    .await
}

#[tokio::test]
async fn an_agent_that_is_killed_leaves_nothing_in_the_kernel() -> Result<()> {
    comes_and_goes(|agent| agent.kill().map(drop)).await
}
