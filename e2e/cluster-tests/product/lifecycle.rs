//! Upgrades with traffic, and what an uninstalled maplatency leaves behind.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use maplatency_bpf::sys;
use maplatency_e2e::helm::{chart, previous_chart};
use maplatency_e2e::not_run;
use maplatency_e2e::wait::until;
use serde_json::json;

use super::shared::{
    AGENT, NAMESPACE, PATIENCE, Product, RELEASE, installed_in_kind, nodes, with_cluster,
};

const MAP: &str = "e2e_lifecycle";

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn an_upgrade_and_a_rollback_with_traffic_count_nothing_twice_and_all_that_comes_after()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let previous = match previous_chart(folder.path()) {
        Ok(chart) => chart,
        Err(error) => return not_run("the upgrade with traffic", &format!("{error:#}")),
    };
    with_cluster(async |product| {
        product.install(&previous, &[]).await?;
        let [worker, _] = &product.workers;
        let maps = json!([{"names": [MAP]}]);
        let spec = json!({"maps": maps, "nodeSelector": nodes(&[worker]), "windowSeconds": 600});
        product.probe("traffic", spec).await?;
        product.measuring("traffic").await?;
        let (traffic, tail) = (
            ["--reads", "60000", "--rate", "1000"],
            ["--reads", "5000", "--rate", "2000"],
        );
        product
            .reader("traffic", worker, &[&READS[..], &traffic].concat())
            .await?;
        product.map_of("traffic").await?;

        // The second one has other settings for agents, so they are exchanged as well.
        product
            .install(&chart(), &["--set", "agent.cpuBudget=90%"])
            .await?;
        rolled_out(product, "90%").await?;
        product
            .helm(&["rollback", RELEASE, "1", "--namespace", NAMESPACE, "--wait"])
            .await?;
        rolled_out(product, "100%").await?;

        let made = product.truth_of("traffic").await?.reads;
        let before = settled(product).await?;
        ensure!(
            before <= made,
            "{before} reads were counted, and {made} made"
        );
        product
            .reader("tail", worker, &[&READS[..], &tail].concat())
            .await?;
        let after = product.truth_of("tail").await?.reads;
        let what = format!("{after} reads beside {before}");
        until(&what, PATIENCE, async || {
            let count = count(product).await?;
            ensure!(count == before + after, "{count}");
            Ok(Some(()))
        })
        .await
    })
    .await
}

#[tokio::test]
#[ignore = "needs a cluster: make e2e"]
async fn nothing_is_left_in_the_kernel_after_helm_uninstall() -> Result<()> {
    let name = "what is left in the kernel after helm uninstall";
    let before = InKernel::now()?;
    installed_in_kind(name, async |product| {
        product
            .probe("leaving", json!({"maps": [{"names": ["*"]}]}))
            .await?;
        product.measuring("leaving").await?;
        let during = InKernel::now()?;
        let brought = during.without(&before);
        ensure!(
            brought.programs.len() >= 3 && !brought.maps.is_empty() && !brought.links.is_empty()
        );

        product
            .helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"])
            .await?;
        until(
            "pods and what they had in the kernel to go",
            PATIENCE,
            async || {
                let pods = product.pods(AGENT, None).await?;
                ensure!(pods.is_empty(), "{pods:?}");
                let left = InKernel::now()?.without(&before);
                ensure!(left == InKernel::default(), "{left:?}");
                Ok(Some(()))
            },
        )
        .await?;
        // What the operator made goes with its Deployment; Kubernetes collects it.
        until("what the operator made to go", PATIENCE, async || {
            let kinds = "secrets,configmaps,leases.coordination.k8s.io,daemonsets.apps";
            let left = product.here(&["get", kinds, "--output=name"]).await?;
            // The one that Kubernetes puts into every namespace.
            let left: Vec<_> = left
                .lines()
                .filter(|it| *it != "configmap/kube-root-ca.crt")
                .collect();
            ensure!(left.is_empty(), "{left:?}");
            Ok(Some(()))
        })
        .await?;
        // As the chart's values say, what users made stays.
        product
            .kubectl(&["get", "maplatencyprobe", "leaving"])
            .await?;
        Ok(())
    })
    .await
}

const READS: [&str; 7] = [
    "--name",
    MAP,
    "--entries",
    "1000",
    "--no-refresh",
    "--reader-cpu",
    "1",
];

/// What BPF has in the kernel, which all nodes share: ids, and the paths of pins.
#[derive(Debug, Default, PartialEq, Eq)]
struct InKernel {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
    pins: BTreeSet<String>,
}

impl InKernel {
    fn now() -> Result<Self> {
        Ok(Self {
            programs: sys::program_ids()?.into_iter().collect(),
            maps: sys::map_ids()?.into_iter().collect(),
            links: sys::link_ids()?.into_iter().collect(),
            pins: pins("/sys/fs/bpf")?,
        })
    }

    fn without(&self, other: &Self) -> Self {
        Self {
            programs: &self.programs - &other.programs,
            maps: &self.maps - &other.maps,
            links: &self.links - &other.links,
            pins: &self.pins - &other.pins,
        }
    }
}

fn pins(folder: &str) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.to_owned())? {
        let path = entry?.path().to_string_lossy().into_owned();
        if std::path::Path::new(&path).is_dir() {
            all.extend(pins(&path)?);
        }
        all.insert(path);
    }
    Ok(all)
}

/// Waits until the agents have a CPU budget, and all of them are there.
async fn rolled_out(product: &Product, budget: &str) -> Result<()> {
    let what = format!("agents with a budget of {budget}");
    until(&what, PATIENCE, async || {
        let set = product.object(&[super::shared::AGENTS]).await?;
        let text = set["spec"]["template"].to_string();
        ensure!(text.contains(&format!("\"{budget}\"")), "{text}");
        let status = &set["status"];
        let current = set["metadata"]["generation"] == status["observedGeneration"];
        let all = &status["desiredNumberScheduled"];
        ensure!(
            current && &status["updatedNumberScheduled"] == all && &status["numberReady"] == all,
            "{status}"
        );
        Ok(Some(()))
    })
    .await?;
    product.measuring("traffic").await
}

async fn count(product: &Product) -> Result<u64> {
    let status = product.read("traffic").await?.status.unwrap_or_default();
    let count: i64 = status.operations.iter().map(|it| it.count).sum();
    u64::try_from(count).context("a count")
}

/// The count that does not change any more.
async fn settled(product: &Product) -> Result<u64> {
    let mut seen = (0, std::time::Instant::now());
    until("a count that stays", PATIENCE, async || {
        let now = count(product).await?;
        if now != seen.0 {
            seen = (now, std::time::Instant::now());
        }
        Ok((seen.1.elapsed().as_secs() >= 8).then_some(now))
    })
    .await
}
