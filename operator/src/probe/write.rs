//! Writes a status.

use std::sync::Once;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::warn;

use super::Error;

/// Field manager of statuses.
const MANAGER: &str = "maplatency-operator-status";
/// The client alone would wait for as long as it takes; by then the figures are old.
const LIMIT: Duration = Duration::from_secs(20);
/// What the API server says of a field that the definition lacks, behind its path.
const UNDECLARED: &str = ": field not declared in schema";
/// Once is enough: each write meets it again.
static TOLD: Once = Once::new();

/// Writes a status by server-side apply. A probe that is gone, or another one by now, is left alone, and nothing is
/// written. What the resource's definition, which may be an older one, does not know is left out.
pub(super) async fn patch(
    client: &Client,
    probe: &MapLatencyProbe,
    status: &MapLatencyProbeStatus,
) -> Result<bool, Error> {
    let api: Api<MapLatencyProbe> = Api::all(client.clone());
    let name = probe.name_any();
    let failed = |source| Error::Write {
        probe: name.clone(),
        source,
    };
    let mut body = json!({
        "apiVersion": "maplatency.dev/v1alpha1",
        "kind": "MapLatencyProbe",
        // With the uid, a probe of the same name that was made since is a conflict.
        "metadata": { "name": name, "uid": probe.metadata.uid },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    loop {
        let patch = Patch::Apply(&body);
        let answer = match timeout(LIMIT, api.patch_status(&name, &params, &patch)).await {
            Ok(Ok(_)) => return Ok(true),
            Ok(Err(kube::Error::Api(answer))) => answer,
            Ok(Err(failure)) => return Err(failed(failure)),
            Err(_) => return Err(Error::Timeout { probe: name }),
        };
        if matches!(answer.code, 404 | 409) {
            return Ok(false);
        }
        let unknown: Vec<String> = undeclared(&answer.message).map(str::to_owned).collect();
        // One that was not there to be removed would come again.
        if unknown.is_empty() || !unknown.iter().all(|it| remove(&mut body, it)) {
            return Err(failed(kube::Error::Api(answer)));
        }
        TOLD.call_once(|| {
            warn!(
                fields = unknown.join(" "),
                "The definition of MapLatencyProbe is older than this operator and lacks fields of the status, which are left out; \
                 apply crds/ of this version"
            );
        });
    }
}

/// Paths of fields that the definition lacks, such as `.status.nodes.partialWindow`.
fn undeclared(message: &str) -> impl Iterator<Item = &str> {
    let parts = message.match_indices(UNDECLARED);
    parts.filter_map(|(end, _)| message[..end].split_whitespace().next_back())
}

/// Removes a field; of one in a list, the list. Gives whether it was there.
fn remove(body: &mut Value, path: &str) -> bool {
    let path = path.split('[').next().unwrap_or_default();
    let mut names = path.split('.').filter(|it| !it.is_empty());
    let Some(last) = names.next_back() else {
        return false;
    };
    let parent = names.try_fold(body, |it, name| it.get_mut(name));
    let parent = parent.and_then(Value::as_object_mut);
    parent.is_some_and(|it| it.remove(last).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "failed to create typed patch object (/traffic; maplatency.dev/v1alpha1, Kind=MapLatencyProbe): \
                       .status.nodes.partialWindow: field not declared in schema";
    const TWO: &str = "failed to create typed patch object (/x; maplatency.dev/v1alpha1, Kind=MapLatencyProbe): errors:\n  \
                       .status.objectives: field not declared in schema\n  \
                       .status.slowest[0].new: field not declared in schema";

    #[test]
    fn fields_that_a_definition_lacks_are_read_from_the_refusal() {
        let paths = |message| undeclared(message).collect::<Vec<_>>();
        assert_eq!(paths(ONE), [".status.nodes.partialWindow"]);
        assert_eq!(paths(TWO), [".status.objectives", ".status.slowest[0].new"]);
        assert!(paths("the server is overloaded").is_empty());
    }

    #[test]
    fn what_is_removed_takes_nothing_else_with_it() {
        let mut body = json!({"status": {"nodes": {"ready": 1, "partialWindow": {}}, "slowest": [{"new": 1}]}});
        assert!(remove(&mut body, ".status.nodes.partialWindow"));
        assert!(!remove(&mut body, ".status.nodes.partialWindow"));
        assert!(!remove(&mut body, ".status.other.field"));
        assert!(remove(&mut body, ".status.slowest[0].new"));
        assert_eq!(body, json!({"status": {"nodes": {"ready": 1}}}));
    }
}
