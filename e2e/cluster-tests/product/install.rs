//! From `helm install` to figures.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use maplatency_e2e::helm::Version;
use maplatency_e2e::wait::until;
use serde_json::json;

use super::shared::{NAMESPACE, PATIENCE, Product, RELEASE, installed, installed_by};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn after_helm_install_a_probe_shows_both_workers_and_a_p99_within_a_minute() -> Result<()> {
    installed(async |product| {
        helm_test(product).await?;

        for (cpu, worker) in product.workers.iter().enumerate() {
            let cpu = cpu.to_string();
            let reads = [
                "--name",
                "e2e_first",
                "--rate",
                "1000",
                "--reader-cpu",
                &cpu,
            ];
            let quiet = ["--entries", "1000", "--no-refresh", "--for", "5m"];
            let reads = [&reads[..], &quiet].concat();
            product
                .reader(&format!("reader-{cpu}"), worker, &reads)
                .await?;
            product.map_of(&format!("reader-{cpu}")).await?;
        }
        let begin = Instant::now();
        let workers =
            json!([{"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}]);
        product
            .probe(
                "first",
                json!({
                    "maps": [{"names": ["e2e_first"]}],
                    "nodeSelector": {"matchExpressions": workers},
                    "objectives": [{"name": "reads", "operation": "Lookup", "thresholdMicroseconds": 1_000_000}],
                }),
            )
            .await?;
        let row = until("a P99 of both workers", MINUTE, async || {
            let table = product.kubectl(&["get", "maplatencyprobes"]).await?;
            let row = Row::find(&table, "first")?;
            // Both agents see both maps, as the nodes share a kernel.
            let complete =
                row.of("MAPS") == "2" && row.of("NODES") == "2/2" && row.of("READY") == "True";
            let complete = complete && row.of("OBJECTIVES") == "Met";
            ensure!(complete && row.of("P99").ends_with('s'), "{table}");
            Ok(Some(table.clone()))
        })
        .await?;
        eprintln!("after {:.1?}:\n{row}", begin.elapsed());

        let described = until("conditions and events", PATIENCE, async || {
            let text = product
                .kubectl(&["describe", "maplatencyprobe", "first"])
                .await?;
            for part in [
                "AgentsReady",
                "MapsFound",
                "Events:",
                "Measuring",
                "maplatency-operator",
            ] {
                ensure!(text.contains(part), "no {part:?} in {text}");
            }
            Ok(Some(text))
        })
        .await?;
        eprintln!("{described}");
        Ok(())
    })
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn the_oldest_helm_installs_it_and_its_test_sees_a_latency() -> Result<()> {
    installed_by(Version::Oldest, helm_test).await
}

async fn helm_test(product: &Product) -> Result<()> {
    let said = product
        .helm(&["test", RELEASE, "--namespace", NAMESPACE])
        .await?;
    ensure!(
        said.contains("Phase:") && said.contains("Succeeded"),
        "{said}"
    );
    Ok(())
}

/// A row of what `kubectl get` prints, by title of the column.
struct Row<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Row<'a> {
    fn find(table: &'a str, name: &str) -> Result<Self> {
        let mut lines = table.lines().map(|it| it.split_whitespace());
        let titles = lines.next().context("an empty table")?;
        let row = lines.find(|it| it.clone().next() == Some(name));
        let row = row.with_context(|| format!("no row {name} in {table}"))?;
        Ok(Self(titles.zip(row).collect()))
    }

    fn of(&self, title: &str) -> &'a str {
        let found = self.0.iter().find(|(it, _)| *it == title);
        found.map_or("", |(_, value)| value)
    }
}
