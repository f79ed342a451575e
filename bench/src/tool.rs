//! What watches the reads: an agent of one tier, or another tool.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use maplatency_agent::engine::{Engine, Refusal, TierChoice};
use maplatency_bpf::Tier;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(30);
/// The agent tells the kernel side which maps it measures right after it has said that it began.
const SETTLE: Duration = Duration::from_millis(1500);
/// The same figures as the agent's, as far as bpftrace can: both ends of each call on maps, by command, in a histogram.
const SCRIPT: &str = "\
BEGIN { printf(\"ready\\n\"); }
tracepoint:syscalls:sys_enter_bpf { @start[tid] = nsecs; @command[tid] = args->cmd; }
tracepoint:syscalls:sys_exit_bpf /@start[tid]/ {
  @latency[@command[tid]] = hist(nsecs - @start[tid]);
  delete(@start[tid]); delete(@command[tid]);
}";

/// A tool that is installed and works here.
#[derive(Debug)]
pub(crate) enum Tool {
    Maplatency { agent: PathBuf, tier: Tier },
    Bpftrace,
    PerfTrace,
}

/// The tools that can run, and why the others cannot.
pub(crate) fn available(agent: &Path) -> anyhow::Result<(Vec<Tool>, Vec<String>)> {
    let (mut tools, mut absent) = (Vec::new(), Vec::new());
    for tier in Tier::ALL {
        match Engine::load(TierChoice::Only(tier)) {
            Ok(_) => tools.push(Tool::Maplatency {
                agent: agent.to_owned(),
                tier,
            }),
            Err(error) => absent.push(format!("tier {}", Refusal::new(tier, &error))),
        }
    }
    ensure!(!tools.is_empty(), "no tier works here: {absent:?}");
    for (tool, program) in [(Tool::Bpftrace, "bpftrace"), (Tool::PerfTrace, "perf")] {
        let answer = Command::new(program).arg("--version").output();
        if answer.is_ok_and(|it| it.status.success()) {
            tools.push(tool);
        } else {
            absent.push(format!("{}: {program} is not installed", tool.name()));
        }
    }
    Ok((tools, absent))
}

impl Tool {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Maplatency { tier, .. } => format!("maplatency, tier {tier}"),
            Self::Bpftrace => "bpftrace script".to_owned(),
            Self::PerfTrace => "perf trace -s -e bpf".to_owned(),
        }
    }

    /// Starts it on this process and waits until it measures.
    pub(crate) fn start(&self, map_id: u32) -> anyhow::Result<Running> {
        match self {
            Self::Maplatency { agent, tier } => {
                let mut command = Command::new(agent);
                command
                    .args([
                        "run",
                        "-f",
                        "-",
                        "--output",
                        "json",
                        "--tier",
                        tier.as_str(),
                    ])
                    .env("RUST_LOG", "info");
                let mut spec = String::new();
                write!(
                    spec,
                    "{{apiVersion: maplatency.dev/v1alpha1, kind: MapLatencyProbe, metadata: {{name: bench}}, spec: {{maps: [{{ids: [{map_id}]}}]}}}}"
                )?;
                let running = Running::start(command, Some(&spec), "Began measuring", Says::Log)?;
                thread::sleep(SETTLE);
                Ok(running)
            }
            Self::Bpftrace => {
                let mut command = Command::new("bpftrace");
                command.args(["-e", SCRIPT]);
                Running::start(command, None, "ready", Says::Output)
            }
            Self::PerfTrace => {
                let own = std::process::id().to_string();
                let mut command = Command::new("perf");
                command.args(["trace", "-s", "-e", "bpf", "-p", &own]);
                let running = Running::start(command, None, "", Says::Nothing)?;
                thread::sleep(SETTLE);
                Ok(running)
            }
        }
    }
}

impl Tool {
    /// Whether it saw the reads, as far as it tells what it saw. A tool that did not do its work has no cost.
    pub(crate) fn check(&self, said: &Said, reads: u64) -> anyhow::Result<()> {
        let seen: u64 = match self {
            // One line per thread: name, calls, errors, times.
            Self::PerfTrace => said
                .log
                .lines()
                .filter_map(|it| it.trim().strip_prefix("bpf "))
                .filter_map(|it| it.split_whitespace().next()?.parse::<u64>().ok())
                .sum(),
            // A line per bucket; its count stands behind the bounds.
            Self::Bpftrace => said
                .output
                .lines()
                .filter_map(|it| it.split_once(')')?.1.split_whitespace().next())
                .filter_map(|it| it.parse::<u64>().ok())
                .sum(),
            Self::Maplatency { .. } => {
                let resource: serde_json::Value =
                    serde_json::from_str(&said.output).context("the agent's resource")?;
                let lookup = &resource["status"]["operations"][0];
                lookup["count"].as_u64().unwrap_or(0)
            }
        };
        // perf loses events under load, and says how many; half of them are enough to cost what they cost.
        ensure!(
            seen >= reads / 2,
            "{} saw {seen} of {reads} reads, so it has no figure:\n{}{}",
            self.name(),
            said.output,
            said.log
        );
        Ok(())
    }
}

/// Where a tool says that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Output,
    Log,
    Nothing,
}

/// A tool at work.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// What it said after it was ready, on each of two streams.
    rest: Receiver<(Stream, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Output,
    Log,
}

/// What a tool said from when it was ready.
#[derive(Debug, Default)]
pub(crate) struct Said {
    output: String,
    log: String,
}

impl Running {
    fn start(
        mut command: Command,
        input: Option<&str>,
        ready: &'static str,
        says: Says,
    ) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
            std::io::Write::write_all(&mut stdin, text.as_bytes())?;
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = stdout.zip(stderr).context("a pipe is missing")?;
        let (tell_rest, rest) = channel();
        let mut running = Self { child, rest };
        let (told, heard) = channel();
        let listen = |which: Stream, stream: Box<dyn std::io::Read + Send>, waits: bool| {
            let told = told.clone();
            let tell_rest = tell_rest.clone();
            thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while waits && stream.read_line(&mut line).is_ok_and(|it| it > 0) {
                    if line.contains(ready) {
                        // Fails when nobody waits any more.
                        let _ = told.send(());
                        break;
                    }
                    line.clear();
                }
                // Whatever it says later is not to block it.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest);
                // Fails when it was dropped and not stopped.
                let _ = tell_rest.send((which, String::from_utf8_lossy(&rest).into_owned()));
            });
        };
        listen(Stream::Output, Box::new(stdout), says == Says::Output);
        listen(Stream::Log, Box::new(stderr), says == Says::Log);
        if says == Says::Nothing {
            return Ok(running);
        }
        match heard.recv_timeout(PATIENCE) {
            Ok(()) => Ok(running),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let ended = running.child.try_wait()?;
                bail!("{name} was not ready in time (ended: {ended:?})")
            }
        }
    }

    /// Ends it; it has to have been at work until then. Gives what it said.
    pub(crate) fn stop(mut self) -> anyhow::Result<Said> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it had ended already: {status}");
        }
        let id = i32::try_from(self.child.id()).context("a process id is no i32")?;
        kill(Pid::from_raw(id), Signal::SIGINT)?;
        self.child.wait()?;
        // Both streams end with it.
        let mut said = Said::default();
        for _ in 0..2 {
            match self.rest.recv()? {
                (Stream::Output, text) => said.output = text,
                (Stream::Log, text) => said.log = text,
            }
        }
        Ok(said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
