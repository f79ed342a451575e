//! An agent that runs one strategy, and what it costs.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use maplatency_bpf::Tier;
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;

/// The agent tells the kernel side which maps it measures right after it has said that it began.
const SETTLE: Duration = Duration::from_millis(500);

/// A running agent. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    /// Whatever else it says is not to block it.
    log: Option<JoinHandle<String>>,
}

/// What it cost, and what it saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Resident memory at the end of the reads, and memory of BPF objects, in bytes.
    pub(crate) rss: u64,
    pub(crate) bpf: u64,
    pub(crate) counted: u64,
    /// Operations that exact figures lack.
    pub(crate) missed: u64,
}

impl Agent {
    /// Starts it and waits until it measures.
    pub(crate) fn start(program: &Path, tier: Tier, spec: &Value) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["run", "-f", "-", "--output", "json", "--tier"])
            .arg(tier.as_str())
            .env("RUST_LOG", "info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let probe = serde_json::json!({
            "apiVersion": "maplatency.dev/v1alpha1",
            "kind": "MapLatencyProbe",
            "metadata": {"name": "aggregation"},
            "spec": spec,
        });
        let mut stdin = child.stdin.take().context("the agent has no stdin")?;
        stdin.write_all(probe.to_string().as_bytes())?;
        drop(stdin);
        let stderr = child.stderr.take().context("the agent has no stderr")?;
        let mut agent = Self { child, log: None };
        let mut log = BufReader::new(stderr);
        let mut said = String::new();
        while !said.contains("Began measuring") {
            ensure!(log.read_line(&mut said)? > 0, "the agent ended: {said}");
        }
        agent.log = Some(thread::spawn(move || {
            // What it says in the end explains why it failed, if it does.
            let _ = log.read_to_string(&mut said);
            said
        }));
        thread::sleep(SETTLE);
        Ok(agent)
    }

    /// CPU time of all its threads.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let clock = clock_getcpuclockid(self.pid()?).context("the agent's CPU clock")?;
        Ok(clock_gettime(clock)?.into())
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> anyhow::Result<Cost> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let rss = status
            .lines()
            .find_map(|it| it.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
            .context("no VmRSS")?
            .parse::<u64>()?
            * 1024;
        kill(self.pid()?, Signal::SIGINT)?;
        let mut output = String::new();
        let mut stdout = self.child.stdout.take().context("no stdout")?;
        stdout.read_to_string(&mut output)?;
        let ended = self.child.wait()?;
        let log = self.log.take().and_then(|it| it.join().ok());
        ensure!(ended.success(), "the agent failed: {log:?}");
        let resource: Value = serde_json::from_str(&output).context("the agent's resource")?;
        let status = &resource["status"];
        let number = |it: &Value| it.as_u64();
        let bpf = &status["agents"]["cost"]["bpfMemory"]["bytes"];
        Ok(Cost {
            rss,
            bpf: number(bpf).context("the agent did not tell its BPF memory")?,
            counted: number(&status["operations"][0]["count"]).context("nothing was counted")?,
            missed: number(&status["exact"][0]["missed"]).unwrap_or(0),
        })
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
