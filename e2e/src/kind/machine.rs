//! What a cluster changes on the machine beside its containers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount, umount};
use serde::{Deserialize, Serialize};

use super::{config, filters};

/// Settings of the kernel that hold for the whole machine.
const SYSCTLS: [&str; 13] = [
    // kubelet sets these, from within its node.
    "kernel.keys.root_maxbytes",
    "kernel.keys.root_maxkeys",
    "kernel.panic",
    "kernel.panic_on_oops",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    // The Docker daemon, where it is started here.
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.default.forwarding",
    // [`Machine::prepare`].
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
];

/// Three systemds, kubelets and containerds watch files, and so do agents. The usual 128 instances are too few.
const AT_LEAST: [(&str, u64); 2] = [
    ("fs.inotify.max_user_instances", 1024),
    ("fs.inotify.max_user_watches", 524_288),
];

/// Where cpusets of cgroup v1 are.
const CPUSETS: &str = "/sys/fs/cgroup/cpuset";

/// The machine as it was at one time.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Machine {
    sysctls: BTreeMap<String, String>,
    mounted: Vec<String>,
    cgroups: Vec<PathBuf>,
    filters: BTreeMap<String, String>,
}

impl Machine {
    /// As it is now.
    pub(super) fn now() -> Result<Self> {
        let sysctls = SYSCTLS.iter().filter_map(|name| {
            // Some are only there with a module.
            let value = read(name).ok()?;
            Some(((*name).to_owned(), value))
        });
        let mounts = mount_points()?;
        let mounted = config::MOUNTS.iter().map(|it| (*it).to_owned());
        Ok(Self {
            sysctls: sysctls.collect(),
            mounted: mounted.filter(|it| mounts.contains(it)).collect(),
            cgroups: docker_cgroups(),
            filters: filters::now(),
        })
    }

    /// Makes it fit for a cluster. `own_daemon`: a Docker daemon was started here.
    pub(super) fn prepare(&self, own_daemon: bool) -> Result<()> {
        if own_daemon {
            give_all_cpus(&Path::new(CPUSETS).join("docker"))?;
        }
        for (name, least) in AT_LEAST {
            let now: u64 = read(name)?.parse().with_context(|| name.to_owned())?;
            if now < least
                && let Err(error) = write(name, &least.to_string())
            {
                eprintln!("warning: {name} is {now}; nodes may need {least}: {error:#}");
            }
        }
        for (path, kind) in config::MOUNTS.into_iter().zip(["tracefs", "bpf"]) {
            if !self.mounted.iter().any(|it| it == path) {
                let none = None::<&str>;
                mount(Some(kind), path, Some(kind), MsFlags::empty(), none).with_context(|| {
                    format!("could not mount {path}; as root: mount -t {kind} {kind} {path}")
                })?;
            }
        }
        Ok(())
    }

    /// Puts everything back that differs. `own_daemon`: a Docker daemon was started here, and has ended.
    ///
    /// Goes on after a failure, and gives back what could not be put back.
    pub(super) fn put_back(&self, own_daemon: bool) -> Result<Vec<String>> {
        let mut failures = Vec::new();
        for (name, before) in &self.sysctls {
            if read(name).is_ok_and(|now| now == *before) {
                continue;
            }
            if let Err(error) = write(name, before) {
                failures.push(format!("sysctl {name} to {before}: {error:#}"));
            }
        }
        if own_daemon {
            failures.extend(filters::put_back(&self.filters));
            for cgroup in docker_cgroups() {
                if !self.cgroups.contains(&cgroup) {
                    remove_cgroup(&cgroup);
                }
            }
        }
        let mounts = mount_points()?;
        for path in config::MOUNTS {
            if self.mounted.iter().any(|it| it == path) || !mounts.iter().any(|it| it == path) {
                continue;
            }
            if let Err(error) = unmount(path) {
                failures.push(format!("the mount {path}: {error:#}"));
            }
        }
        Ok(failures)
    }
}

/// Where file systems are mounted, once per mount.
pub(super) fn mount_points() -> Result<Vec<String>> {
    let path = "/proc/self/mountinfo";
    let table = fs::read_to_string(path).with_context(|| format!("could not read {path}"))?;
    let points = table.lines().filter_map(|it| it.split(' ').nth(4));
    Ok(points.map(str::to_owned).collect())
}

fn unmount(path: &str) -> Result<()> {
    // What somebody else has pinned meanwhile would go with it.
    if path.ends_with("/bpf") {
        for entry in fs::read_dir(path)? {
            let name = entry?.file_name();
            // The kernel's own, of the programs and maps that there are.
            ensure!(
                name == "maps.debug" || name == "progs.debug",
                "somebody keeps a BPF object there: {}",
                name.display()
            );
        }
    }
    umount(path).context("could not unmount it")
}

fn file_of(sysctl: &str) -> PathBuf {
    Path::new("/proc/sys").join(sysctl.replace('.', "/"))
}

fn read(sysctl: &str) -> Result<String> {
    let text = fs::read_to_string(file_of(sysctl))
        .with_context(|| format!("could not read the sysctl {sysctl}"))?;
    Ok(text.trim().to_owned())
}

fn write(sysctl: &str, value: &str) -> Result<()> {
    fs::write(file_of(sysctl), value)
        .with_context(|| format!("could not write; as root: sysctl -w {sysctl}={value}"))
}

/// A cpuset of cgroup v1 that was there while a CPU was offline lacks it for ever, and kubelet cannot work below it.
fn give_all_cpus(cpuset: &Path) -> Result<()> {
    let cpus = |of: &Path| fs::read_to_string(of.join("cpuset.cpus"));
    let (Ok(all), Ok(has)) = (cpus(Path::new(CPUSETS)), cpus(cpuset)) else {
        return Ok(());
    };
    if all == has {
        return Ok(());
    }
    fs::write(cpuset.join("cpuset.cpus"), &all).with_context(|| {
        let (set, has, all) = (cpuset.display(), has.trim(), all.trim());
        format!("{set} has the CPUs {has} alone, and could not be given {all}")
    })
}

/// The cgroups that Docker makes for its containers, in each hierarchy; it does not remove them.
fn docker_cgroups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    let hierarchies = hierarchies.map(|it| it.path()).chain([root.to_owned()]);
    let cgroups = hierarchies.map(|it| it.join("docker"));
    cgroups.filter(|it| it.is_dir()).collect()
}

/// Removes a cgroup and those below it as far as they are empty.
fn remove_cgroup(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    _ = fs::remove_dir(cgroup);
}
