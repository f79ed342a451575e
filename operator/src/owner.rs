//! The Deployment that runs this operator, as the owner of what the operator makes.
//!
//! Kubernetes deletes what is owned together with its owner, so that removing the operator leaves nothing behind.
//!
//! Needs get on that Deployment in the operator's namespace.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::chain::chain;

/// Longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether it is still the same.
const LOOK: Duration = Duration::from_secs(10);
/// Pause after an attempt that failed.
const AGAIN: Duration = Duration::from_secs(2);

/// There is no such Deployment, or it may not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not read deployment {name} in namespace {namespace}, which is to own the agents' DaemonSet (--deployment)"
)]
pub struct Error {
    /// Its name.
    name: String,
    /// Where it was looked for.
    namespace: String,
    /// Why.
    source: Box<kube::Error>,
}

/// A reference to a Deployment. Waits for an API server that cannot answer now.
pub async fn find(client: Client, namespace: &str, name: &str) -> Result<OwnerReference, Error> {
    let api: Api<Deployment> = Api::namespaced(client, namespace);
    let deployment = loop {
        match timeout(LIMIT, api.get(name)).await {
            Ok(Ok(deployment)) => break deployment,
            Ok(Err(source)) if refuses(&source) => {
                return Err(Error {
                    name: name.to_owned(),
                    namespace: namespace.to_owned(),
                    source: Box::new(source),
                });
            }
            Ok(Err(failure)) => warn!(
                name,
                error = chain(&failure),
                "Could not read the deployment; trying again"
            ),
            Err(_) => warn!(
                name,
                "The API server did not answer about the deployment in time; trying again"
            ),
        }
        sleep(AGAIN).await;
    };
    Ok(OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: name.to_owned(),
        uid: deployment.metadata.uid.unwrap_or_default(),
        // The operator may then do without the right to change the Deployment's finalizers.
        block_owner_deletion: Some(false),
        controller: Some(false),
    })
}

/// The Deployment has gone, or there is another one of its name.
#[derive(Debug, thiserror::Error)]
#[error(
    "deployment {0} is not the one that this operator began with, and what the operator owned goes with that one; it \
     ends, to begin anew with the one that there is"
)]
pub struct Replaced(String);

/// Waits until the owner is another one. Whatever names the old one is deleted by Kubernetes as often as it is made.
pub async fn replaced(client: Client, namespace: &str, owner: Option<OwnerReference>) -> Replaced {
    let Some(owner) = owner else {
        return std::future::pending().await;
    };
    let api: Api<Deployment> = Api::namespaced(client, namespace);
    loop {
        sleep(LOOK).await;
        // No answer says nothing.
        if let Ok(Ok(found)) = timeout(LIMIT, api.get_metadata_opt(&owner.name)).await
            && found.and_then(|it| it.metadata.uid).as_ref() != Some(&owner.uid)
        {
            return Replaced(owner.name);
        }
    }
}

/// Whether the answer is no, and would be the same again.
fn refuses(failure: &kube::Error) -> bool {
    matches!(failure, kube::Error::Api(status) if matches!(status.code, 400..=499) && status.code != 429)
}
