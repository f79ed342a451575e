//! Installing custom resource definitions as a cluster admin does, and waiting until they serve.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::Value;

use crate::wait;

/// An API server publishes a definition within a second; the rest is room for a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Installs every definition in `path` and waits until each is `Established`.
///
/// `path` is a YAML file with one or more documents, or a folder such as `crds/` whose `.yaml`
/// files are taken in order of name. Returns the names of the definitions. Installing again is
/// allowed and updates them.
pub async fn install(client: &Client, path: &Path) -> Result<Vec<String>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut names = Vec::new();
    for file in yaml_files(path)? {
        for document in documents(&file)? {
            let name = apply(&api, &document)
                .await
                .with_context(|| format!("could not install {}", file.display()))?;
            names.push(name);
        }
    }
    ensure!(!names.is_empty(), "{} defines nothing", path.display());
    for name in &names {
        established(&api, name).await?;
    }
    Ok(names)
}

fn yaml_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = fs::read_dir(path)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<std::io::Result<Vec<_>>>()
        })
        .with_context(|| format!("could not list {}", path.display()))?;
    files.retain(|file| file.extension().is_some_and(|it| it == "yaml"));
    files.sort();
    Ok(files)
}

fn documents(file: &Path) -> Result<Vec<Value>> {
    use serde::Deserialize as _;

    let text =
        fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    serde_yaml::Deserializer::from_str(&text)
        .map(Value::deserialize)
        // A comment before the first `---` is an empty document.
        .filter(|document| !matches!(document, Ok(Value::Null)))
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not YAML", file.display()))
}

async fn apply(api: &Api<CustomResourceDefinition>, document: &Value) -> Result<String> {
    let name = document["metadata"]["name"]
        .as_str()
        .context("a definition has no name")?;
    let kind = &document["kind"];
    ensure!(
        kind == "CustomResourceDefinition",
        "{name} is a {kind}, not a CustomResourceDefinition"
    );
    // The document is sent as written: a pass through the Rust type would lose unknown fields.
    api.patch(
        name,
        &PatchParams::apply("maplatency-e2e").force(),
        &Patch::Apply(document),
    )
    .await
    .with_context(|| format!("the API server refused {name}"))?;
    Ok(name.to_owned())
}

async fn established(api: &Api<CustomResourceDefinition>, name: &str) -> Result<()> {
    let what = format!("{name} to be Established");
    wait::until(&what, LIMIT, async || {
        let conditions = api
            .get_status(name)
            .await?
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        if conditions
            .iter()
            .any(|it| it.type_ == "Established" && it.status == "True")
        {
            return Ok(Some(()));
        }
        let seen: Vec<String> = conditions
            .iter()
            .map(|it| {
                let message = it.message.as_deref().unwrap_or_default();
                format!("{}={} {message}", it.type_, it.status)
            })
            .collect();
        bail!("conditions [{}]", seen.join(", "))
    })
    .await
}
