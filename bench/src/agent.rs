//! The agent as a process of its own, and what the kernel tells of it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use maplatency_bpf::Tier;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::process::{Running, Said, Says};

/// The agent tells the kernel side which maps it measures right after it has said that it began.
const SETTLE: Duration = Duration::from_millis(1500);

/// A resource with this spec, in YAML's flow style.
pub(crate) fn resource(spec: &str) -> String {
    format!(
        "{{apiVersion: maplatency.dev/v1alpha1, kind: MapLatencyProbe, metadata: {{name: bench}}, spec: {{{spec}}}}}"
    )
}

/// Starts it and waits until it measures. Without a tier it takes the one that it takes by itself.
pub(crate) fn start(agent: &Path, tier: Option<Tier>, spec: &str) -> anyhow::Result<Running> {
    let mut command = Command::new(agent);
    command
        .args(["run", "-f", "-", "--output", "json"])
        .env("RUST_LOG", "info");
    if let Some(tier) = tier {
        command.args(["--tier", tier.as_str()]);
    }
    let running = Running::start(command, Some(&resource(spec)), "Began measuring", Says::Log)?;
    thread::sleep(SETTLE);
    Ok(running)
}

/// The status that it ended with.
pub(crate) fn status(said: &Said) -> anyhow::Result<serde_json::Value> {
    let mut resource: serde_json::Value =
        serde_json::from_str(&said.output).context("the agent's resource")?;
    Ok(resource["status"].take())
}

/// CPU time of a process since it began, of all its threads, in seconds.
pub(crate) fn cpu_seconds(pid: Pid) -> anyhow::Result<f64> {
    let clock = clock_getcpuclockid(pid).context("the agent has no CPU clock")?;
    Ok(Duration::from(clock_gettime(clock)?).as_secs_f64())
}

/// Memory of a process that is resident, in bytes.
pub(crate) fn rss_bytes(pid: Pid) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = status.lines().find_map(|it| {
        let kibibytes = it.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?;
        kibibytes.parse::<u64>().ok()
    });
    Ok(rss.context("the agent's status has no VmRSS")? * 1024)
}

/// What the kernel accounts for and counts of the BPF objects that a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    /// Memory of maps and programs, in bytes.
    pub(crate) memory: u64,
    /// Run time of programs while the kernel counted it, in nanoseconds, and how many runs that were.
    pub(crate) run_time: u64,
    pub(crate) runs: u64,
}

impl Objects {
    /// Those that a process has open now. An object that it has open twice counts once.
    pub(crate) fn of(pid: Pid) -> anyhow::Result<Self> {
        let mut texts = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // A descriptor may be closed meanwhile.
            texts.extend(fs::read_to_string(entry?.path()));
        }
        Ok(Self::sum(&texts))
    }

    fn sum(texts: &[String]) -> Self {
        let mut seen = Vec::new();
        let mut all = Self::default();
        for text in texts {
            let figure = |key: &str| {
                let line = text.lines().find_map(|it| it.strip_prefix(key));
                line.and_then(|it| it.trim().parse::<u64>().ok())
            };
            // Links have an id of a program, too, and no memory.
            let Some(memory) = figure("memlock:") else {
                continue;
            };
            let id = (figure("map_id:"), figure("prog_id:"));
            if seen.contains(&id) {
                continue;
            }
            seen.push(id);
            all.memory += memory;
            all.run_time += figure("run_time_ns:").unwrap_or(0);
            all.runs += figure("run_cnt:").unwrap_or(0);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_is_open_twice_counts_once() {
        let map = "pos:\t0\nmap_type:\t2\nmemlock:\t4096\nmap_id:\t7\nfrozen:\t0\n".to_owned();
        let program =
            "prog_type:\t5\nmemlock:\t8192\nprog_id:\t7\nrun_time_ns:\t900\nrun_cnt:\t3\n"
                .to_owned();
        let link = "link_type:\ttracing\nlink_id:\t4\nprog_id:\t9\n".to_owned();
        let file = "pos:\t0\nflags:\t02\n".to_owned();

        let all = Objects::sum(&[map.clone(), program, map, link, file]);

        let expected = Objects {
            memory: 12_288,
            run_time: 900,
            runs: 3,
        };
        assert_eq!(all, expected);
    }
}
