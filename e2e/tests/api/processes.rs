//! How operator and agent begin and end.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use maplatency_e2e::cluster::{Cluster, PATIENCE};
use maplatency_e2e::process;

use super::shared::NODE;

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
