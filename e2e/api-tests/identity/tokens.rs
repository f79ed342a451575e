//! Which tokens open a stream, and for how long.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use maplatency_e2e::cluster::{AGENTS, Cluster, NAMESPACE, PATIENCE, Transport};
use maplatency_e2e::http::{get, sample};
use maplatency_e2e::kubelet::{self, bound_to};
use maplatency_proto::AUDIENCE;
use tonic::Code;

use super::shared::{Caller, agent_pod, agent_token, ending, event, resigned};

const NODES: [(&str, &[(&str, &str)]); 2] = [("node-a", &[]), ("node-b", &[])];

#[tokio::test(flavor = "multi_thread")]
async fn only_a_token_of_the_nodes_agent_opens_a_stream() -> Result<()> {
    let cluster = Cluster::start_with(&NODES, Transport::tls(&[])).await?;
    let pod = agent_pod(&cluster, "agent-a", "node-a").await?;
    let token = agent_token(&cluster, &pod).await?;
    let caller = Caller::new(&cluster).await?;
    let mut good = caller.stream(&token, "node-a").await?;
    good.is_alive(1).await?;

    for (what, token, (code, reason, message)) in wrong_tokens(&cluster, &pod, &token).await? {
        let header = format!("Bearer {token}");
        let before = refusals(&cluster, reason).await?;
        let status = caller.refused(Some(&header), "node-a").await?;
        ensure!(
            status.code() == code && status.message().contains(message),
            "{what}: {status}"
        );
        ensure!(
            !status.message().contains(&token),
            "{what}: a token is told"
        );
        let after = refusals(&cluster, reason).await?;
        ensure!(after > before, "{what}: {before} and {after} {reason}");
        event(&cluster, &format!("AgentRefused{reason}")).await?;
    }
    for (header, message) in [(None, "no token came"), (Some("Basic Zm9v"), "Bearer")] {
        let status = caller.refused(header, "node-a").await?;
        ensure!(
            status.code() == Code::Unauthenticated && status.message().contains(message),
            "{status}"
        );
    }
    ensure!(refusals(&cluster, "NoToken").await? >= 1.0);
    event(&cluster, "AgentRefusedNoToken").await?;
    let event = event(&cluster, "AgentRefusedOtherNode").await?;
    let note = event.note.unwrap_or_default();
    ensure!(note.contains("node-b") && note.contains("node-a"), "{note}");

    good.is_alive(2).await
}

/// How many the operator has turned away for a reason.
async fn refusals(cluster: &Cluster, reason: &str) -> Result<f64> {
    let text = get(cluster.http(), "/metrics", "").await?.text();
    let label = format!("reason=\"{reason}\"");
    let value = sample(&text, "maplatency_agent_refusals_total", &[&label]);
    Ok(value.unwrap_or_default())
}

