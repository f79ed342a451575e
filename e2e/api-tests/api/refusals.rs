//! Specs that are refused, with the message that says what to write instead, and those that are taken.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, ResourceExt as _};
use maplatency_core::{MapLatencyProbe, Operation};
use maplatency_e2e::cluster::{AGENTS, Cluster, NAMESPACE, probe_yaml};
use maplatency_e2e::mistakes::{INVALID, REFUSED};
use maplatency_e2e::status::condition;
use maplatency_e2e::workspace;

use super::shared::NODE;

#[tokio::test(flavor = "multi_thread")]
async fn bad_specs_are_refused_with_the_intended_message() -> Result<()> {
    let cluster = Cluster::start(&[(NODE, &[])]).await?;
    let mut wrong = Vec::new();
    for (spec, message) in REFUSED {
        let answer = cluster.apply(&probe_yaml("bad", spec)).await?;
        if answer.success || !answer.stderr.contains(message) {
            wrong.push(format!("{spec}: {}", answer.stderr));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));

    for (spec, message) in INVALID {
        cluster.apply_probe("invalid", spec).await?;
        let status = cluster
            .status("the verdict", "invalid", |it| {
                condition(it, "Ready").is_some()
            })
            .await?;
        let (truth, reason, text) = condition(&status, "Ready").context("Ready")?;
        assert_eq!((truth, reason), ("False", "InvalidSpec"));
        ensure!(text.contains(message), "{spec}: {text}");
    }
    // It is no reason to run agents anywhere.
    cluster.no_daemon_set().await
}

/// The rule in the definition repeats which ones are measured by default.
#[tokio::test(flavor = "multi_thread")]
async fn an_objective_may_be_about_every_operation_that_is_measured_by_default() -> Result<()> {
    let cluster = Cluster::start(&[]).await?;
    for operation in Operation::ALL {
        let spec = format!(
            "{{maps: [{{ids: [1]}}], objectives: [{{name: a, operation: {operation}, thresholdMicroseconds: 5}}]}}"
        );
        let answer = cluster.apply(&probe_yaml("any", &spec)).await?;
        assert_eq!(
            answer.success,
            operation.is_read(),
            "{operation}: {}",
            answer.stderr
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_taken() -> Result<()> {
    let cluster = Cluster::start(&[]).await?;
    let folder = workspace().join("examples");
    let applied = cluster
        .kubectl(&["apply", "-f", folder.to_str().context("UTF-8")?])
        .await?
        .ok()?;
    let there = Api::<MapLatencyProbe>::all(cluster.client())
        .list(&kube::api::ListParams::default())
        .await?;
    assert_eq!(there.items.len(), applied.lines().count());
    for probe in there {
        ensure!(probe.spec.check().is_ok(), "{}", probe.name_any());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_texts_that_are_too_long_are_refused() -> Result<()> {
    let cluster = Cluster::start(&[]).await?;
    let long = "x".repeat(64);
    let entries = vec!["{ids: [1]}"; 17].join(", ");
    let cases = [
        (
            format!("{{maps: [{entries}]}}"),
            "spec.maps: Too many: 17: must have at most 16 items",
        ),
        (
            format!("{{maps: [{{names: [{long}]}}]}}"),
            "spec.maps[0].names[0]: Too long: may not be more than 63",
        ),
        (
            format!("{{maps: [{{pinPaths: [/{long}{long}{long}{long}]}}]}}"),
            "spec.maps[0].pinPaths[0]: Too long: may not be more than 255",
        ),
        (
            format!("{{maps: [{{ids: [1]}}], callers: {{commands: [{long}]}}}}"),
            "spec.callers.commands[0]: Too long: may not be more than 63",
        ),
        (
            format!("{{maps: [{{ids: [1]}}], nodeSelector: {{matchLabels: {{pool: {long}}}}}}}"),
            "a label's value has at most 63 characters",
        ),
        (
            format!(
                "{{maps: [{{ids: [1]}}], nodeSelector: {{matchExpressions: [{{key: a, operator: In, values: [{long}]}}]}}}}"
            ),
            "spec.nodeSelector.matchExpressions[0].values[0]: Too long: may not be more than 63",
        ),
        (
            "{maps: [{ids: [2147483648]}]}".to_owned(),
            "spec.maps[0].ids[0] in body should be less than or equal to 2147483647",
        ),
    ];
    for (spec, message) in cases {
        let answer = cluster.apply(&probe_yaml("bad", &spec)).await?;
        ensure!(
            !answer.success && answer.stderr.contains(message),
            "{spec}: {}",
            answer.stderr
        );
    }
    let sets: Api<DaemonSet> = Api::namespaced(cluster.client(), NAMESPACE);
    ensure!(sets.get_opt(AGENTS).await?.is_none());
    Ok(())
}
