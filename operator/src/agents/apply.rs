//! Writes a plan to the API server.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use tokio::time::timeout;

use super::{Error, NAME, Plan};

/// Field manager of everything that the operator owns, except status.
const MANAGER: &str = "maplatency-operator";
/// The client alone would wait for as long as it takes; the caller has other things to do.
const LIMIT: Duration = Duration::from_secs(20);

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The DaemonSet is as planned.
    Applied,
    /// The DaemonSet is on its way out.
    Deleted,
}

/// Carries out a plan.
pub(super) async fn apply(api: &Api<DaemonSet>, plan: &Plan) -> Result<Option<Done>, Error> {
    let write = async {
        match plan {
            Plan::Keep => Ok(None),
            Plan::Apply(set) => api
                .patch(
                    NAME,
                    &PatchParams::apply(MANAGER).force(),
                    &Patch::Apply(set),
                )
                .await
                .map(|_| Some(Done::Applied))
                .map_err(|source| Error::Apply { source }),
            Plan::Delete => match api.delete(NAME, &DeleteParams::background()).await {
                Ok(_) => Ok(Some(Done::Deleted)),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(source) => Err(Error::Delete { source }),
            },
        }
    };
    timeout(LIMIT, write).await.unwrap_or(Err(Error::Timeout))
}
