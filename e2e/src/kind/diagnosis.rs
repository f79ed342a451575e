//! How a cluster is, in words that a failed test can show.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::KindCluster;

/// Lines of each log, and events.
const TAIL: &str = "40";
const EVENTS: usize = 60;
/// These are shown only if something is wrong with them.
const SYSTEM: &str = "kube-system";

/// Nodes, pods, the newest events, and the logs of pods that are not ready or not of the system.
pub(super) async fn of(cluster: &KindCluster) -> String {
    let mut text = String::new();
    for arguments in [
        &["get", "nodes", "--output=wide"][..],
        &["get", "pods", "--all-namespaces", "--output=wide"],
    ] {
        add(cluster, &mut text, arguments, usize::MAX).await;
    }
    let events = [
        "get",
        "events",
        "--all-namespaces",
        "--sort-by=.metadata.creationTimestamp",
    ];
    add(cluster, &mut text, &events, EVENTS).await;
    match worth_showing(cluster).await {
        Ok(pods) => {
            for Pod {
                namespace,
                name,
                ready,
                restarted,
            } in pods
            {
                let of = ["--namespace", namespace.as_str(), name.as_str()];
                if !ready {
                    let describe = [&["describe", "pod"], &of[..]].concat();
                    add(cluster, &mut text, &describe, usize::MAX).await;
                }
                let logs = ["logs", "--all-containers", "--prefix", "--tail", TAIL];
                let logs = [&logs[..], &of[..]].concat();
                add(cluster, &mut text, &logs, usize::MAX).await;
                if restarted {
                    let previous = [&logs[..], &["--previous"]].concat();
                    add(cluster, &mut text, &previous, usize::MAX).await;
                }
            }
        }
        Err(error) => _ = writeln!(text, "the pods: {error:#}"),
    }
    text
}

/// Adds a command and the last lines of what kubectl says to it.
async fn add(cluster: &KindCluster, text: &mut String, arguments: &[&str], last: usize) {
    let said = match cluster.kubectl(arguments).await {
        Ok(output) => output.stdout + &output.stderr,
        Err(error) => format!("{error:#}"),
    };
    let lines: Vec<_> = said.lines().collect();
    let shown = lines[lines.len().saturating_sub(last)..].join("\n");
    _ = writeln!(text, "--- kubectl {}\n{shown}", arguments.join(" "));
}

#[derive(Debug, PartialEq, Eq)]
struct Pod {
    namespace: String,
    name: String,
    ready: bool,
    restarted: bool,
}

async fn worth_showing(cluster: &KindCluster) -> Result<Vec<Pod>> {
    let arguments = ["get", "pods", "--all-namespaces", "--output=json"];
    let list: Value = serde_json::from_str(&cluster.kubectl(&arguments).await?.ok()?)?;
    Ok(select(&list))
}

fn select(list: &Value) -> Vec<Pod> {
    let pods = list["items"].as_array().into_iter().flatten();
    pods.map(|pod| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let each = |key: &str| pod["status"][key].as_array().into_iter().flatten();
        let ready = each("conditions").any(|it| it["type"] == "Ready" && it["status"] == "True");
        Pod {
            namespace: text(&pod["metadata"]["namespace"]),
            name: text(&pod["metadata"]["name"]),
            ready: ready || pod["status"]["phase"] == "Succeeded",
            restarted: each("containerStatuses").any(|it| it["restartCount"] != 0),
        }
    })
    .filter(|it| it.namespace != SYSTEM || !it.ready)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn healthy_pods_of_the_system_are_left_out() {
        let pod = |namespace: &str, name: &str, ready: &str, restarts: u8| {
            json!({
                "metadata": {"namespace": namespace, "name": name},
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": ready}],
                    "containerStatuses": [{"restartCount": restarts}],
                },
            })
        };
        let list = json!({"items": [
            pod("kube-system", "coredns", "True", 0),
            pod("kube-system", "kube-proxy", "False", 0),
            pod("default", "reader", "True", 2),
        ]});

        let pods = select(&list);

        let shown: Vec<_> = pods
            .iter()
            .map(|it| (it.name.as_str(), it.ready, it.restarted))
            .collect();
        assert_eq!(
            shown,
            [("kube-proxy", false, false), ("reader", true, true)]
        );
    }
}
