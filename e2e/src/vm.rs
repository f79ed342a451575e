//! Other kernels than the running one: Debian's, in virtual machines, with the kernel tests inside ([`suite`]), or with
//! the benchmark, of which the instructions are counted ([`count`]).
//!
//! Nothing needs KVM or root: QEMU translates every instruction, so time in a machine is slow and unsteady, and only
//! tests that count or wait make sense there. A machine has no disk. Its initramfs ([`image`]) holds the programs at the
//! paths that they have on this host, busybox, and `vm/init.sh`, which runs a job and tells a second serial port how it
//! went ([`report`]). What was found goes into a table in the documentation ([`table`]).

pub mod count;
pub mod image;
pub mod kernels;
pub mod machine;
pub mod plan;
pub mod report;
pub mod suite;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::command::output_of;
use crate::workspace;

/// How Cargo builds the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    /// All of the workspace, with the tests, as Cargo then chooses the features of dependencies as for `make test` and
    /// builds nothing twice.
    Tests,
    /// Some packages, with optimisations, as for `make bench`.
    Release(&'static [&'static str]),
}

impl Build {
    fn arguments(self) -> Vec<&'static str> {
        match self {
            Self::Tests => vec!["--workspace", "--all-targets"],
            Self::Release(packages) => {
                let packages = packages.iter().flat_map(|it| ["-p", *it]);
                ["--release"].into_iter().chain(packages).collect()
            }
        }
    }
}

/// What Cargo built.
#[derive(Debug)]
struct Programs(Vec<Message>);

/// A line of Cargo's messages.
#[derive(Debug, Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
struct Profile {
    #[serde(default)]
    test: bool,
}

impl Programs {
    /// Builds them, and learns from Cargo where they are.
    fn build(how: Build) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--locked"])
            .args(how.arguments())
            .arg("--message-format=json-render-diagnostics")
            .current_dir(workspace())
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("could not start cargo")?;
        ensure!(output.status.success(), "cargo build failed; see above");
        serde_json::Deserializer::from_slice(&output.stdout)
            .into_iter()
            .collect::<Result<_, _>>()
            .map(Self)
            .context("Cargo's messages")
    }

    fn binary(&self, name: &str) -> Result<PathBuf> {
        self.find(name, false)
    }

    fn tests(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        names.iter().map(|it| self.find(it, true)).collect()
    }

    fn find(&self, name: &str, test: bool) -> Result<PathBuf> {
        self.0
            .iter()
            .filter(|it| it.profile.test == test)
            .filter(|it| it.target.as_ref().is_some_and(|it| it.name == name))
            .find_map(|it| it.executable.clone())
            .with_context(|| format!("cargo built no program {name}"))
    }
}

/// Makes a folder, and gives its absolute path.
fn folder(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path)
        .and_then(|()| path.canonicalize())
        .with_context(|| format!("could not make {}", path.display()))
}
