//! What a run of kubectl, or of another client of the cluster, left behind.

use std::process;

use anyhow::{Result, bail};

/// A finished run.
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
    pub(crate) fn new(program: &str, args: &[&str], output: &process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            success: output.status.success(),
            command: format!("{program} {}", args.join(" ")),
        }
    }

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
