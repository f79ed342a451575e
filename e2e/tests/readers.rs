//! Pinned readers, looked at from the kernel's side, and CPUs that cannot be read from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use maplatency_agent::engine::TierChoice;
use maplatency_agent::monitor::Monitor;
use maplatency_e2e::measure::{request, snapshot};
use maplatency_e2e::process::workspace_binary;
use maplatency_e2e::workload::Workload;
use maplatency_e2e::{not_run, workspace};

/// Reads by pinned readers until enough of them are seen, with `cpus` as a probe writes it.
async fn cpus_of_reads(cpus: &str) -> Result<(BTreeSet<u32>, BTreeSet<u32>)> {
    let workload = Workload::start(&["--no-refresh"])?;
    let id = workload.ready().map_id;
    let monitor = Monitor::start(TierChoice::Auto)?;
    let spec = format!(
        "{{maps: [{{ids: [{id}]}}], activeReads: {{cpus: '{cpus}', periodMilliseconds: 50}}}}"
    );
    monitor.measure(vec![request("readers", &spec)?])?;
    let (probe, _) = snapshot(&monitor, "active reads", "readers", |it| {
        it.cumulative
            .values()
            .all(|it| it.active_read.count() >= 100)
            && !it.cumulative.is_empty()
    })
    .await?;
    assert_eq!(probe.problems, Vec::<String>::new());

    for (key, counts) in &probe.cumulative {
        assert_eq!(
            counts.until_user.count(),
            0,
            "a reader's reads are no caller's: {key:?}"
        );
        assert!(counts.active_delay.count() >= counts.active_read.count());
        let by_kernel = probe.readers.get(key).map_or(0, |it| it.until_user.count());
        let by_reader = counts.active_read.count();
        // The two are drained one after the other, and the last read waits for the next one. In a virtual machine that
        // takes a tenth of a second.
        assert!(
            by_kernel.abs_diff(by_reader) <= 5,
            "the kernel counts {by_kernel}, the reader {by_reader} on {key:?}"
        );
    }
    let said = probe.cumulative.keys().map(|it| it.cpu).collect();
    let seen = probe.readers.keys().map(|it| it.cpu).collect();
    monitor.stop()?;
    drop(workload);
    Ok((said, seen))
}

#[tokio::test]
async fn each_reader_reads_on_its_own_cpu_only() -> Result<()> {
    for (cpus, expected) in [("0", vec![0]), ("1", vec![1]), ("All", vec![0, 1])] {
        let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
        if online.trim() != "0-1" {
            return not_run(
                "each_reader_reads_on_its_own_cpu_only",
                &format!("written for the CPUs 0-1, this host has {}", online.trim()),
            );
        }
        let (said, seen) = cpus_of_reads(cpus).await?;
        let expected: BTreeSet<u32> = expected.into_iter().collect();
        assert_eq!(said, expected, "by the readers, asked for {cpus}");
        assert_eq!(seen, expected, "by the kernel, asked for {cpus}");
    }
    Ok(())
}

/// Runs the agent on a probe that reads from CPU 1; it has to refuse, so it ends at once.
fn agent_reading_from_cpu_1(prepare: impl FnOnce(&mut Command) -> Result<()>) -> Result<Output> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("probe.yaml");
    fs::write(
        &file,
        "apiVersion: maplatency.dev/v1alpha1\nkind: MapLatencyProbe\nmetadata: {name: cpu-1}\n\
         spec: {maps: [{names: [\"*\"]}], activeReads: {cpus: \"1\"}}\n",
    )?;
    let mut command = Command::new("sh");
    // The shell lets the test put the process where it belongs before the agent begins.
    command
        .args([
            "-c",
            "\"$PREPARE\" $$ && exec \"$AGENT\" run -f \"$PROBE\" --for 2s",
        ])
        .env("PREPARE", "true")
        .env("AGENT", workspace_binary("maplatency-agent")?)
        .env("PROBE", &file)
        .current_dir(workspace());
    prepare(&mut command)?;
    Ok(command.output()?)
}

fn assert_refused(output: &Output, message: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(message), "{stderr}");
    assert!(
        output.stdout.is_empty(),
        "nothing is measured on another CPU instead"
    );
}

/// Puts a file back as it was.
struct Restored {
    path: PathBuf,
    before: String,
}

impl Restored {
    fn set(path: &Path, value: &str) -> Result<Self> {
        let before = fs::read_to_string(path)?;
        fs::write(path, value).with_context(|| format!("could not write {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            before,
        })
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        fs::write(&self.path, &self.before).expect("what could be set can be put back");
    }
}

/// Where cpusets of cgroup v1 are, none of which gets a CPU back that comes back.
const CPUSETS: &str = "/sys/fs/cgroup/cpuset";

/// The CPUs of each cpuset, parents first. Puts them back in the end.
struct Cpusets(Vec<(PathBuf, String)>);

impl Drop for Cpusets {
    fn drop(&mut self) {
        for (file, cpus) in &self.0 {
            // Some may have gone meanwhile.
            if fs::read_to_string(file).is_ok_and(|now| now != *cpus)
                && let Err(error) = fs::write(file, cpus)
            {
                eprintln!("could not write {cpus:?} to {}: {error}", file.display());
            }
        }
    }
}

fn cpusets() -> Cpusets {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(CPUSETS)];
    while let Some(folder) = folders.pop() {
        let file = folder.join("cpuset.cpus");
        found.extend(fs::read_to_string(&file).map(|cpus| (file, cpus)));
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(below.map(|it| it.path()).filter(|it| it.is_dir()));
    }
    Cpusets(found)
}

#[test]
fn an_offline_cpu_is_refused_by_name() -> Result<()> {
    // Ends after the one that brings the CPU back.
    let _cpusets = cpusets();
    let switch = Path::new("/sys/devices/system/cpu/cpu1/online");
    let offline = match Restored::set(switch, "0") {
        Ok(offline) => offline,
        Err(error) => {
            return not_run("an_offline_cpu_is_refused_by_name", &format!("{error:#}"));
        }
    };
    let output = agent_reading_from_cpu_1(|_| Ok(()))?;
    drop(offline);
    assert_refused(&output, "CPU 1 is offline; the CPUs 0 are online");
    ensure!(
        fs::read_to_string(switch)?.trim() == "1",
        "CPU 1 did not come back"
    );
    Ok(())
}

#[test]
fn a_cpu_outside_of_the_affinity_mask_is_refused_by_name() -> Result<()> {
    let output = agent_reading_from_cpu_1(|command| {
        let folder = tempfile::tempdir()?.keep();
        let script = folder.join("prepare");
        fs::write(
            &script,
            "#!/bin/sh\nexec taskset -pc 0 \"$1\" > /dev/null\n",
        )?;
        let status = Command::new("chmod").arg("+x").arg(&script).status()?;
        ensure!(status.success());
        command.env("PREPARE", script);
        Ok(())
    })?;

    assert_refused(
        &output,
        "CPU 1 is online, but this process may only run on the CPUs 0; a cpuset or an affinity mask keeps it from the others",
    );
    Ok(())
}
