//! The real Helm, in the oldest and the newest version that the chart supports.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::process::Command;

use crate::command::{self, Output, lines_of_script, output_of};
use crate::workspace;

/// Which Helm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.17.
    Oldest,
    /// 4.
    Newest,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Oldest, Self::Newest];

    const fn major(self) -> &'static str {
        match self {
            Self::Oldest => "3",
            Self::Newest => "4",
        }
    }

    /// Its program, got with `scripts/helm.sh` unless it is there.
    pub(crate) async fn program(self) -> Result<PathBuf> {
        let script = workspace().join("scripts/helm.sh");
        let run = move || lines_of_script(std::process::Command::new(script).arg(self.major()));
        let lines = tokio::task::spawn_blocking(run)
            .await
            .context("the task that gets Helm")??;
        let path = lines.last().context("helm.sh named no program")?;
        Ok(PathBuf::from(path))
    }
}

/// A Helm with folders of its own, so that repositories and plugins of the user change nothing.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    folder: TempDir,
}

/// The chart.
pub fn chart() -> PathBuf {
    workspace().join("charts/maplatency")
}

/// The chart as it was before the last commit that changed it, unpacked into a folder.
///
/// An error in a checkout without that much of its history.
pub fn previous_chart(folder: &Path) -> Result<PathBuf> {
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        // In CI the checkout may belong to another user.
        git.current_dir(workspace())
            .args(["-c", "safe.directory=*"])
            .args(arguments);
        git
    };
    let list = [
        "rev-list",
        "--max-count=2",
        "HEAD",
        "--",
        "charts/maplatency",
    ];
    let commits = output_of(&mut git(&list))?;
    let previous = commits.lines().nth(1).context(
        "the history of this checkout does not reach back to the previous chart; `git fetch --unshallow` gets it",
    )?;
    let file = folder.join("chart.tar");
    let path = file.to_str().context("the path is not UTF-8")?;
    output_of(&mut git(&[
        "archive",
        "--output",
        path,
        previous,
        "charts/maplatency",
    ]))?;
    let mut unpack = std::process::Command::new("tar");
    output_of(unpack.current_dir(folder).args(["-xf", path]))?;
    Ok(folder.join("charts/maplatency"))
}

impl Helm {
    /// Finds it, or gets it. `kubeconfig` may name no file where no cluster is needed.
    pub async fn get(version: Version, kubeconfig: &Path) -> Result<Self> {
        Ok(Self {
            program: version.program().await?,
            kubeconfig: kubeconfig.to_owned(),
            folder: tempfile::tempdir().context("could not make a folder for Helm")?,
        })
    }

    /// Runs it. Only a Helm that cannot be started is an error; [`Output::ok`] turns a failed run into one.
    pub async fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", &self.kubeconfig);
        command::run(command, args, "").await
    }
}
