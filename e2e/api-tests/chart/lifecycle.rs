//! Installed, upgraded and uninstalled at a real API server.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use maplatency_e2e::controlplane::ControlPlane;
use maplatency_e2e::helm::{Helm, Version, chart, previous_chart};
use maplatency_e2e::{not_run, wait, workspace};
use serde_json::{Value, json};

use super::shared::{FOREIGN, NAMESPACE, render, text, values};

/// For the API server to take a definition's endpoints up or down.
const PATIENCE: Duration = Duration::from_secs(30);
const CRD: &str = "customresourcedefinition.apiextensions.k8s.io/maplatencyprobes.maplatency.dev";
/// What is there for as long as the definition is.
const DEFINITION: [&str; 2] = [
    CRD,
    "apiservice.apiregistration.k8s.io/v1alpha1.maplatency.dev",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_object_and_finds_the_operator_restricted() -> Result<()> {
    let cluster = ControlPlane::start().await?;
    // It then warns of pods beyond that level, also of those in templates.
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/warn": "restricted"},
    }});
    cluster.apply_yaml(&namespace.to_string()).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("objects.json");
    // Both Helms render the same, as another test shows.
    let helm = Helm::get(Version::Newest, cluster.kubeconfig()).await?;
    for values in values()? {
        let mut objects = render(&helm, values.as_deref()).await?;
        objects.retain(|it| !FOREIGN.contains(&it["kind"].as_str().unwrap_or_default()));
        // The level of this test is to stay.
        objects.retain(|it| it["kind"] != "Namespace");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        std::fs::write(&file, list.to_string())?;
        let output = cluster.would_apply(&file).await?;
        let warnings: Vec<String> = output
            .stderr
            .lines()
            .filter(|it| it.contains("would violate PodSecurity"))
            .map(str::to_owned)
            .collect();
        output.ok().with_context(|| format!("{values:?}"))?;
        // The test's pod makes a map.
        ensure!(
            warnings.len() == 1 && warnings[0].contains("\"reader\""),
            "{values:?}: {warnings:#?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_uninstalled_leaves_what_crds_keep_says() -> Result<()> {
    let cluster = ControlPlane::start().await?;
    for version in Version::ALL {
        let helm = Helm::get(version, cluster.kubeconfig()).await?;
        for (keep, crd_stays) in [("true", true), ("false", false)] {
            // With the first installation, Helm makes the namespace.
            let before = objects(&cluster).await?;
            let set = format!("crds.keep={keep}");
            let chart = chart();
            helm.run(&[
                "install",
                "maplatency",
                text(&chart)?,
                "--namespace",
                NAMESPACE,
                "--create-namespace",
                "--set",
                &set,
            ])
            .await?
            .ok()?;
            let there = objects(&cluster).await?;
            ensure!(
                there.len() >= before.len() + 14,
                "only these came: {:?}",
                there.difference(&before)
            );
            helm.run(&["uninstall", "maplatency", "--namespace", NAMESPACE])
                .await?
                .ok()?;
            let definition: BTreeSet<String> = DEFINITION.map(str::to_owned).into();
            let mut expected: BTreeSet<String> = before.difference(&definition).cloned().collect();
            expected.insert(format!("namespace/{NAMESPACE}"));
            if crd_stays {
                expected.extend(definition);
            }
            only(&cluster, &expected)
                .await
                .with_context(|| format!("{version:?}, {set}"))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_before_this_one_is_upgraded_and_leaves_its_definition_and_probes() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let before = match previous_chart(folder.path()) {
        Ok(chart) => chart,
        Err(error) => return not_run("the upgrade from the chart before", &format!("{error:#}")),
    };
    let cluster = ControlPlane::start().await?;
    for version in Version::ALL {
        let helm = Helm::get(version, cluster.kubeconfig()).await?;
        let run = async |verb: &str, chart: &Path| {
            let args = [verb, "maplatency", text(chart)?, "--namespace", NAMESPACE];
            let create: &[&str] = if verb == "install" {
                &["--create-namespace"]
            } else {
                &[]
            };
            helm.run(&[&args, create].concat()).await?.ok()
        };
        let mut expected = objects(&cluster).await?;
        run("install", &before).await?;
        let probe = "{apiVersion: maplatency.dev/v1alpha1, kind: MapLatencyProbe, metadata: {name: kept}, spec: {maps: [{ids: [1]}]}}";
        wait::until("the definition to serve", PATIENCE, async || {
            cluster.apply_yaml(probe).await.map(Some)
        })
        .await?;
        run("upgrade", &chart()).await?;
        let stored = cluster
            .kubectl(&[
                "get",
                CRD,
                "--output",
                "jsonpath={.spec.versions[0].schema}",
            ])
            .await?
            .ok()?;
        let shipped: Value = serde_yaml::from_str(&std::fs::read_to_string(
            workspace().join("crds/maplatencyprobes.maplatency.dev.yaml"),
        )?)?;
        let stored: Value = serde_json::from_str(&stored)?;
        ensure!(
            stored == shipped["spec"]["versions"][0]["schema"],
            "the definition is not the new one"
        );
        cluster
            .kubectl(&["get", "maplatencyprobe", "kept"])
            .await?
            .ok()?;
        helm.run(&["uninstall", "maplatency", "--namespace", NAMESPACE])
            .await?
            .ok()?;
        expected.extend(DEFINITION.map(str::to_owned));
        expected.insert(format!("namespace/{NAMESPACE}"));
        expected.insert("maplatencyprobe.maplatency.dev/kept".to_owned());
        only(&cluster, &expected)
            .await
            .with_context(|| format!("{version:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_namespace_gets_the_level_that_agents_need_and_stays() -> Result<()> {
    let cluster = ControlPlane::start().await?;
    for version in Version::ALL {
        let helm = Helm::get(version, cluster.kubeconfig()).await?;
        let chart = chart();
        let mut args = vec!["install", "maplatency", text(&chart)?];
        args.extend(["--namespace", NAMESPACE, "--take-ownership"]);
        args.extend(["--set", "namespace.manage=true"]);
        if version == Version::Oldest {
            // Helm 3 makes one after it has looked for what it takes over.
            cluster
                .kubectl(&["create", "namespace", NAMESPACE])
                .await?
                .ok()?;
        } else {
            args.push("--create-namespace");
        }
        helm.run(&args).await?.ok()?;
        let level = cluster
            .kubectl(&[
                "get",
                "namespace",
                NAMESPACE,
                "--output",
                "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}",
            ])
            .await?
            .ok()?;
        assert_eq!(level, "privileged", "{version:?}");
        helm.run(&["uninstall", "maplatency", "--namespace", NAMESPACE])
            .await?
            .ok()?;
        let phase = cluster
            .kubectl(&[
                "get",
                "namespace",
                NAMESPACE,
                "--output",
                "jsonpath={.status.phase}",
            ])
            .await?
            .ok()?;
        assert_eq!(phase, "Active", "{version:?}");
    }
    Ok(())
}

/// Waits until these objects are there, and no others.
async fn only(cluster: &ControlPlane, expected: &BTreeSet<String>) -> Result<()> {
    wait::until("nothing else to be left", PATIENCE, async || {
        let after = objects(cluster).await?;
        ensure!(
            after == *expected,
            "left {:?}, missing {:?}",
            after.difference(expected).collect::<Vec<_>>(),
            expected.difference(&after).collect::<Vec<_>>()
        );
        Ok(Some(()))
    })
    .await
}

/// Every object but those that the API server makes for itself while it runs.
async fn objects(cluster: &ControlPlane) -> Result<BTreeSet<String>> {
    let kinds = cluster
        .kubectl(&["api-resources", "--verbs=list", "--output=name"])
        .await?
        .ok()?;
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|it| !it.starts_with("events") && !it.starts_with("leases."))
        .collect();
    let names = cluster
        .kubectl(&[
            "get",
            &kinds.join(","),
            "--all-namespaces",
            "--output=name",
            "--ignore-not-found",
        ])
        .await?
        .ok()?;
    Ok(names.lines().map(str::to_owned).collect())
}
