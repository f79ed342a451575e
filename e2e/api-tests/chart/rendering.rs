//! What Helm makes of the chart, without a cluster.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use maplatency_e2e::helm::{Helm, Version, chart};
use maplatency_e2e::process::workspace_binary;
use maplatency_e2e::{not_run, workspace};
use serde_json::Value;

use super::shared::{FOREIGN, find, render, text, values};

const NOWHERE: &str = "/nonexistent/kubeconfig";

#[tokio::test]
async fn both_helms_render_the_same_objects() -> Result<()> {
    let oldest = Helm::get(Version::Oldest, Path::new(NOWHERE)).await?;
    let newest = Helm::get(Version::Newest, Path::new(NOWHERE)).await?;
    for values in values()? {
        let old = render(&oldest, values.as_deref()).await?;
        let new = render(&newest, values.as_deref()).await?;
        ensure!(old == new, "{values:?} is rendered in two ways");
        ensure!(
            old.len() >= 14,
            "only {} objects with {values:?}",
            old.len()
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_value_that_is_unknown_or_wrong_is_refused_by_its_name() -> Result<()> {
    for version in Version::ALL {
        let helm = Helm::get(version, Path::new(NOWHERE)).await?;
        for (set, named) in [
            ("operatr.logFormat=json", "operatr"),
            ("agent.resource.limits.memory=1Gi", "resource"),
            ("agent.tolerations[0].keys=a", "keys"),
            ("operator.replicas=0", "replicas"),
            ("operator.nodeClassLabel=a b", "nodeClassLabel"),
            ("agent.metricsPort=70000", "metricsPort"),
            ("agent.metricsPort=80", "metricsPort"),
            ("agent.maxUnavailable=0%", "maxUnavailable"),
            ("agent.memoryBudget=512MB", "memoryBudget"),
            ("agent.resources.limits.memory=plenty", "memory"),
            ("operator.image.digest=sha256:12", "digest"),
            ("agent.nodes[0].operator=Lt", "operator"),
        ] {
            let chart = chart();
            let args = [
                "template",
                "x",
                text(&chart)?,
                "--kube-version",
                "1.37.1",
                "--set",
                set,
            ];
            let output = helm.run(&args).await?;
            ensure!(
                !output.success && output.stderr.contains(named),
                "{version:?} with {set}: {}",
                output.stderr
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_older_kubernetes_is_refused() -> Result<()> {
    for version in Version::ALL {
        let helm = Helm::get(version, Path::new(NOWHERE)).await?;
        let chart = chart();
        let args = ["template", "x", text(&chart)?, "--kube-version", "1.32.9"];
        let output = helm.run(&args).await?;
        ensure!(
            !output.success && output.stderr.contains(">=1.33.0-0"),
            "{}",
            output.stderr
        );
    }
    Ok(())
}

/// The API server of the other tests does not know these kinds.
#[tokio::test]
async fn kinds_of_other_projects_fit_those_projects_types() -> Result<()> {
    if !has_go() {
        return not_run(
            "the chart's PodMonitor and SecurityContextConstraints",
            "there is no go",
        );
    }
    let helm = Helm::get(Version::Newest, Path::new(NOWHERE)).await?;
    let everything = values()?.pop().flatten();
    let mut objects = render(&helm, everything.as_deref()).await?;
    objects.retain(|it| FOREIGN.contains(&it["kind"].as_str().unwrap_or_default()));
    assert_eq!(objects.len(), 4);
    assert_eq!(fits(&objects)?, None);

    objects[0]["spec"] = serde_json::json!({"nobody": 1});
    let said = fits(&objects)?.unwrap_or_default();
    ensure!(said.contains("unknown field"), "{said:?}");
    Ok(())
}

/// What the types' own decoder has against them.
fn fits(objects: &[Value]) -> Result<Option<String>> {
    let mut child = Command::new("go")
        .args(["run", "."])
        .current_dir(workspace().join("e2e/chart-types"))
        // As the control plane is built, so that what both need is compiled once.
        .envs([
            ("CGO_ENABLED", "0"),
            ("GOTOOLCHAIN", "local"),
            ("GOFLAGS", "-trimpath"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("a pipe was asked for")?;
    input.write_all(&serde_json::to_vec(objects)?)?;
    drop(input);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((!output.status.success()).then_some(said))
}

fn has_go() -> bool {
    let go = Command::new("go").arg("version").output();
    go.is_ok_and(|it| it.status.success())
}

/// The operator itself reads what the chart writes for it. It ends at the next step, where it looks for its API server.
#[tokio::test]
async fn the_operator_understands_its_settings_and_arguments() -> Result<()> {
    let helm = Helm::get(Version::Newest, Path::new(NOWHERE)).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("agents.yaml");
    for values in values()? {
        let objects = render(&helm, values.as_deref()).await?;
        let settings =
            &find(&objects, "ConfigMap", "maplatency-agent-settings")?["data"]["agents.yaml"];
        std::fs::write(&file, settings.as_str().context("no settings")?)?;
        let deployment = find(&objects, "Deployment", "maplatency-operator")?;
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let args = container["args"].as_array().context("no arguments")?;
        let args = args
            .iter()
            .filter_map(Value::as_str)
            .map(|it| it.replace("/etc/maplatency/agents.yaml", &file.display().to_string()));
        let output = Command::new(workspace_binary("maplatency-operator")?)
            .args(args)
            .env_clear()
            .env("KUBECONFIG", NOWHERE)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            said.contains("could not find an API server"),
            "with {values:?} the operator said {said}"
        );
    }
    Ok(())
}

/// They leave an object out, or are outranked by another value that is there.
const AS_BY_DEFAULT: [&str; 7] = [
    "agent.image.digest",
    "crds.install",
    "networkPolicy.create",
    "operator.image.tag",
    "podDisruptionBudget.create",
    "priorityClass.create",
    "selfTest.create",
];

#[test]
fn the_values_of_these_tests_differ_from_every_default() -> Result<()> {
    let read = |path: &Path| -> Result<Value> {
        Ok(serde_yaml::from_str(&std::fs::read_to_string(path)?)?)
    };
    let defaults = read(&chart().join("values.yaml"))?;
    let tests = read(&workspace().join("e2e/api-tests/chart/everything.yaml"))?;
    let mut same = as_by_default("", &defaults, &tests);
    same.sort_unstable();
    assert_eq!(same, AS_BY_DEFAULT);
    Ok(())
}

/// Paths of the values that are absent or equal.
fn as_by_default(path: &str, defaults: &Value, values: &Value) -> Vec<String> {
    let fields = defaults.as_object().filter(|it| !it.is_empty());
    let Some(fields) = fields else {
        let is_same = values.is_null() || values == defaults;
        return is_same.then(|| path.to_owned()).into_iter().collect();
    };
    let below = |(name, value): (&String, &Value)| {
        let path = format!("{path}.{name}");
        as_by_default(path.trim_start_matches('.'), value, &values[name])
    };
    fields.iter().flat_map(below).collect()
}

#[tokio::test]
async fn the_account_of_agents_has_no_rights_and_no_token() -> Result<()> {
    let helm = Helm::get(Version::Newest, Path::new(NOWHERE)).await?;
    let objects = render(&helm, None).await?;
    let account = find(&objects, "ServiceAccount", "maplatency-agent")?;
    assert_eq!(account["automountServiceAccountToken"], false);
    for object in &objects {
        let subjects = object["subjects"].as_array().into_iter().flatten();
        for subject in subjects {
            ensure!(
                subject["name"] != "maplatency-agent",
                "the agents' account has rights: {object}"
            );
        }
    }
    Ok(())
}

#[test]
fn chart_and_programs_have_one_version() -> Result<()> {
    let text = std::fs::read_to_string(chart().join("Chart.yaml"))?;
    let chart: Value = serde_yaml::from_str(&text)?;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(chart["version"], version);
    assert_eq!(chart["appVersion"], version);
    Ok(())
}

#[test]
fn the_readme_is_made_of_the_comments() -> Result<()> {
    if !has_go() {
        return not_run("the chart's README against its values", "there is no go");
    }
    let output = Command::new(workspace().join("scripts/chart-readme.sh"))
        .arg("--check")
        .output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[test]
fn every_value_has_a_comment() -> Result<()> {
    let readme = std::fs::read_to_string(chart().join("README.md"))?;
    let rows: Vec<&str> = readme.lines().filter(|it| it.starts_with("| ")).collect();
    ensure!(rows.len() > 40, "{} rows", rows.len());
    for row in rows {
        ensure!(!row.ends_with("|  |"), "no comment: {row}");
    }
    Ok(())
}
