//! The demo workload as a child process: it reads a map, and knows exactly how long every read took.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::process::workspace_binary;

/// A running `maplatency-workload` that waits for [`Workload::go`].
#[derive(Debug)]
pub struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    ready: Ready,
}

/// Its map.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Its process.
    pub pid: u32,
    /// The map's id.
    pub map_id: u32,
    /// The map's name.
    pub map_name: String,
}

/// What the reader timed itself: the truth.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Truth {
    /// Reads made.
    pub reads: u64,
    /// CPUs on which the reader was seen.
    pub cpu_seen: Vec<u32>,
    /// What reading the clock costs.
    pub clock_cost_nanoseconds: u64,
    /// Median of all reads.
    pub p50_nanoseconds: u64,
    /// 90th percentile.
    pub p90_nanoseconds: u64,
    /// 99th percentile.
    pub p99_nanoseconds: u64,
    /// 99.9th percentile.
    pub p999_nanoseconds: u64,
    /// The slowest read.
    pub max_nanoseconds: u64,
    /// Time lost to slow reads.
    pub slow: Slow,
}

/// Reads over four times the median.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Slow {
    /// How many.
    pub reads: u64,
    /// What they took beyond the median.
    pub lost_nanoseconds: u64,
}

impl Workload {
    /// Starts it. It makes its map and waits; after its reads it keeps the map until it is dropped.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::spawn(
            Command::new(workspace_binary("maplatency-workload")?),
            arguments,
        )
    }

    /// One that reads its map of this name so often, at this rate, and does nothing else.
    pub fn of_one_reader(name: &str, reads: &str, rate: &str) -> Result<Self> {
        let map = ["--no-refresh", "--entries", "1000", "--name", name];
        Self::start(&[&map[..], &["--reads", reads, "--rate", rate]].concat())
    }

    /// The same as [`Self::start`], with so much more weight that the scheduler gives others next to nothing of its CPUs while it wants them.
    pub fn start_before_others(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new("setsid");
        command.args(["nice", "-n", "-20"]);
        command.arg(workspace_binary("maplatency-workload")?);
        let this = Self::spawn(command, arguments)?;
        // Where sessions are groups of the scheduler, weights count within a session alone, and it has one of its own.
        let group = Path::new("/proc").join(this.ready.pid.to_string());
        let group = group.join("autogroup");
        if group.exists() {
            fs::write(group, "-20").context("could not give the workload's session more weight")?;
        }
        Ok(this)
    }

    fn spawn(mut command: Command, arguments: &[&str]) -> Result<Self> {
        let mut child = command
            .args(["--output", "json", "--wait-for-start", "--hold"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the workload")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the workload has no stdout")?;
        let mut stdout = BufReader::new(stdout);
        let ready = match next_line(&mut stdout) {
            Ok(line) => serde_json::from_str(&line).context("the workload's first line")?,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok(Self {
            child,
            stdin,
            stdout,
            ready,
        })
    }

    /// Its map.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Lets it read.
    pub fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the workload has no stdin")?;
        writeln!(stdin).context("could not start the reads")
    }

    /// Waits for its result. Its map stays until it is dropped.
    pub fn truth(&mut self) -> Result<Truth> {
        serde_json::from_str(&next_line(&mut self.stdout)?).context("the workload's result")
    }

    /// Lets it end, and its map with it.
    pub fn finish(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the workload ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next_line(stdout: &mut BufReader<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    stdout
        .read_line(&mut line)
        .context("could not read from the workload")?;
    if line.is_empty() {
        bail!("the workload ended early; its own message is above");
    }
    Ok(line)
}
