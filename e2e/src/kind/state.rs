//! What is known about the cluster that is up or half up, in a file: enough to take it down and to put the machine
//! back, for a run that knows nothing else.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::docker::Docker;
use super::image::NodeImage;
use super::machine::Machine;
use super::tools::Tools;

/// The state. It is written before anything changes.
#[derive(Debug, Deserialize, Serialize)]
pub struct State {
    /// Which boot of the machine it is about. A later one has lost all that is not in files.
    pub(super) boot: String,
    /// The machine as it was before.
    pub(super) machine: Machine,
    /// Who runs the nodes.
    pub(super) docker: Docker,
    /// The nodes' image, once it is chosen.
    pub(super) image: Option<NodeImage>,
    /// The programs, once they are there.
    pub(super) tools: Option<Tools>,
    /// The cluster was seen working.
    pub(super) ready: bool,
}

/// Where the state is kept. At most one exists at a time, among all processes.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    /// Kept open for its lock.
    _lock: File,
}

impl Store {
    /// Waits for other processes.
    pub(super) fn open() -> Result<Self> {
        let folder = folder()?;
        fs::create_dir_all(&folder)
            .with_context(|| format!("could not make {}", folder.display()))?;
        let lock = lock(
            &folder.join("lock"),
            "brings the cluster up or takes it down",
        )?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    pub(super) fn load(&self) -> Result<Option<State>> {
        read(&self.folder)
    }

    pub(super) fn save(&self, state: &State) -> Result<()> {
        let path = state_file(&self.folder);
        let new = path.with_extension("new");
        let text = serde_json::to_string_pretty(state).context("the state as JSON")?;
        // In one step, so that a crash leaves the old state or the new one.
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("could not write {}", path.display()))
    }

    /// Forgets the state, when nothing is left of the cluster.
    pub(super) fn clear(&self) -> Result<()> {
        for path in [kubeconfig_in(&self.folder), state_file(&self.folder)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("could not remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        kubeconfig_in(&self.folder)
    }

    /// Where the logs of a cluster go that did not come up.
    pub(super) fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }
}

/// The state as it is now, whoever works on it.
pub(super) fn peek() -> Result<Option<State>> {
    read(&folder()?)
}

/// The folder of all that belongs to clusters.
pub(super) fn folder() -> Result<PathBuf> {
    Ok(crate::cache()?.join("kind"))
}

/// Tells one boot of this machine from others.
pub(super) fn boot() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = fs::read_to_string(path).with_context(|| format!("could not read {path}"))?;
    Ok(id.trim().to_owned())
}

/// The file for clients of the cluster.
pub(super) fn kubeconfig_in(folder: &Path) -> PathBuf {
    folder.join("kubeconfig")
}

fn state_file(folder: &Path) -> PathBuf {
    folder.join("state.json")
}

fn read(folder: &Path) -> Result<Option<State>> {
    let path = state_file(folder);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("could not read {}", path.display()));
        }
    };
    serde_json::from_str(&text)
        .map(Some)
        .with_context(|| format!("{} is damaged, or of another version", path.display()))
}

/// Waits until no other process of this user tests in a cluster. That holds as long as the file is open.
pub(super) fn alone() -> Result<File> {
    let folder = folder()?;
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    lock(&folder.join("tests.lock"), "tests in a cluster")
}

/// Waits for `others`, who hold the lock of a file.
fn lock(path: &Path, others: &str) -> Result<File> {
    let lock = File::create(path)
        .with_context(|| format!("could not make the file {}", path.display()))?;
    if lock.try_lock().is_err() {
        eprintln!("waiting for another process that {others}");
        lock.lock()
            .with_context(|| format!("could not lock {}", path.display()))?;
    }
    Ok(lock)
}
