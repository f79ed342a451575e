//! The Deployment that runs this operator, as the owner of what the operator makes.
//!
//! Kubernetes deletes what is owned together with its owner, so that removing the operator leaves nothing behind.
//!
//! Needs get on that Deployment in the operator's namespace.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client};
use tokio::time::timeout;

/// The client repeats requests for many minutes; a kubelet starts the operator again sooner.
const LIMIT: Duration = Duration::from_secs(30);

/// Why the owner is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name, or it may not be read.
    #[error(
        "could not read deployment {name} in namespace {namespace}, which is to own the agents' DaemonSet (--deployment)"
    )]
    Read {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// Why.
        source: kube::Error,
    },
    /// The API server did not answer.
    #[error("the API server did not answer about deployment {name} in time")]
    Timeout {
        /// Its name.
        name: String,
    },
}

/// A reference to a Deployment.
pub async fn find(client: Client, namespace: &str, name: &str) -> Result<OwnerReference, Error> {
    let api: Api<Deployment> = Api::namespaced(client, namespace);
    let read = timeout(LIMIT, api.get(name))
        .await
        .map_err(|_| Error::Timeout {
            name: name.to_owned(),
        })?;
    let deployment = read.map_err(|source| Error::Read {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        source,
    })?;
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
