//! The rights that the chart grants are enough, and are all that its accounts have.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use maplatency_core::MapLatencyProbe;
use maplatency_e2e::cluster::{PATIENCE, start_agent};
use maplatency_e2e::controlplane::ControlPlane;
use maplatency_e2e::helm::{Helm, Version, chart};
use maplatency_e2e::kubelet::{self, Projected};
use maplatency_e2e::process::{Daemon, workspace_binary};
use maplatency_e2e::wait;
use serde_json::{Value, json};

use super::shared::{NAMESPACE, find, render, text};

const NODE: &str = "node-a";

/// What a kubelet would do of the chart: the operator and the Job of `helm test`, with the chart's arguments and the rights
/// of the chart's accounts.
#[tokio::test(flavor = "multi_thread")]
async fn helm_test_gets_a_latency_with_the_rights_of_the_charts_accounts_which_have_no_others()
-> Result<()> {
    let cluster = ControlPlane::start().await?;
    let helm = Helm::get(Version::Newest, cluster.kubeconfig()).await?;
    let chart = chart();
    let install = [
        "install",
        "maplatency",
        text(&chart)?,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
    ];
    let notes = helm.run(&install).await?.ok()?;
    tells_the_next_three_commands(&cluster, &notes).await?;
    let labels = json!({"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": NODE});
    // A probe without a selector would measure here, too, if the chart did not leave it out.
    let arm = json!({"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64", "kubernetes.io/hostname": "node-b"});
    for (name, labels) in [(NODE, labels), ("node-b", arm)] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        cluster.apply_yaml(&node.to_string()).await?;
    }
    let objects = render(&helm, None).await?;
    let folder = tempfile::tempdir()?;
    let settings =
        &find(&objects, "ConfigMap", "maplatency-agent-settings")?["data"]["agents.yaml"];
    let file = folder.path().join("agents.yaml");
    std::fs::write(&file, settings.as_str().context("no settings")?)?;

    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let deployment = find(&objects, "Deployment", "maplatency-operator")?;
    let mut command = Command::new(workspace_binary("maplatency-operator")?);
    let file = file.display().to_string();
    for argument in arguments(&deployment["spec"]["template"]["spec"]["containers"][0])? {
        command.arg(argument.replace("/etc/maplatency/agents.yaml", &file));
    }
    command
        .args(["--listen", &listen])
        .args(["--agent-operator-url", &format!("https://{listen}")])
        .args(["--http-listen", "127.0.0.1:0"])
        .env_clear()
        .env("POD_NAMESPACE", NAMESPACE)
        .env(
            "KUBECONFIG",
            cluster
                .kubeconfig_of(NAMESPACE, "maplatency-operator")
                .await?,
        );
    let operator = Daemon::spawn("the operator", command, &folder.path().join("operator.log"))?;

    let job = find(&objects, "Job", "maplatency-test")?;
    let pod = &job["spec"]["template"]["spec"];
    let mut reader = Command::new(workspace_binary("maplatency-agent")?);
    reader
        .args(arguments(&pod["initContainers"][0])?)
        .env_clear();
    let reader = Daemon::spawn("the reader", reader, &folder.path().join("reader.log"))?;
    let mut test = Command::new(workspace_binary("maplatency-operator")?);
    for argument in arguments(&pod["containers"][0])? {
        test.arg(argument.replace("$(NODE_NAME)", NODE));
    }
    test.env_clear().env(
        "KUBECONFIG",
        cluster.kubeconfig_of(NAMESPACE, "maplatency-test").await?,
    );
    let mut test = Daemon::spawn("the test", test, &folder.path().join("test.log"))?;

    let sets: Api<DaemonSet> = Api::namespaced(cluster.client(), NAMESPACE);
    let set = wait::until("the agents' DaemonSet", PATIENCE, async || {
        let set = sets.get_opt("maplatency-agent").await?;
        ensure!(
            set.is_some(),
            "{}\n{}",
            operator.log_tail(),
            test.log_tail()
        );
        Ok(set)
    })
    .await?;
    is_owned_and_set_up(&cluster, &set).await?;
    let identity = identity(&cluster, &set, folder.path()).await?;
    let agent = start_agent(&set, NODE, folder.path(), Some(&identity), &[])?;
    let ended = wait::until("the test to end", PATIENCE, async || test.exited()).await?;
    ensure!(
        ended.success()
            && test
                .output()?
                .contains("lookups of map mlp_helm_test: P50 "),
        "the test: {}\nthe reader: {}\nthe agent: {}\nthe operator: {}",
        test.log_tail(),
        reader.log_tail(),
        agent.log_tail(),
        operator.log_tail()
    );
    let left = cluster
        .kubectl(&["get", "maplatencyprobes", "--output=name"])
        .await?
        .ok()?;
    assert_eq!(left, "", "the test's probe is still there");
    let said = operator.output()?;
    ensure!(!said.contains("forbidden"), "{said}");
    no_more_is_granted(&cluster).await
}

