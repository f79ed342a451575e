//! What the operator makes belongs to its Deployment.

use anyhow::{Result, ensure};
use maplatency_e2e::cluster::{Cluster, NAMESPACE, PATIENCE, Transport, free_port};
use maplatency_e2e::http::get;
use maplatency_e2e::process::Daemon;
use maplatency_e2e::wait;

use super::shared::NODE;

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: maplatency-operator, namespace: maplatency-system}
spec:
  selector: {matchLabels: {app: operator}}
  template:
    metadata: {labels: {app: operator}}
    spec: {containers: [{name: operator, image: operator}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_whose_deployment_is_another_one_ends_and_says_why() -> Result<()> {
    let cluster = Cluster::without_operator(&[(NODE, &[])], Transport::Plaintext).await?;
    cluster.apply(DEPLOYMENT).await?.ok()?;
    let (listen, http) = (free_port()?, free_port()?);
    let mut command = cluster.operator_command(listen, listen)?;
    command.args(["--http-listen", &http.to_string()]);
    command.args(["--deployment", "maplatency-operator"]);
    let log = cluster.folder().join("owned.log");
    let mut operator = Daemon::spawn("the operator", command, &log)?;
    wait::until("the operator to be ready", PATIENCE, async || {
        let answer = get(http, "/readyz", "").await?;
        ensure!(answer.code == 200, "{}", answer.text());
        Ok(Some(()))
    })
    .await?;

    // As after `kubectl delete --cascade=orphan` and another `kubectl apply`.
    let delete = [
        "delete",
        "deployment",
        "maplatency-operator",
        "-n",
        NAMESPACE,
    ];
    cluster.kubectl(&delete).await?.ok()?;
    cluster.apply(DEPLOYMENT).await?.ok()?;

    let exit = wait::until("the operator to end", PATIENCE, async || operator.exited()).await?;
    let log = operator.output()?;
    ensure!(exit.code() == Some(1), "{exit}: {log}");
    ensure!(
        log.contains("is not the one that this operator began with"),
        "{log}"
    );
    Ok(())
}
