//! What the cluster can do.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use maplatency_e2e::helm::Version;
use maplatency_e2e::kind::KindCluster;
use maplatency_e2e::workspace;

const NAMESPACE: &str = "maplatency-rig";
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
#[ignore = "needs a cluster: make cluster-test"]
async fn pods_on_different_workers_find_each_other_by_name() -> Result<()> {
    let cluster = KindCluster::from_env_or_new().await?;
    load_peer(&cluster).await?;
    let workers = cluster.workers().await?;
    let namespace = Namespace::make(&cluster, NAMESPACE).await?;
    for worker in &workers {
        let yaml = peer(worker, "Never");
        namespace.apply(&yaml).await?;
    }

    ensure!(workers.len() >= 2, "the only workers are {workers:?}");
    for (index, asked) in workers.iter().enumerate() {
        let asking = &workers[(index + 1) % workers.len()];
        let url = format!("http://{asked}.{NAMESPACE}.svc.cluster.local");
        let answer = cluster
            .until("the answer of a pod", PATIENCE, async || {
                let ask = ["exec", "-n", NAMESPACE, asking, "--", "/peer", "ask", &url];
                Ok(Some(cluster.kubectl(&ask).await?.ok()?))
            })
            .await?;
        ensure!(answer.starts_with(asked.as_str()), "{asked} said {answer}");
    }
    namespace.remove().await
}

#[tokio::test]
#[ignore = "needs a cluster: make cluster-test"]
async fn three_nodes_are_ready() -> Result<()> {
    let cluster = KindCluster::from_env_or_new().await?;
    let ready = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";

    let states = cluster
        .kubectl(&["get", "nodes", "-o", ready])
        .await?
        .ok()?;

    assert_eq!(states, "True True True");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a cluster: make cluster-test"]
async fn both_versions_of_helm_install_a_chart() -> Result<()> {
    let cluster = KindCluster::from_env_or_new().await?;
    let chart = tempfile::tempdir()?;
    write_chart(chart.path())?;
    let path = chart
        .path()
        .to_str()
        .context("the temporary folder is UTF-8")?;
    for (version, name) in [
        (Version::Oldest, "rig-three"),
        (Version::Newest, "rig-four"),
    ] {
        let install = ["install", name, path, "-n", NAMESPACE, "--create-namespace"];
        cluster.helm(version, &install).await?.ok()?;

        let get = [
            "get",
            "configmap",
            name,
            "-n",
            NAMESPACE,
            "-o",
            "jsonpath={.data.by}",
        ];
        assert_eq!(cluster.kubectl(&get).await?.ok()?, "Helm");
        let uninstall = ["uninstall", name, "-n", NAMESPACE];
        cluster.helm(version, &uninstall).await?.ok()?;
    }
    Namespace::of(&cluster, NAMESPACE).remove().await
}

#[tokio::test]
#[ignore = "needs a cluster: make cluster-test"]
async fn a_diagnosis_names_what_is_wrong_and_shows_logs() -> Result<()> {
    let cluster = KindCluster::from_env_or_new().await?;
    load_peer(&cluster).await?;
    let namespace = Namespace::make(&cluster, "maplatency-rig-diagnosis").await?;
    let worker = cluster.workers().await?.remove(0);
    let absent = peer(&worker, "Never").replace(PEER, "localhost/absent:1");
    namespace.apply(&absent).await?;
    namespace.apply(TALKATIVE).await?;

    cluster
        .until(
            "words about an image that is absent",
            PATIENCE,
            async || {
                let text = cluster.diagnosis().await;
                for part in [
                    "ErrImageNeverPull",
                    "describe pod --namespace maplatency-rig-diagnosis",
                    "[pod/talkative/peer] usage: peer serve",
                ] {
                    ensure!(text.contains(part), "no {part:?} in {text}");
                }
                Ok(Some(()))
            },
        )
        .await?;
    namespace.remove().await
}

const PEER: &str = "localhost/maplatency-peer:1";
/// It complains about its arguments.
const TALKATIVE: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: talkative}, spec: {containers: [
    {name: peer, image: \"localhost/maplatency-peer:1\", imagePullPolicy: Never, args: [talk]}]}}";

/// A pod on a node, under the node's name, and a service in front of it.
fn peer(node: &str, pull: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {node}, labels: {{peer: {node}}}}}
spec:
  nodeName: {node}
  containers:
  - name: peer
    image: {PEER}
    imagePullPolicy: {pull}
    args: [serve]
    env: [{{name: NODE_NAME, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {node}}}
spec: {{selector: {{peer: {node}}}, ports: [{{port: 80, targetPort: 8080}}]}}
"
    )
}

/// A namespace that is removed in the end, and left behind if the test fails.
struct Namespace<'a> {
    cluster: &'a KindCluster,
    name: &'a str,
}

impl<'a> Namespace<'a> {
    fn of(cluster: &'a KindCluster, name: &'a str) -> Self {
        Self { cluster, name }
    }

    /// Made anew.
    async fn make(cluster: &'a KindCluster, name: &'a str) -> Result<Self> {
        let namespace = Self::of(cluster, name);
        namespace.remove().await?;
        let create = ["create", "namespace", name];
        cluster.kubectl(&create).await?.ok()?;
        Ok(namespace)
    }

    async fn apply(&self, yaml: &str) -> Result<()> {
        let arguments = ["apply", "-n", self.name, "-f", "-"];
        let output = self.cluster.kubectl_with_input(&arguments, yaml).await?;
        output.ok().map(drop)
    }

    async fn remove(&self) -> Result<()> {
        let delete = [
            "delete",
            "namespace",
            self.name,
            "--ignore-not-found",
            "--grace-period=1",
        ];
        self.cluster.kubectl(&delete).await?.ok().map(drop)
    }
}

/// Builds the image of the test's pods and loads it into the nodes.
async fn load_peer(cluster: &KindCluster) -> Result<()> {
    let script = workspace().join("e2e/kind/build.sh");
    let output = Command::new(script).arg("peer").output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let program = String::from_utf8(output.stdout)?;
    let program = program
        .trim()
        .strip_prefix("peer=")
        .context("build.sh named no peer")?;
    cluster.load_program(PEER, Path::new(program)).await
}

fn write_chart(folder: &Path) -> Result<()> {
    std::fs::create_dir(folder.join("templates"))?;
    std::fs::write(
        folder.join("Chart.yaml"),
        "apiVersion: v2\nname: rig\nversion: 0.1.0\nkubeVersion: \">=1.33.0-0\"\n",
    )?;
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"{{ .Release.Name }}\"}\ndata: {by: \"{{ .Release.Service }}\"}\n";
    Ok(std::fs::write(folder.join("templates/map.yaml"), template)?)
}
