//! Other kernels than the running one: Debian's, in virtual machines, with the kernel tests inside.
//!
//! Nothing needs KVM or root: QEMU translates every instruction, so time in a machine is slow and unsteady, and only
//! tests that count or wait make sense there. A machine has no disk. Its initramfs ([`image`]) holds the programs at the
//! paths that they have on this host, busybox, and `vm/init.sh`, which runs them and tells a second serial port how they
//! went ([`report`]). What was found goes into a table in the documentation ([`table`]).

pub mod image;
pub mod kernels;
pub mod machine;
pub mod plan;
pub mod report;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

/// Test programs that run inside for each tier of hooks. None of them compares times.
const EACH: &[&str] = &["anykernel"];
/// Those that run once.
const ONCE: &[&str] = &["sys", "discovery", "selectors", "readers", "leftovers"];
/// Programs that the tests start, beside the agent.
const OTHERS: &[&str] = &["maplatency-workload", "maplatency-caller"];

/// What goes into every machine.
#[derive(Debug)]
pub struct Programs {
    /// Test programs for each tier.
    pub each: Vec<PathBuf>,
    /// Test programs that run once.
    pub once: Vec<PathBuf>,
    /// The agent.
    pub agent: PathBuf,
    /// What the tests start beside it.
    pub others: Vec<PathBuf>,
}

/// A line of Cargo's messages.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Default, Deserialize)]
struct Profile {
    #[serde(default)]
    test: bool,
}

impl Programs {
    /// Every one.
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let tests = self.each.iter().chain(&self.once);
        tests.chain([&self.agent]).chain(&self.others)
    }

    /// Builds them, and learns from Cargo where they are. Of the whole workspace, as Cargo then chooses the features of
    /// dependencies as for `make test` and builds nothing twice.
    pub fn build(workspace: &Path) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--workspace", "--locked", "--all-targets"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(workspace)
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("could not start cargo")?;
        ensure!(output.status.success(), "cargo build failed; see above");
        let messages: Vec<Message> = serde_json::Deserializer::from_slice(&output.stdout)
            .into_iter()
            .collect::<Result<_, _>>()
            .context("Cargo's messages")?;
        let find = |name: &str, test: bool| {
            messages
                .iter()
                .filter(|it| it.profile.test == test)
                .filter(|it| it.target.as_ref().is_some_and(|it| it.name == name))
                .find_map(|it| it.executable.clone())
                .with_context(|| format!("cargo built no program {name}"))
        };
        let all =
            |names: &[&str], test| names.iter().map(|it| find(it, test)).collect::<Result<_>>();
        Ok(Self {
            each: all(EACH, true)?,
            once: all(ONCE, true)?,
            agent: find("maplatency-agent", false)?,
            others: all(OTHERS, false)?,
        })
    }
}

/// Runs a command to its end and gives what it wrote.
fn output_of(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("could not start {name}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{name} ended with {}: {}", output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of {name}"))
}
