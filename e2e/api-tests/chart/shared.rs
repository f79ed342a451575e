//! What the tests do with the chart.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use maplatency_e2e::helm::{Helm, chart};
use maplatency_e2e::workspace;
use serde::Deserialize as _;
use serde_json::Value;

pub(crate) const NAMESPACE: &str = "maplatency-system";

/// Kinds of other projects.
pub(crate) const FOREIGN: [&str; 2] = ["PodMonitor", "SecurityContextConstraints"];

/// Values files that the chart is tried with: none, every profile, and one that asks for all there is.
pub(crate) fn values() -> Result<Vec<Option<PathBuf>>> {
    let mut profiles: Vec<PathBuf> = std::fs::read_dir(chart().join("profiles"))
        .context("could not list the profiles")?
        .map(|it| Ok(it?.path()))
        .collect::<std::io::Result<_>>()?;
    profiles.sort();
    ensure!(profiles.len() >= 4, "profiles are missing: {profiles:?}");
    let everything = workspace().join("e2e/api-tests/chart/everything.yaml");
    Ok([None]
        .into_iter()
        .chain(profiles.into_iter().map(Some))
        .chain([Some(everything)])
        .collect())
}

/// What the chart becomes.
pub(crate) async fn render(helm: &Helm, values: Option<&Path>) -> Result<Vec<Value>> {
    let chart = chart();
    let mut args = vec!["template", "maplatency", text(&chart)?];
    args.extend(["--namespace", NAMESPACE, "--kube-version", "1.37.1"]);
    if let Some(values) = values {
        args.extend(["--values", text(values)?]);
    }
    let yaml = helm.run(&args).await?.ok()?;
    serde_yaml::Deserializer::from_str(&yaml)
        .map(Value::deserialize)
        .filter(|it| !matches!(it, Ok(Value::Null)))
        .collect::<Result<_, _>>()
        .context("the chart rendered no YAML")
}

/// The one object of that kind and name.
pub(crate) fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let mut fitting = objects
        .iter()
        .filter(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    let first = fitting
        .next()
        .with_context(|| format!("there is no {kind} {name}"))?;
    ensure!(fitting.next().is_none(), "{kind} {name} is there twice");
    Ok(first)
}

pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}
