//! What a kubelet does for a pod with an identity: the pod itself, its token, and the files of its projected volume.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Pod, PodSpec, ServiceAccount, VolumeProjection,
};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::json;

/// Makes a service account, unless it is there.
pub async fn service_account(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    match accounts.create(&PostParams::default(), &account).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        outcome => Ok(outcome.map(drop)?),
    }
}

/// Makes a pod of a service account on a node, unless it is there.
pub async fn pod(
    client: &Client,
    namespace: &str,
    name: &str,
    account: &str,
    node: &str,
) -> Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    if let Some(pod) = pods.get_opt(name).await? {
        return Ok(pod);
    }
    let pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": false,
            "nodeName": node,
            "containers": [{"name": "agent", "image": "agent"}],
        },
    }))?;
    Ok(pods.create(&PostParams::default(), &pod).await?)
}

/// Deletes a pod as a kubelet does in the end: at once.
pub async fn delete(client: &Client, pod: &Pod) -> Result<()> {
    let namespace = pod.namespace().context("a pod has a namespace")?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let at_once = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    pods.delete(&pod.name_any(), &at_once).await?;
    Ok(())
}

/// To this a token can be bound: it counts for as long as that is there.
pub fn bound_to<K: Resource<DynamicType = ()>>(object: &K) -> BoundObjectReference {
    BoundObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: Some(object.name_any()),
        uid: object.uid(),
    }
}

/// A token of a service account for an audience, bound to something if it is to be.
pub async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    audience: &str,
    bound: Option<BoundObjectReference>,
) -> Result<String> {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            bound_object_ref: bound,
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    Ok(answer
        .status
        .context("the token request has no status")?
        .token)
}

/// One projected volume of a container.
#[derive(Clone, Debug)]
pub struct Projected {
    /// Where the container has it.
    mount_path: String,
    account: String,
    sources: Vec<VolumeProjection>,
}

/// The projected volumes that a container mounts.
pub fn projected(pod: &PodSpec, container: &Container) -> Vec<Projected> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .filter_map(|mount| {
            let volume = pod
                .volumes
                .iter()
                .flatten()
                .find(|it| it.name == mount.name)?;
            Some(Projected {
                mount_path: mount.mount_path.clone(),
                account: pod.service_account_name.clone().unwrap_or_default(),
                sources: volume.projected.as_ref()?.sources.clone()?,
            })
        })
        .collect()
}

impl Projected {
    /// An argument as the container would see it, with the files in `folder`.
    pub fn resolve(&self, argument: &str, folder: &Path) -> String {
        argument.replace(&self.mount_path, &folder.display().to_string())
    }

    /// Writes the files as they should be now, for the agent's pod on a node.
    pub async fn write(
        &self,
        client: &Client,
        namespace: &str,
        node: &str,
        folder: &Path,
    ) -> Result<()> {
        fs::create_dir_all(folder)?;
        let pod = pod(
            client,
            namespace,
            &format!("agent-on-{node}"),
            &self.account,
            node,
        )
        .await?;
        for source in &self.sources {
            if let Some(it) = &source.service_account_token {
                let audience = it.audience.as_deref().unwrap_or_default();
                let token = token(
                    client,
                    namespace,
                    &self.account,
                    audience,
                    Some(bound_to(&pod)),
                )
                .await?;
                replace(&folder.join(&it.path), &token)?;
            }
            if let Some(it) = &source.config_map {
                let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
                let data = config_maps.get(&it.name).await?.data.unwrap_or_default();
                for item in it.items.iter().flatten() {
                    let text = data.get(&item.key).context("the key is in the ConfigMap")?;
                    replace(&folder.join(&item.path), text)?;
                }
            }
        }
        Ok(())
    }
}

/// Replaces a file at once, as a kubelet does.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)?;
    Ok(())
}
