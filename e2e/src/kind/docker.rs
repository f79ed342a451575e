//! The Docker daemon that runs the nodes: the one of the machine, or one that is started for the cluster.
//!
//! An own daemon keeps its images in the user's cache and shares nothing with one that the machine may have. Nodes that
//! it runs have every capability of this machine (`e2e/kind/runtime`).

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::machine::mount_points;
use super::state;
use crate::command::output_of;
use crate::workspace;

/// Of an own daemon, all that need not outlast a boot. Its paths must be short, as some are those of sockets.
const RUN: &str = "/run/maplatency-kind";
const SOCKET: &str = "/run/maplatency-kind/docker.sock";
const PIDFILE: &str = "/run/maplatency-kind/docker.pid";
/// Also how its process is recognised.
const CONFIG: &str = "/run/maplatency-kind/daemon.json";
const START: Duration = Duration::from_mins(1);
const STOP: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// Which daemon.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) enum Docker {
    /// The one that answered, at the address of `DOCKER_HOST` if that was set.
    Machine { host: Option<String> },
    /// One that is started here.
    Own,
}

impl Docker {
    /// The machine's daemon if it answers, else an own one, which does not run yet.
    pub(super) fn find() -> Result<Self> {
        let machine = Self::of_environment();
        let Err(error) = output_of(&mut machine.command(&["version"])) else {
            return Ok(machine);
        };
        ensure!(
            nix::unistd::geteuid().is_root(),
            "no Docker daemon answers; start it, or run this as root and one is started for the cluster: {error:#}"
        );
        for (program, package) in [
            ("docker", "docker.io"),
            ("dockerd", "docker.io"),
            ("runc", "runc"),
            ("iptables", "iptables"),
            ("jq", "jq"),
        ] {
            ensure!(
                output_of(Command::new("sh").args(["-c", &format!("command -v {program}")]))
                    .is_ok(),
                "no Docker daemon answers, and to start one {program} is missing; on Debian: apt-get install {package}"
            );
        }
        Ok(Self::Own)
    }

    /// The daemon that a user of this environment talks to.
    pub(super) fn of_environment() -> Self {
        Self::Machine {
            host: std::env::var("DOCKER_HOST").ok(),
        }
    }

    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Own)
    }

    /// A run of the docker program.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments);
        self.address(&mut command);
        command
    }

    /// Lets a program talk to this daemon.
    pub(super) fn address(&self, command: &mut Command) {
        match self {
            Self::Own => {
                command.env("DOCKER_HOST", format!("unix://{SOCKET}"));
                command.env_remove("DOCKER_CONTEXT");
            }
            Self::Machine { host: Some(host) } => _ = command.env("DOCKER_HOST", host),
            Self::Machine { host: None } => {}
        }
    }

    pub(super) fn answers(&self) -> bool {
        output_of(&mut self.command(&["version"])).is_ok()
    }

    /// Starts an own daemon, unless it runs.
    pub(super) fn start(&self) -> Result<()> {
        if !self.is_own() || self.answers() {
            return Ok(());
        }
        // What a crash left is in the way: a daemon that hangs, or its file.
        end(Signal::SIGKILL, &|program| program == "dockerd");
        _ = fs::remove_file(PIDFILE);
        let folder = state::folder()?;
        fs::create_dir_all(RUN).with_context(|| format!("could not make {RUN}"))?;
        let runtime = Path::new(RUN).join("runtime");
        // A copy, as it is used as long as the cluster is up.
        fs::copy(workspace().join("e2e/kind/runtime"), &runtime)
            .with_context(|| format!("could not write {}", runtime.display()))?;
        let config = json!({
            "hosts": [format!("unix://{SOCKET}")],
            "pidfile": PIDFILE,
            "exec-root": format!("{RUN}/exec"),
            "data-root": folder.join("docker"),
            // kind makes a network of its own.
            "bridge": "none",
            "runtimes": {"maplatency": {"path": runtime}},
            "default-runtime": "maplatency",
        });
        fs::write(CONFIG, config.to_string())
            .with_context(|| format!("could not write {CONFIG}"))?;
        let log = folder.join("dockerd.log");
        let mut daemon = spawn(&log)?;
        let begin = Instant::now();
        while !self.answers() {
            let ended = daemon.try_wait().context("could not watch dockerd")?;
            if ended.is_some() || begin.elapsed() > START {
                bail!("dockerd does not answer; its log ends with\n{}", tail(&log));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Stops an own daemon and removes what it left.
    pub(super) fn stop(&self) -> Result<()> {
        if !self.is_own() {
            return Ok(());
        }
        // The daemon ends the others; alone they are only after a crash.
        let all = |_: &str| true;
        end(Signal::SIGTERM, &|program| program == "dockerd");
        end(Signal::SIGTERM, &all);
        end(Signal::SIGKILL, &all);
        let data = state::folder()?.join("docker");
        let below =
            |point: &str| Path::new(point).starts_with(RUN) || Path::new(point).starts_with(&data);
        for point in mount_points()?.iter().rev().filter(|it| below(it)) {
            nix::mount::umount(point.as_str())
                .with_context(|| format!("could not unmount {point}"))?;
        }
        fs::remove_dir_all(RUN)
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .with_context(|| format!("could not remove {RUN}"))
    }
}

fn spawn(log: &Path) -> Result<Child> {
    let out = File::create(log).with_context(|| format!("could not make {}", log.display()))?;
    let err = out.try_clone().context("could not share dockerd's log")?;
    Command::new("dockerd")
        .arg(format!("--config-file={CONFIG}"))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        // It outlives this process, and Ctrl-C is not meant for it.
        .process_group(0)
        .spawn()
        .context("could not start dockerd")
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Ends processes of an own daemon, and waits for them.
fn end(signal: Signal, which: &dyn Fn(&str) -> bool) {
    let begin = Instant::now();
    for process in own_processes(which) {
        // One that has ended meanwhile is as good.
        _ = kill(process, signal);
    }
    while !own_processes(which).is_empty() && begin.elapsed() < STOP {
        std::thread::sleep(PAUSE);
    }
}

/// The own daemon and its containerd, with what that runs: each has a path below [`RUN`] in its arguments.
fn own_processes(which: &dyn Fn(&str) -> bool) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|it| it.file_name().to_str()?.parse().ok());
    processes
        .filter(|pid| {
            // Empty for one that has ended and waits for its parent.
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments);
            let (program, arguments) = arguments.split_once('\0').unwrap_or_default();
            let program = program.rsplit('/').next().unwrap_or_default();
            ["dockerd", "containerd", "containerd-shim-runc-v2"].contains(&program)
                && arguments.contains(RUN)
                && which(program)
        })
        .map(Pid::from_raw)
        .collect()
}
