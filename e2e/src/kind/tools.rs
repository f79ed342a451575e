//! kind and kubectl: the ones of this machine, or ones that are built.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::command::{lines_of_script, output_of};
use crate::workspace;

/// The programs that a cluster is made with, and used with later.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Tools {
    /// kind.
    pub(super) kind: PathBuf,
    /// kubectl.
    pub(super) kubectl: PathBuf,
}

impl Tools {
    /// For a node image from elsewhere: those of the machine, as any recent ones will do.
    pub(super) fn of_machine() -> Result<Self> {
        let kind = match on_path("kind") {
            Some(kind) => kind,
            None => built("e2e/kind/build.sh", &["kind"], "kind")?,
        };
        let kubectl = any_kubectl()?;
        Ok(Self { kind, kubectl })
    }

    /// For the node image that is made here: of its versions.
    pub(super) fn of_own_image() -> Result<Self> {
        let kind = built("e2e/kind/build.sh", &["kind"], "kind")?;
        let kubectl = of_control_plane(&["--node"])?;
        Ok(Self { kind, kubectl })
    }
}

/// kubectl, as it is built along with other programs of Kubernetes.
fn of_control_plane(arguments: &[&str]) -> Result<PathBuf> {
    let script = workspace().join("e2e/controlplane/build.sh");
    let lines = lines_of_script(Command::new(script).args(arguments))?;
    let folder = lines.last().context("build.sh named no folder")?;
    Ok(PathBuf::from(folder).join("kubectl"))
}

/// The machine's kubectl, or the one of the control plane of the other tests.
pub(super) fn any_kubectl() -> Result<PathBuf> {
    match on_path("kubectl") {
        Some(kubectl) => Ok(kubectl),
        None => of_control_plane(&[]),
    }
}

/// A program on the path that really runs: some installers leave stubs.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = output_of(Command::new("sh").args(["-c", &format!("command -v {program}")])).ok()?;
    let path = PathBuf::from(path.trim());
    let version: &[&str] = match program {
        "kubectl" => &["version", "--client"],
        _ => &["version"],
    };
    output_of(Command::new(&path).args(version)).ok()?;
    Some(path)
}

/// What a script that prints `NAME=PATH` says of one program.
fn built(script: &str, arguments: &[&str], program: &str) -> Result<PathBuf> {
    let lines = lines_of_script(Command::new(workspace().join(script)).args(arguments))?;
    let mut paths: BTreeMap<_, _> = lines.iter().filter_map(|it| it.split_once('=')).collect();
    let path = paths.remove(program);
    path.map(PathBuf::from)
        .with_context(|| format!("{script} named no {program}"))
}
