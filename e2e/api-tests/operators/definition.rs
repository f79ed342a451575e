//! A definition of the resource that is older than the operator.

use anyhow::{Result, ensure};
use maplatency_e2e::cluster::Cluster;
use maplatency_e2e::status::measures;
use maplatency_e2e::workload::Workload;

use super::shared::{NODE, spec};

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_definition_lacks_is_left_out_and_all_else_is_told() -> Result<()> {
    let mut cluster = Cluster::start(&[(NODE, &[])]).await?;
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    let patch = format!(
        r#"[{{"op": "remove", "path": "{status}/matchedMaps"}}, {{"op": "remove", "path": "{status}/nodes/properties/partialWindow"}}]"#
    );
    let definition = ["crd", "maplatencyprobes.maplatency.dev"];
    let patch = [
        "patch",
        definition[0],
        definition[1],
        "--type=json",
        "-p",
        &patch,
    ];
    cluster.kubectl(&patch).await?.ok()?;
    let workload = Workload::of_one_reader("op_older", "1", "0")?;
    cluster.apply_probe("older", &spec(&workload)).await?;
    let _agent = cluster.start_agent(NODE).await?;
    let is_ready = |it: &_| maplatency_e2e::status::is_ready(it);
    let status = cluster.status("a ready probe", "older", is_ready).await?;
    ensure!(!measures(&status), "it told how many maps match");
    let log = cluster.operator()?.output()?;
    let warnings = log.matches("is older than this operator").count();
    ensure!(warnings == 1, "{log}");
    Ok(())
}
