//! What is in `examples/` is accepted, and mistakes are refused with words that help.

use anyhow::{Context as _, Result, ensure};
use maplatency_e2e::cluster::probe_yaml;
use maplatency_e2e::mistakes::{INVALID, REFUSED};
use maplatency_e2e::wait::until;
use maplatency_e2e::workspace;

use super::shared::{PATIENCE, Product, installed};

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn examples_apply_and_every_mistake_is_refused_with_its_message() -> Result<()> {
    installed(async |product| {
        let folder = workspace().join("examples");
        let folder = folder.to_str().context("the path is UTF-8")?;
        let applied = product.kubectl(&["apply", "--filename", folder]).await?;
        for name in applied.lines().filter_map(|it| it.split([' ', '/']).nth(1)) {
            let status = verdict(product, name).await?;
            ensure!(!status.contains("InvalidSpec"), "{name}: {status}");
        }
        let mut wrong = Vec::new();
        for (spec, message) in REFUSED {
            let answer = product.cluster.apply(&probe_yaml("bad", spec)).await?;
            if answer.success || !answer.stderr.contains(message) {
                wrong.push(format!("{spec}: {}", answer.stderr));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        for (index, (spec, message)) in INVALID.into_iter().enumerate() {
            let name = format!("invalid-{index}");
            product
                .cluster
                .apply(&probe_yaml(&name, spec))
                .await?
                .ok()?;
            let status = verdict(product, &name).await?;
            let told = status.contains("InvalidSpec") && status.contains(message);
            ensure!(told, "{spec}: {status}");
        }
        Ok(())
    })
    .await
}

/// What the condition `Ready` says, once it says anything.
async fn verdict(product: &Product, name: &str) -> Result<String> {
    let what = format!("a verdict on {name}");
    until(&what, PATIENCE, async || {
        let status = product.read(name).await?.status.unwrap_or_default();
        let ready = status.conditions.into_iter().find(|it| it.type_ == "Ready");
        Ok(ready.map(|it| format!("{}: {}", it.reason, it.message)))
    })
    .await
}
