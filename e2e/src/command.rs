//! Programs that run to their end.

use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::AsyncWriteExt as _;

use crate::wait;

/// kubectl waits without an end for a server that is gone while it watches. Helm's own limit is five minutes.
const LIMIT: Duration = Duration::from_mins(6);

/// A finished run of a program.
#[derive(Debug, Clone)]
pub struct Output {
    /// What it printed.
    pub stdout: String,
    /// What it complained about. Warnings of the API server are here too, even on success.
    pub stderr: String,
    /// It ended with exit code 0.
    pub success: bool,
    command: String,
}

impl Output {
    /// stdout, or an error with the command and what it said.
    pub fn ok(self) -> Result<String> {
        let Self {
            stdout,
            stderr,
            success,
            command,
        } = self;
        if !success {
            bail!("`{command}` failed: {}", stderr.trim_end());
        }
        Ok(stdout)
    }
}

/// Runs a program to its end, with `stdin` as its input. Messages show `arguments` behind the program's name.
///
/// Only a program that cannot be started, or does not end in time, is an error.
pub(crate) async fn run(
    mut command: tokio::process::Command,
    arguments: &[&str],
    stdin: &str,
) -> Result<Output> {
    let program = command.as_std().get_program().to_owned();
    let name = std::path::Path::new(&program)
        .file_name()
        .unwrap_or(&program)
        .to_string_lossy()
        .into_owned();
    let mut child = command
        .args(arguments)
        .stdin(process::Stdio::piped())
        .stdout(process::Stdio::piped())
        .stderr(process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("could not start {}", program.display()))?;
    let mut input = child.stdin.take().context("the program has no stdin")?;
    let write = async move {
        // One that fails early closes the pipe; its own message says more than this error.
        _ = input.write_all(stdin.as_bytes()).await;
    };
    let limit = wait::limit(LIMIT)?;
    let ended = tokio::time::timeout(limit, async {
        tokio::join!(write, child.wait_with_output())
    });
    let command = format!("{name} {}", arguments.join(" "));
    let Ok(((), output)) = ended.await else {
        bail!("`{command}` has not ended within {limit:?}");
    };
    let output = output.with_context(|| format!("could not wait for {name}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Output {
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
        success: output.status.success(),
        command,
    })
}

/// Runs a program to its end and gives what it wrote.
pub(crate) fn output_of(command: &mut process::Command) -> Result<String> {
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

/// Runs a script of the workspace, whose progress goes to stderr, and gives the lines that it printed.
pub(crate) fn lines_of_script(command: &mut process::Command) -> Result<Vec<String>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(process::Stdio::null())
        .stderr(process::Stdio::inherit())
        .output()
        .with_context(|| format!("could not run {name}"))?;
    ensure!(
        output.status.success(),
        "{name} ended with {}; its messages are above",
        output.status
    );
    let stdout = String::from_utf8(output.stdout).with_context(|| format!("output of {name}"))?;
    Ok(stdout.lines().map(str::to_owned).collect())
}

/// The shared libraries of a program, and its loader, as the loader itself tells them.
pub(crate) fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = output_of(process::Command::new("ldd").arg(program))?;
    // `name => /path (address)` or `/path (address)`; the kernel's own library has no path.
    Ok(listed
        .lines()
        .filter_map(|it| it.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}
