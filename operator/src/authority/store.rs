//! Reads and writes the Secret and the ConfigMap.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys::Held;
use super::{BUNDLE, Error, NAME};

/// Since when the ConfigMap holds what it holds.
const SINCE: &str = "maplatency.dev/published";

/// The two objects.
#[derive(Clone)]
pub(super) struct Store {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    owner: Option<OwnerReference>,
}

/// The objects as they were read. What is written afterwards replaces these versions and no others.
pub(super) struct Found {
    pub(super) secret: Option<Secret>,
    config_map: Option<ConfigMap>,
}

impl Found {
    /// Since when agents can know exactly this bundle.
    pub(super) fn published(&self, bundle: &str) -> Option<Timestamp> {
        let config_map = self.config_map.as_ref()?;
        if config_map.data.as_ref()?.get(BUNDLE)? != bundle {
            return None;
        }
        let since = config_map.metadata.annotations.as_ref()?.get(SINCE)?;
        since.parse().ok()
    }
}

impl Store {
    pub(super) fn new(client: Client, namespace: &str, owner: Option<OwnerReference>) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client, namespace),
            owner,
        }
    }

    pub(super) async fn read(&self) -> Result<Found, Error> {
        let read = |source| Error::Read { source };
        Ok(Found {
            secret: self.secrets.get_opt(NAME).await.map_err(read)?,
            config_map: self.config_maps.get_opt(NAME).await.map_err(read)?,
        })
    }

    /// Puts keys and certificates into the Secret that was found.
    pub(super) async fn keep(&self, held: &Held, found: &Found) -> Result<(), Error> {
        let mut secret = found.secret.clone().unwrap_or_else(|| Secret {
            metadata: self.metadata(),
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        });
        secret.data = Some(held.data());
        write(&self.secrets, "secret", &secret, found.secret.is_some()).await
    }

    /// Puts the bundle into the ConfigMap that was found.
    pub(super) async fn publish(
        &self,
        bundle: &str,
        found: &Found,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut config_map = found.config_map.clone().unwrap_or_else(|| ConfigMap {
            metadata: self.metadata(),
            ..ConfigMap::default()
        });
        config_map.data = Some(BTreeMap::from([(BUNDLE.to_owned(), bundle.to_owned())]));
        config_map
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(SINCE.to_owned(), now.to_string());
        let exists = found.config_map.is_some();
        write(&self.config_maps, "configmap", &config_map, exists).await
    }

    /// Of a new object.
    fn metadata(&self) -> ObjectMeta {
        let labels = [
            ("app.kubernetes.io/name", "maplatency"),
            ("app.kubernetes.io/instance", "maplatency"),
            ("app.kubernetes.io/component", "operator"),
            ("app.kubernetes.io/part-of", "maplatency"),
            ("app.kubernetes.io/managed-by", "maplatency-operator"),
        ];
        ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some(
                labels
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            ),
            owner_references: self.owner.clone().map(|it| vec![it]),
            ..ObjectMeta::default()
        }
    }
}

/// Replaces the version that the object names, or creates it; never anything that came in between.
async fn write<K>(api: &Api<K>, kind: &'static str, object: &K, exists: bool) -> Result<(), Error>
where
    K: Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let outcome = if exists {
        api.replace(NAME, &PostParams::default(), object).await
    } else {
        api.create(&PostParams::default(), object).await
    };
    match outcome {
        Ok(_) => Ok(()),
        // Changed or made since.
        Err(kube::Error::Api(status)) if status.code == 409 => Err(Error::Raced),
        // Deleted since.
        Err(kube::Error::Api(status)) if status.code == 404 && exists => Err(Error::Raced),
        Err(source) => Err(Error::Write { kind, source }),
    }
}