/// What is wrong, the token, and the answer: its code, the reason by which it is counted, and a part of the message.
type Wrong = (&'static str, String, (Code, &'static str, &'static str));

/// Tokens that do not let anyone speak for node-a, beside the one of `pod` that does.
async fn wrong_tokens(cluster: &Cluster, pod: &Pod, token: &str) -> Result<Vec<Wrong>> {
    let client = cluster.client();
    kubelet::service_account(&client, NAMESPACE, "another").await?;
    let other = kubelet::pod(&client, NAMESPACE, "other", "another", "node-a").await?;
    let gone = agent_pod(cluster, "gone", "node-a").await?;
    let of_gone = agent_token(cluster, &gone).await?;
    kubelet::delete(&client, &gone).await?;
    let request = async |account, audience, bound| {
        kubelet::token(&client, NAMESPACE, account, audience, bound).await
    };
    let node = Api::<Node>::all(client.clone()).get("node-a").await?;
    let foreign_key = rcgen::KeyPair::generate()?.serialize_pem();
    let on_b = agent_pod(cluster, "agent-b", "node-b").await?;
    Ok(vec![
        (
            "wrong audience",
            request(AGENTS, "another-audience", Some(bound_to(pod))).await?,
            (
                Code::Unauthenticated,
                "OtherAudience",
                "not for audience maplatency-operator",
            ),
        ),
        (
            "expired",
            ending(cluster, token, -1)?,
            (Code::Unauthenticated, "ExpiredToken", "has expired"),
        ),
        (
            "signed by someone else",
            resigned(token, 600, &foreign_key)?,
            (
                Code::Unauthenticated,
                "RejectedToken",
                "does not accept the token",
            ),
        ),
        (
            "of a deleted pod",
            of_gone,
            (
                Code::Unauthenticated,
                "RejectedToken",
                "its pod or service account is gone",
            ),
        ),
        (
            "garbage",
            "garbage".to_owned(),
            (
                Code::Unauthenticated,
                "MalformedToken",
                "is no JSON Web Token",
            ),
        ),
        (
            "of another service account",
            request("another", AUDIENCE, Some(bound_to(&other))).await?,
            (
                Code::PermissionDenied,
                "OtherAccount",
                "run the agent with service account maplatency-agent",
            ),
        ),
        (
            "of another node",
            agent_token(cluster, &on_b).await?,
            (
                Code::PermissionDenied,
                "OtherNode",
                "is of a pod on node node-b",
            ),
        ),
        (
            "of no pod",
            request(AGENTS, AUDIENCE, None).await?,
            (
                Code::PermissionDenied,
                "NoNode",
                "names no pod with its node",
            ),
        ),
        (
            "of the node itself",
            request(AGENTS, AUDIENCE, Some(bound_to(&node))).await?,
            (
                Code::PermissionDenied,
                "NoNode",
                "names no pod with its node",
            ),
        ),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_token_unless_a_fresh_one_came() -> Result<()> {
    let cluster = Cluster::start_with(&NODES, Transport::tls(&[])).await?;
    let caller = Caller::new(&cluster).await?;
    let pods = [
        agent_pod(&cluster, "agent-a", "node-a").await?,
        agent_pod(&cluster, "agent-b", "node-b").await?,
    ];
    let long = [
        agent_token(&cluster, &pods[0]).await?,
        agent_token(&cluster, &pods[1]).await?,
    ];
    let short = |at: usize| ending(&cluster, &long[at], 8);
    let mut renewed = caller.stream(&short(0)?, "node-a").await?;
    let mut left = caller.stream(&short(1)?, "node-b").await?;
    renewed.renew(&long[0]).await?;
    left.is_alive(1).await?;

    let status = left.end().await?;
    ensure!(
        status.code() == Code::Unauthenticated && status.message().contains("has expired"),
        "{status}"
    );
    // Both ended at the same second, and so would have this one.
    renewed.is_alive(1).await?;

    let mut again = caller.stream(&long[1], "node-b").await?;
    again.renew(&long[0]).await?;
    let status = again.end().await?;
    ensure!(
        status.code() == Code::PermissionDenied && status.message().contains("on node node-a"),
        "{status}"
    );
    renewed.is_alive(2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_a_pod_that_is_deleted_ends_with_the_next_review() -> Result<()> {
    let flags = ["--token-review-period", "5s"];
    let cluster = Cluster::start_with(&NODES, Transport::tls(&flags)).await?;
    let caller = Caller::new(&cluster).await?;
    let mut streams = Vec::new();
    for (name, node) in [("agent-a", "node-a"), ("agent-b", "node-b")] {
        let pod = agent_pod(&cluster, name, node).await?;
        let token = agent_token(&cluster, &pod).await?;
        let mut stream = caller.stream(&token, node).await?;
        stream.is_alive(1).await?;
        streams.push(stream);
    }
    let delete = ["delete", "pod", "agent-a", "--namespace", NAMESPACE];
    let now = ["--grace-period=0", "--force"];
    cluster.kubectl(&[&delete[..], &now].concat()).await?.ok()?;

    // The API server itself keeps an answer for ten seconds.
    let status = streams[0].end_within(PATIENCE * 2).await?;
    ensure!(status.code() == Code::Unauthenticated, "{status}");
    streams[1].is_alive(2).await
}
