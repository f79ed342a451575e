//! The installed product, and pods that read maps and know how often.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use kube::{Api, Client};
use maplatency_core::MapLatencyProbe;
use maplatency_e2e::helm::{self, Version};
use maplatency_e2e::kind::KindCluster;
use maplatency_e2e::process::workspace_binary;
use maplatency_e2e::wait::until;
use maplatency_e2e::workload::Truth;
use maplatency_e2e::{not_run, workspace};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// Where everything of a test is.
pub(super) const NAMESPACE: &str = "maplatency-e2e";
/// The release.
pub(super) const RELEASE: &str = "maplatency";
/// The agents' DaemonSet.
pub(super) const AGENTS: &str = "daemonset/maplatency-agent";
/// What the operator answers or does within seconds on an idle machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);
/// The longest test takes two minutes.
const LIMIT: Duration = Duration::from_mins(10);

/// What pods read maps with; before it comes the registry.
const WORKLOAD: &str = "maplatency-workload:1";
/// Says that the namespace is ours, so that nobody's own installation is removed.
const MARK: &str = "maplatency.dev/e2e";
/// Of a cluster whose nodes pull their images: the registry that has them.
const REGISTRY: &str = "MAPLATENCY_E2E_REGISTRY";

static LOADED: OnceCell<()> = OnceCell::const_new();

/// A cluster with the product in it.
pub(super) struct Product {
    /// The cluster.
    pub(super) cluster: KindCluster,
    client: Client,
    helm: Version,
    /// Two nodes that are no control planes.
    pub(super) workers: [String; 2],
}

/// Installs the chart, runs a test, and removes everything, also where the test fails.
pub(super) async fn installed(test: impl AsyncFnOnce(&Product) -> Result<()>) -> Result<()> {
    installed_by(Version::Newest, test).await
}

/// The same by another Helm.
pub(super) async fn installed_by(
    helm: Version,
    test: impl AsyncFnOnce(&Product) -> Result<()>,
) -> Result<()> {
    let test = async |product: &Product| {
        product.install(&helm::chart(), &[]).await?;
        test(product).await
    };
    run(helm, test).await
}

/// The same without an installation.
pub(super) async fn with_cluster(test: impl AsyncFnOnce(&Product) -> Result<()>) -> Result<()> {
    run(Version::Newest, test).await
}

/// The same with an installation, in a cluster of kind alone: nodes are stopped as containers, or this machine's kernel is theirs.
pub(super) async fn installed_in_kind(
    name: &str,
    test: impl AsyncFnOnce(&Product) -> Result<()>,
) -> Result<()> {
    with_cluster(async |product| {
        if !product.cluster.is_of_kind() {
            return not_run(name, "the cluster is none that kind made");
        }
        product.install(&helm::chart(), &[]).await?;
        test(product).await
    })
    .await
}

async fn run(helm: Version, test: impl AsyncFnOnce(&Product) -> Result<()>) -> Result<()> {
    // Another run would take our namespace for one that an earlier run left.
    let _alone = KindCluster::alone()?;
    let product = Product::find(helm).await?;
    product.remove().await?;
    let result = async {
        product.make_namespace().await?;
        test(&product).await
    };
    let result = timeout(LIMIT, result).await;
    let result = result.unwrap_or_else(|_| bail!("the test has not ended within {LIMIT:?}"));
    let result = product.cluster.explain(result).await;
    let removed = product.remove().await;
    result.and(removed)
}

impl Product {
    async fn find(helm: Version) -> Result<Self> {
        let cluster = KindCluster::from_env_or_new().await?;
        LOADED.get_or_try_init(|| load(&cluster)).await?;
        let workers = cluster.workers().await?;
        let Ok(workers) = workers.try_into() else {
            bail!("the cluster has to have two nodes beside the control plane");
        };
        let client = cluster.client()?;
        Ok(Self {
            cluster,
            client,
            helm,
            workers,
        })
    }

