//! The program whose reads are known: it times every one of them itself.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

/// A running workload. It ends with this value.
#[derive(Debug)]
pub(crate) struct Workload {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(crate) map_id: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    map_id: u32,
}

/// What its reader found by its own clock.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Truth {
    pub(crate) reads: u64,
    p50_nanoseconds: u64,
    p90_nanoseconds: u64,
    p99_nanoseconds: u64,
    p999_nanoseconds: u64,
    pub(crate) max_nanoseconds: u64,
}

impl Truth {
    /// P50, P90, P99 and P99.9 in nanoseconds.
    pub(crate) fn percentiles(&self) -> [u64; 4] {
        [
            self.p50_nanoseconds,
            self.p90_nanoseconds,
            self.p99_nanoseconds,
            self.p999_nanoseconds,
        ]
    }
}

impl Workload {
    /// Starts it. It makes its map and waits; after its reads it keeps the map until it is dropped.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["--output", "json", "--wait-for-start", "--hold"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the workload")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.context("a pipe is missing")?;
        let mut workload = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            map_id: 0,
        };
        let ready: Ready =
            serde_json::from_str(&workload.hear()?).context("the workload's first line")?;
        workload.map_id = ready.map_id;
        Ok(workload)
    }

    /// Lets it read.
    pub(crate) fn go(&mut self) -> anyhow::Result<()> {
        writeln!(self.stdin).context("the workload has ended")
    }

    /// Waits for its result.
    pub(crate) fn truth(&mut self) -> anyhow::Result<Truth> {
        serde_json::from_str(&self.hear()?).context("the workload's result")
    }

    fn hear(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(
            !line.is_empty(),
            "the workload ended early; its message is above"
        );
        Ok(line)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
