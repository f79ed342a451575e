//! Where etcd, kube-apiserver and kubectl come from.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use tokio::sync::OnceCell;

use crate::{command::lines_of_script, workspace};

/// The folder that holds the three programs.
///
/// `e2e/controlplane/build.sh` is the one place that knows: it takes `KUBEBUILDER_ASSETS`, else
/// what an earlier run built, else it builds them, which takes minutes. Its progress goes to stderr.
pub(super) async fn folder() -> Result<PathBuf> {
    // Tests that run at once must not build at once.
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    FOLDER.get_or_try_init(ask).await.cloned()
}

async fn ask() -> Result<PathBuf> {
    let script = workspace().join("e2e/controlplane/build.sh");
    let lines = tokio::task::spawn_blocking(|| lines_of_script(&mut Command::new(script)));
    let lines = lines.await.context("the task that builds")??;
    let folder = lines.last().context("build.sh did not name a folder")?;
    Ok(PathBuf::from(folder))
}