/// The notes tell them, and the manifest in the first one is a probe that is taken.
async fn tells_the_next_three_commands(cluster: &ControlPlane, notes: &str) -> Result<()> {
    for command in [
        "kubectl apply -f - <<END",
        "kubectl get maplatencyprobes --watch",
        "helm test maplatency --namespace maplatency-system",
    ] {
        ensure!(notes.contains(command), "no {command:?} in {notes}");
    }
    let (_, manifest) = notes.split_once("<<END\n").context("no manifest")?;
    let (manifest, _) = manifest.split_once("END").context("no end")?;
    let probe: MapLatencyProbe = serde_yaml::from_str(manifest)?;
    ensure!(probe.spec.check().is_ok(), "{manifest}");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("probe.yaml");
    // A shell does not mind how far it is indented, and neither does YAML.
    std::fs::write(&file, manifest)?;
    let apply = ["apply", "--dry-run=server", "--filename", text(&file)?];
    cluster.kubectl(&apply).await?.ok().map(drop)
}

/// The projected volumes of the agent's pod, with their files.
async fn identity(
    cluster: &ControlPlane,
    set: &DaemonSet,
    folder: &Path,
) -> Result<(Vec<Projected>, PathBuf)> {
    let spec = set.spec.as_ref().context("a spec")?;
    let pod = spec.template.spec.as_ref().context("a pod spec")?;
    let container = pod.containers.first().context("a container")?;
    let volumes = kubelet::projected(pod, container);
    let files = folder.join("identity");
    for volume in &volumes {
        volume
            .write(&cluster.client(), NAMESPACE, NODE, &files)
            .await?;
    }
    Ok((volumes, files))
}

async fn is_owned_and_set_up(cluster: &ControlPlane, set: &DaemonSet) -> Result<()> {
    let uid = cluster
        .kubectl(&[
            "get",
            "deployment",
            "maplatency-operator",
            "--namespace",
            NAMESPACE,
            "--output",
            "jsonpath={.metadata.uid}",
        ])
        .await?
        .ok()?;
    let set = serde_json::to_value(set)?;
    assert_eq!(set["metadata"]["ownerReferences"][0]["uid"], uid);
    let get = [
        "get",
        "networkpolicy",
        "maplatency-agent",
        "--namespace",
        NAMESPACE,
        "--output=json",
    ];
    let policy: Value = serde_json::from_str(&cluster.kubectl(&get).await?.ok()?)?;
    let selected = policy["spec"]["podSelector"]["matchLabels"].as_object();
    for (key, value) in selected.context("a policy that selects pods")? {
        assert_eq!(
            set["spec"]["template"]["metadata"]["labels"][key], *value,
            "{key}"
        );
    }
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "maplatency-agent");
    assert_eq!(pod["priorityClassName"], "maplatency");
    assert_eq!(
        pod["containers"][0]["resources"]["limits"]["memory"],
        "320Mi"
    );
    Ok(())
}

async fn no_more_is_granted(cluster: &ControlPlane) -> Result<()> {
    let may = async |account: &str, words: &str| -> Result<bool> {
        let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
        let words: Vec<&str> = words.split(' ').collect();
        let args = [&["auth", "can-i", "--as", &user], &words[..]].concat();
        Ok(cluster.kubectl(&args).await?.stdout.trim() == "yes")
    };
    for words in [
        "get nodes",
        "list maplatencyprobes.maplatency.dev",
        "get pods -n maplatency-system",
        "get secrets -n maplatency-system",
    ] {
        ensure!(!may("maplatency-agent", words).await?, "agents may {words}");
    }
    for (words, allowed) in [
        ("list maplatencyprobes.maplatency.dev", true),
        (
            "patch maplatencyprobes.maplatency.dev --subresource=status",
            true,
        ),
        ("update maplatencyprobes.maplatency.dev", false),
        ("patch nodes", false),
        ("get secrets -n kube-system", false),
        ("get secrets/another -n maplatency-system", false),
        (
            "get secrets/maplatency-operator-ca -n maplatency-system",
            true,
        ),
        ("create tokenreviews.authentication.k8s.io", true),
        ("create daemonsets.apps -n maplatency-system", true),
        ("create daemonsets.apps -n kube-system", false),
        (
            "delete daemonsets.apps/maplatency-agent -n maplatency-system",
            true,
        ),
        ("delete daemonsets.apps/another -n maplatency-system", false),
        (
            "patch deployments.apps/maplatency-operator -n maplatency-system",
            false,
        ),
        ("create pods -n maplatency-system", false),
    ] {
        ensure!(
            may("maplatency-operator", words).await? == allowed,
            "the operator may {words}: {}",
            !allowed
        );
    }
    Ok(())
}

fn arguments(container: &Value) -> Result<Vec<&str>> {
    let args = container["args"].as_array().context("no arguments")?;
    Ok(args.iter().filter_map(Value::as_str).collect())
}
