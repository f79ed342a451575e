//! What there is in the chart, and that its parts name each other rightly.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use maplatency_e2e::helm::{Helm, Version, chart};
use serde_json::{Value, json};

use super::shared::{find, render, values};

async fn rendered(values: Option<&Path>) -> Result<Vec<Value>> {
    let helm = Helm::get(Version::Newest, Path::new("/nonexistent/kubeconfig")).await?;
    render(&helm, values).await
}

#[tokio::test]
async fn nothing_is_missing_and_nothing_is_there_besides() -> Result<()> {
    let objects = rendered(None).await?;
    let mut names: Vec<String> = objects
        .iter()
        .map(|it| {
            let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
            format!("{} {}", text(&it["kind"]), text(&it["metadata"]["name"]))
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "ClusterRole maplatency-operator",
            "ClusterRole maplatency-test",
            "ClusterRoleBinding maplatency-operator",
            "ClusterRoleBinding maplatency-test",
            "ConfigMap maplatency-agent-settings",
            "CustomResourceDefinition maplatencyprobes.maplatency.dev",
            "Deployment maplatency-operator",
            "Job maplatency-test",
            "NetworkPolicy maplatency-agent",
            "NetworkPolicy maplatency-operator",
            "PodDisruptionBudget maplatency-operator",
            "PriorityClass maplatency",
            // In its namespace, and for events of probes in another one.
            "Role maplatency-operator",
            "Role maplatency-operator",
            "RoleBinding maplatency-operator",
            "RoleBinding maplatency-operator",
            "Service maplatency-gateway",
            "ServiceAccount maplatency-agent",
            "ServiceAccount maplatency-operator",
            "ServiceAccount maplatency-test",
        ]
    );
    Ok(())
}

/// No pod network of the tests enforces policies, so a wrong label would not show.
#[tokio::test]
async fn policies_budget_and_service_are_about_pods_and_ports_that_there_are() -> Result<()> {
    for values in values()? {
        let objects = rendered(values.as_deref()).await?;
        let deployment = find(&objects, "Deployment", "maplatency-operator")?;
        let pod = &deployment["spec"]["template"];
        let operator = &pod["metadata"]["labels"];
        // As the operator labels them; `grants` looks at a DaemonSet of it.
        let agent = json!({
            "app.kubernetes.io/name": "maplatency",
            "app.kubernetes.io/instance": "maplatency",
            "app.kubernetes.io/component": "agent",
        });
        let ports = pod["spec"]["containers"][0]["ports"].as_array();
        let ports: Vec<&Value> = ports.into_iter().flatten().map(|it| &it["name"]).collect();

        let service = find(&objects, "Service", "maplatency-gateway")?;
        selects(&service["spec"]["selector"], operator)?;
        ensure!(
            ports.contains(&&service["spec"]["ports"][0]["targetPort"]),
            "{service}"
        );
        let budget = find(&objects, "PodDisruptionBudget", "maplatency-operator");
        if let Ok(budget) = budget {
            selects(&budget["spec"]["selector"]["matchLabels"], operator)?;
        }
        let Ok(of_operator) = find(&objects, "NetworkPolicy", "maplatency-operator") else {
            continue;
        };
        let of_agent = find(&objects, "NetworkPolicy", "maplatency-agent")?;
        selects(&of_operator["spec"]["podSelector"]["matchLabels"], operator)?;
        selects(&of_agent["spec"]["podSelector"]["matchLabels"], &agent)?;
        let only = &of_operator["spec"]["ingress"][0];
        selects(&only["from"][0]["podSelector"]["matchLabels"], &agent)?;
        ensure!(ports.contains(&&only["ports"][0]["port"]), "{of_operator}");
        let only = &of_agent["spec"]["egress"][0];
        selects(&only["to"][0]["podSelector"]["matchLabels"], operator)?;
        ensure!(ports.contains(&&only["ports"][0]["port"]), "{of_agent}");
    }
    Ok(())
}

/// Whether a selector matches labels, and asks for something.
fn selects(selector: &Value, labels: &Value) -> Result<()> {
    let selector = selector.as_object().context("no selector")?;
    ensure!(!selector.is_empty(), "it selects everything");
    for (key, value) in selector {
        ensure!(labels[key] == *value, "{key} is {value}, and {labels}");
    }
    Ok(())
}

#[tokio::test]
async fn each_profile_leaves_out_nodes_that_can_have_no_agent() -> Result<()> {
    for (name, node) in [
        ("ack.yaml", "virtual-kubelet"),
        ("eks.yaml", "fargate"),
        ("gke.yaml", "gvisor"),
    ] {
        let values = chart().join("profiles").join(name);
        let objects = rendered(Some(&values)).await?;
        let settings = find(&objects, "ConfigMap", "maplatency-agent-settings")?;
        let agents = settings["data"]["agents.yaml"]
            .as_str()
            .context("no settings")?;
        ensure!(agents.contains(node), "{name:?}: {agents}");
    }
    Ok(())
}