    async fn make_namespace(&self) -> Result<()> {
        let taken = ["get", "customresourcedefinitions", "--output=name"];
        let taken = self.kubectl(&taken).await?;
        ensure!(
            !taken.contains("maplatencyprobes."),
            "maplatency is installed in this cluster; these tests would remove it"
        );
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {MARK: "true"}},
        });
        self.cluster.apply(&namespace.to_string()).await?.ok()?;
        Ok(())
    }

    /// Installs a chart, or upgrades to it.
    pub(super) async fn install(&self, chart: &Path, further: &[&str]) -> Result<()> {
        let chart = chart.to_str().context("the path of the chart is UTF-8")?;
        let mut arguments = vec!["upgrade", "--install", RELEASE, chart];
        arguments.extend(["--namespace", NAMESPACE, "--wait", "--timeout", "3m"]);
        let registry = std::env::var(REGISTRY).map(|it| format!("image.registry={it}"));
        if let Ok(registry) = &registry {
            arguments.extend(["--set", registry]);
        }
        arguments.extend(further);
        self.helm(&arguments).await.map(drop)
    }

    /// Runs Helm.
    pub(super) async fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.helm(self.helm, arguments).await?.ok()
    }

    /// Removes what a test made, or an earlier run left.
    async fn remove(&self) -> Result<()> {
        let ours = ["get", "namespace", "--output=name", "--selector", MARK];
        if self.kubectl(&ours).await?.is_empty() {
            return Ok(());
        }
        // First those who would wait for an operator to go on.
        self.delete(&["pod", "--selector", MARK, "--grace-period=1"])
            .await?;
        let uninstall = ["uninstall", RELEASE, "--namespace", NAMESPACE];
        self.helm(&[&uninstall[..], &["--ignore-not-found", "--wait"]].concat())
            .await?;
        self.delete(&["customresourcedefinition", PROBES]).await?;
        self.delete(&["namespace", NAMESPACE]).await
    }

    async fn delete(&self, what: &[&str]) -> Result<()> {
        let delete = ["delete", "--ignore-not-found", "--namespace", NAMESPACE];
        self.kubectl(&[&delete[..], what].concat()).await.map(drop)
    }

    /// Runs kubectl, which has to succeed.
    pub(super) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(arguments).await?.ok()
    }

    /// The same in the namespace.
    pub(super) async fn here(&self, arguments: &[&str]) -> Result<String> {
        let namespace = ["--namespace", NAMESPACE];
        self.kubectl(&[&namespace[..], arguments].concat()).await
    }

    /// Something of the API as JSON.
    pub(super) async fn object(&self, what: &[&str]) -> Result<Value> {
        let get = [&["get", "--output=json"][..], what].concat();
        Ok(serde_json::from_str(&self.here(&get).await?)?)
    }

    /// Makes a probe, or changes it.
    pub(super) async fn probe(&self, name: &str, spec: Value) -> Result<()> {
        let probe = json!({
            "apiVersion": "maplatency.dev/v1alpha1",
            "kind": "MapLatencyProbe",
            "metadata": {"name": name},
            "spec": spec,
        });
        self.cluster.apply(&probe.to_string()).await?.ok()?;
        Ok(())
    }

    /// A probe with its status. Without kubectl, which would keep a CPU busy if it ran again and again.
    pub(super) async fn read(&self, name: &str) -> Result<MapLatencyProbe> {
        let probes = Api::<MapLatencyProbe>::all(self.client.clone());
        Ok(probes.get(name).await?)
    }

    /// Waits until every selected agent measures for a probe as it is now.
    pub(super) async fn measuring(&self, name: &str) -> Result<()> {
        let what = format!("agents that measure for {name}");
        let wait = until(&what, PATIENCE, async || {
            let probe = self.read(name).await?;
            let status = probe.status.unwrap_or_default();
            let condition = status
                .conditions
                .iter()
                .find(|it| it.type_ == "AgentsReady");
            let condition = condition.context("there is no condition AgentsReady")?;
            ensure!(
                condition.status == "True"
                    && status.observed_generation == probe.metadata.generation,
                "{}",
                condition.message
            );
            Ok(Some(()))
        });
        wait.await
    }

    /// Starts a pod on a node that reads a map of its own with `maplatency-workload`.
    pub(super) async fn reader(&self, name: &str, node: &str, arguments: &[&str]) -> Result<()> {
        let arguments = [&["--output", "json"][..], arguments].concat();
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {MARK: "true"}},
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "reader",
                    "image": workload(),
                    "args": arguments,
                    // Without, the scheduler would give it next to nothing wherever anybody else wants the CPU.
                    "resources": {"requests": {"cpu": "500m"}},
                    // Making maps needs it, where a node has no CAP_BPF.
                    "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
                }],
            },
        });
        self.cluster.apply(&pod.to_string()).await?.ok()?;
        Ok(())
    }

    /// The id of the map that a reader has made.
    pub(super) async fn map_of(&self, reader: &str) -> Result<i64> {
        let what = format!("the map of {reader}");
        let wait = until(&what, PATIENCE, async || {
            let logs = self.here(&["logs", reader]).await?;
            let line = logs.lines().next().context("it has said nothing yet")?;
            let ready: Value = serde_json::from_str(line).context(line.to_owned())?;
            Ok(ready["mapId"].as_i64())
        });
        wait.await
    }

    /// What a reader says of its reads, once it has made all of them.
    pub(super) async fn truth_of(&self, reader: &str) -> Result<Truth> {
        let what = format!("the end of {reader}");
        let wait = until(&what, PATIENCE, async || {
            let logs = self.here(&["logs", reader]).await?;
            let line = logs.lines().nth(1).context("it has no result yet")?;
            Ok(Some(serde_json::from_str(line).context(line.to_owned())?))
        });
        wait.await
    }

    /// The names of pods, by label.
    pub(super) async fn pods(&self, labels: &str, node: Option<&str>) -> Result<Vec<String>> {
        let on = node.map(|it| format!("--field-selector=spec.nodeName={it}"));
        let mut get = vec!["get", "pods", "--output=name", "--selector", labels];
        get.extend(on.as_deref());
        let names = self.here(&get).await?;
        Ok(names.lines().map(str::to_owned).collect())
    }
}

/// The resource's definition.
const PROBES: &str = "maplatencyprobes.maplatency.dev";
/// Which pods are agents.
pub(super) const AGENT: &str = "app.kubernetes.io/component=agent";
/// Which are operators.
pub(super) const OPERATOR: &str = "app.kubernetes.io/component=operator";

/// The part of a spec that selects nodes by name.
pub(super) fn nodes(names: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": names}]})
}

/// Loads what pods run, unless nodes pull it.
async fn load(cluster: &KindCluster) -> Result<()> {
    if std::env::var_os(REGISTRY).is_some() {
        return Ok(());
    }
    let folder = images();
    let archives = ["maplatency-operator.tar", "maplatency-agent.tar"].map(|it| folder.join(it));
    if let Some(missing) = archives.iter().find(|it| !it.is_file()) {
        bail!("{} is missing; `make images` makes it", missing.display());
    }
    cluster
        .load(&archives.each_ref().map(PathBuf::as_path))
        .await?;
    let program = workspace_binary("maplatency-workload")?;
    cluster.load_program(&workload(), &program).await
}

fn workload() -> String {
    let registry = std::env::var(REGISTRY);
    format!("{}/{WORKLOAD}", registry.as_deref().unwrap_or("localhost"))
}

/// Where `make images` leaves them.
fn images() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| workspace().join("target"), PathBuf::from);
    target.join("images")
}
