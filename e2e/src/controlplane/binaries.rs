//! Where etcd, kube-apiserver and kubectl come from.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::{process::Command, sync::OnceCell};

use crate::workspace;

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
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("could not run {}", script.display()))?;
    ensure!(
        output.status.success(),
        "{} ended with {}; its messages are above",
        script.display(),
        output.status
    );
    let stdout = String::from_utf8(output.stdout).context("build.sh wrote no text")?;
    let folder = stdout
        .lines()
        .last()
        .context("build.sh did not name a folder")?;
    Ok(PathBuf::from(folder))
}
