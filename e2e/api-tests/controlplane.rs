//! The control plane of the other tests, tested: it is a real one, and it leaves nothing behind.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{
        BoundObjectReference, TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec,
    },
    core::v1::{ConfigMap, Namespace, Pod, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use maplatency_e2e::{controlplane::ControlPlane, crd, wait};
use serde_json::json;

/// The API server makes this namespace itself, shortly after it is ready.
async fn default_namespace(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    wait::until(
        "the default namespace",
        Duration::from_secs(30),
        async || Ok(namespaces.get_opt("default").await?.map(|_| ())),
    )
    .await
}

#[tokio::test]
async fn a_fresh_control_plane_serves_and_stores() -> Result<()> {
    let cluster = ControlPlane::start().await?;
    let client = cluster.client();
    default_namespace(&client).await?;
    let config_maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let written = ConfigMap {
        metadata: ObjectMeta {
            name: Some("greeting".to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("text".to_owned(), "hello".to_owned())])),
        ..ConfigMap::default()
    };

    config_maps.create(&PostParams::default(), &written).await?;
    let read = cluster
        .kubectl(&[
            "get",
            "configmap",
            "greeting",
            "-o",
            "jsonpath={.data.text}",
        ])
        .await?
        .ok()?;

    assert_eq!(read, "hello");
    Ok(())
}

#[tokio::test]
async fn what_kubectl_applies_the_client_reads_and_a_bad_manifest_is_an_error() -> Result<()> {
    let cluster = ControlPlane::start().await?;
    let client = cluster.client();
    default_namespace(&client).await?;

    cluster
        .apply_yaml(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: one, namespace: default}, data: {a: b}}",
        )
        .await?;
    let refused = cluster
        .apply_yaml("{apiVersion: v1, kind: ConfigMap, metadata: {name: Two, namespace: default}}")
        .await
        .unwrap_err()
        .to_string();

    let config_maps: Api<ConfigMap> = Api::namespaced(client, "default");
    assert_eq!(config_maps.get("one").await?.data.unwrap()["a"], "b");
    assert!(refused.contains("`kubectl apply -f -` failed"), "{refused}");
    assert!(refused.contains("\"Two\" is invalid"), "{refused}");
    Ok(())
}

const WIDGETS: &str = "
# A comment makes the first document an empty one.
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.dev}
spec:
  group: example.dev
  names: {kind: Widget, plural: widgets}
  scope: Cluster
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

#[tokio::test]
async fn a_definition_is_served_once_it_is_installed() -> Result<()> {
    let cluster = ControlPlane::start().await?;
    let client = cluster.client();
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("widgets.yaml"), WIDGETS)?;

    let names = crd::install(&client, dir.path()).await?;
    // Installing what is there must work, so that tests need not ask first.
    crd::install(&client, &dir.path().join("widgets.yaml")).await?;

    assert_eq!(names, ["widgets.example.dev"]);
    cluster
        .apply_yaml("{apiVersion: example.dev/v1, kind: Widget, metadata: {name: one}}")
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_token_bound_to_a_pod_names_the_node_of_that_pod() -> Result<()> {
    let cluster = ControlPlane::start().await?;
    let client = cluster.client();
    default_namespace(&client).await?;
    let pod = pod_on_node(&client, "node-a").await?;
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec!["maplatency".to_owned()],
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(pod.name_any()),
                uid: pod.uid(),
            }),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };

    let token = Api::<ServiceAccount>::namespaced(client.clone(), "default")
        .create_token_request("agent", &PostParams::default(), &request)
        .await?
        .status
        .context("the token request has no status")?
        .token;
    let review = review(&client, &token, "maplatency").await?;
    let elsewhere = self::review(&client, &token, "another-audience").await;

    let extra = review.extra.context("the review has no extra fields")?;
    assert_eq!(extra["authentication.kubernetes.io/node-name"], ["node-a"]);
    assert!(elsewhere.is_err(), "a token is good for its audience alone");
    Ok(())
}

async fn pod_on_node(client: &Client, node: &str) -> Result<Pod> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let account = serde_json::from_value(json!({"metadata": {"name": "agent"}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "agent"},
        "spec": {
            "serviceAccountName": "agent",
            "nodeName": node,
            "containers": [{"name": "agent", "image": "agent"}],
        },
    }))?;
    Ok(pods.create(&PostParams::default(), &pod).await?)
}

async fn review(
    client: &Client,
    token: &str,
    audience: &str,
) -> Result<k8s_openapi::api::authentication::v1::UserInfo> {
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![audience.to_owned()]),
        },
        ..TokenReview::default()
    };
    let status = Api::<TokenReview>::all(client.clone())
        .create(&PostParams::default(), &review)
        .await?
        .status
        .context("the review has no status")?;
    ensure!(status.authenticated == Some(true), "not authenticated");
    status.user.context("the review names no user")
}

#[tokio::test]
async fn no_process_stays_after_the_control_plane_is_dropped() -> Result<()> {
    let cluster = ControlPlane::start().await?;
    let processes = cluster.pids().map(|pid| format!("/proc/{pid}"));
    let folder = cluster.kubeconfig().parent().unwrap().to_owned();
    for process in &processes {
        assert!(Path::new(process).exists(), "{process} should run");
    }

    drop(cluster);

    for process in &processes {
        assert!(!Path::new(process).exists(), "{process} still runs");
    }
    assert!(!folder.exists(), "{} was left behind", folder.display());
    Ok(())
}
