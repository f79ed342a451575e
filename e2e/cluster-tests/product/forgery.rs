//! A pod that reports for another node than its own.

use anyhow::{Context as _, Result, ensure};
use maplatency_e2e::wait::until;
use serde_json::{Value, json};

use super::shared::{AGENTS, NAMESPACE, PATIENCE, Product, installed, nodes};

const MAP: &str = "e2e_forgery";

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn a_report_with_the_token_of_another_node_is_refused_and_changes_nothing() -> Result<()> {
    installed(async |product| {
        let [victim, other] = product.workers.each_ref().map(String::as_str);
        let maps = json!([{"names": [MAP]}]);
        let spec = json!({"maps": maps, "nodeSelector": nodes(&[victim]), "windowSeconds": 600});
        product.probe("forged", spec).await?;
        product.measuring("forged").await?;
        for (name, node) in [("honest", victim), ("counted-by-the-forger", other)] {
            let reads = ["--name", MAP, "--entries", "1000", "--no-refresh"];
            let pace = ["--reads", "3000", "--rate", "1000", "--reader-cpu", "1"];
            product
                .reader(name, node, &[&reads[..], &pace].concat())
                .await?;
        }
        let made = product.truth_of("honest").await?.reads;
        product.truth_of("counted-by-the-forger").await?;
        counts(product, made).await?;

        let forger = forger(product, other, victim).await?;
        product.cluster.apply(&forger.to_string()).await?.ok()?;
        let refused = until("the refusal", PATIENCE, async || {
            let logs = product.here(&["logs", "forger"]).await?;
            let refused = logs
                .lines()
                .find(|it| it.contains("the token is of a pod on node"));
            Ok(Some(refused.context(logs.clone())?.to_owned()))
        })
        .await?;
        eprintln!("{refused}");
        until("the event", PATIENCE, async || {
            let events = product.here(&["get", "events", "--output=wide"]).await?;
            ensure!(events.contains("AgentRefusedOtherNode"), "{events}");
            Ok(Some(()))
        })
        .await?;
        // The honest agent goes on, and nothing came from the other.
        product.measuring("forged").await?;
        counts(product, made).await
    })
    .await
}

/// An agent's pod of the DaemonSet, which says that it is on another node than it is.
async fn forger(product: &Product, on: &str, says: &str) -> Result<Value> {
    let set = product.object(&[AGENTS]).await?;
    let mut pod = set["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    let labels = json!({"maplatency.dev/e2e": "true"});
    pod["metadata"] = json!({"name": "forger", "namespace": NAMESPACE, "labels": labels});
    pod["spec"]["nodeName"] = json!(on);
    // The node that it is on is not selected.
    pod["spec"]["affinity"] = Value::Null;
    let container = &mut pod["spec"]["containers"][0];
    let variables = container["env"]
        .as_array_mut()
        .context("it has variables")?;
    let node = variables.iter_mut().find(|it| it["name"] == "NODE_NAME");
    *node.context("one names the node")? = json!({"name": "NODE_NAME", "value": says});
    Ok(pod)
}

/// Waits until the status tells exactly so many reads.
async fn counts(product: &Product, expected: u64) -> Result<()> {
    let what = format!("{expected} reads in the status");
    until(&what, PATIENCE, async || {
        let status = product.read("forged").await?.status.unwrap_or_default();
        let count: i64 = status.operations.iter().map(|it| it.count).sum();
        ensure!(u64::try_from(count)? == expected, "{count}");
        Ok(Some(()))
    })
    .await
}
