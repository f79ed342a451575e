//! Which image the nodes are made of: an official one where it is here or can be pulled, else one that is made here.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::docker::Docker;
use crate::command::{lines_of_script, output_of};
use crate::workspace;

/// The default of kind 0.33.0 (`e2e/kind/kind/go.mod`); see e2e/kind/README.md before changing either.
pub(super) const OFFICIAL: &str =
    "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5";

/// A registry that has said nothing by then is taken for unreachable. Once it talks, pulling takes as long as it takes.
const SILENCE: Duration = Duration::from_secs(20);

/// What a user can ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The official image, if it is here or can be pulled, else the own one.
    #[default]
    Automatic,
    /// The one that is made here.
    Own,
    /// This one.
    Named(String),
}

impl From<&str> for Choice {
    fn from(text: &str) -> Self {
        match text {
            "own" => Self::Own,
            name => Self::Named(name.to_owned()),
        }
    }
}

/// The image that was chosen.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct NodeImage {
    /// Its name.
    pub(super) name: String,
    /// Why this one.
    pub(super) why: String,
    /// It is made here.
    pub(super) own: bool,
}

impl NodeImage {
    /// Gets the image into Docker.
    pub(super) fn choose(docker: &Docker, choice: &Choice) -> Result<Self> {
        let official = |why: &str| Self {
            name: OFFICIAL.to_owned(),
            why: why.to_owned(),
            own: false,
        };
        match choice {
            Choice::Own => Self::make(docker, "as asked for"),
            Choice::Named(name) => {
                if !is_here(docker, name) {
                    pull(docker, name).with_context(|| {
                        format!("could not pull the node image {name}; name another one, or `own` for one that is made here")
                    })?;
                }
                Ok(Self {
                    name: name.clone(),
                    why: "as asked for".to_owned(),
                    own: false,
                })
            }
            Choice::Automatic if is_here(docker, OFFICIAL) => Ok(official("it is here")),
            Choice::Automatic => match pull(docker, OFFICIAL) {
                Ok(()) => Ok(official("it could be pulled")),
                Err(error) => {
                    let short = OFFICIAL.split('@').next().unwrap_or(OFFICIAL);
                    Self::make(docker, &format!("{short} cannot be pulled: {error:#}"))
                }
            },
        }
    }

    fn make(docker: &Docker, why: &str) -> Result<Self> {
        let mut script = Command::new(workspace().join("e2e/kind/node-image.sh"));
        docker.address(&mut script);
        let lines = lines_of_script(&mut script)?;
        Ok(Self {
            name: lines
                .last()
                .context("node-image.sh named no image")?
                .clone(),
            why: why.to_owned(),
            own: true,
        })
    }
}

fn is_here(docker: &Docker, name: &str) -> bool {
    output_of(&mut docker.command(&["image", "inspect", name])).is_ok()
}

fn pull(docker: &Docker, name: &str) -> Result<()> {
    let mut child = docker
        .command(&["pull", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("could not start docker")?;
    let stdout = child.stdout.take().context("docker has no stdout")?;
    let (said, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    match lines.recv_timeout(SILENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            child.kill().context("could not stop docker pull")?;
            child.wait().context("could not stop docker pull")?;
            bail!("no registry has answered within {} s", SILENCE.as_secs());
        }
        // It ended without a word, or speaks.
        first => first
            .into_iter()
            .chain(lines)
            .for_each(|line| eprintln!("  {line}")),
    }
    let mut stderr = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        _ = pipe.read_to_string(&mut stderr);
    }
    let status = child.wait().context("could not wait for docker pull")?;
    if !status.success() {
        bail!("{}", stderr.lines().last().unwrap_or("docker pull failed"));
    }
    Ok(())
}
