//! Agents run where probes select nodes, and nowhere else.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use maplatency_e2e::wait::until;
use serde_json::json;

use super::shared::{AGENTS, PATIENCE, Product, installed, nodes};

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn agents_leave_and_come_with_the_selector_and_go_with_the_last_probe() -> Result<()> {
    installed(async |product| {
        ensure!(!has_daemon_set(product).await?, "agents without a probe");
        let [first, second] = product.workers.each_ref().map(String::as_str);
        for selected in [&[first][..], &[second], &[first, second]] {
            let maps = json!([{"names": ["*"]}]);
            product
                .probe(
                    "wandering",
                    json!({"maps": maps, "nodeSelector": nodes(selected)}),
                )
                .await?;
            product.measuring("wandering").await?;
            agents_on(product, selected).await?;
        }
        product
            .kubectl(&["delete", "maplatencyprobe", "wandering"])
            .await?;
        until("the DaemonSet to go", PATIENCE, async || {
            Ok((!has_daemon_set(product).await?).then_some(()))
        })
        .await?;
        agents_on(product, &[]).await
    })
    .await
}

async fn has_daemon_set(product: &Product) -> Result<bool> {
    let found = product
        .here(&["get", AGENTS, "--ignore-not-found", "--output=name"])
        .await?;
    Ok(!found.is_empty())
}

async fn agents_on(product: &Product, expected: &[&str]) -> Result<()> {
    let expected: BTreeSet<_> = expected.iter().copied().collect();
    let what = format!("agents on {expected:?} alone");
    until(&what, PATIENCE, async || {
        let nodes = "jsonpath={range .items[*]}{.spec.nodeName}{'\\n'}{end}";
        let label = ["--selector", super::shared::AGENT, "--output", nodes];
        let found = product
            .here(&[&["get", "pods"][..], &label].concat())
            .await?;
        let found: BTreeSet<_> = found.lines().collect();
        ensure!(found == expected, "they are on {found:?}");
        Ok(Some(()))
    })
    .await
}
