//! All that a cluster could leave on the machine, to be compared.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

/// Settings of the kernel that change by themselves.
const RESTLESS: [&str; 10] = [
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota/",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/random/",
    "net/netfilter/nf_conntrack_count",
];

/// Where mounts can be ours. Others come and go.
const PLACES: [&str; 4] = ["/run", "/sys", "/var", "/kind/docker"];

/// What the arguments of a daemon and its helpers, or the cgroup of a process of a node, contain.
const OURS: [&str; 2] = ["/run/maplatency-kind", "kubelet.slice"];

/// The state of the machine, one fact a line.
#[derive(Debug)]
pub(crate) struct Traces(BTreeSet<String>);

impl Traces {
    pub(crate) fn now() -> Result<Self> {
        let mut facts = BTreeSet::new();
        sysctls(Path::new("/proc/sys"), &mut facts);
        for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
            let point = line.split(' ').nth(4).unwrap_or_default();
            if PLACES.iter().any(|it| point.contains(it)) {
                facts.insert(format!("mount {point}"));
            }
        }
        for line in fs::read_to_string("/proc/net/route")?.lines() {
            facts.insert(format!("route {line}"));
        }
        for folder in [
            "/sys/class/net",
            "/run",
            "/var/run",
            "/etc/docker",
            "/etc/cni",
            "/opt",
            "/var/lib",
        ] {
            for name in names(Path::new(folder)) {
                facts.insert(format!("{folder}/{name}"));
            }
        }
        cgroups(Path::new("/sys/fs/cgroup"), &mut facts);
        for tool in ["iptables-save", "ip6tables-save"] {
            facts.extend(rules(tool).into_iter().map(|it| format!("{tool} {it}")));
        }
        for pid in names(Path::new("/proc")) {
            let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
            if OURS
                .iter()
                .any(|it| read("cmdline").contains(it) || read("cgroup").contains(it))
            {
                facts.insert(format!("process {pid} {}", read("comm").trim()));
            }
        }
        Ok(Self(facts))
    }

    /// What is there and was not, and what was there and is not.
    pub(crate) fn since(&self, before: &Self) -> Vec<String> {
        let new = self.0.difference(&before.0).map(|it| format!("+ {it}"));
        let gone = before.0.difference(&self.0).map(|it| format!("- {it}"));
        new.chain(gone).collect()
    }

    pub(crate) fn assert_same_now(&self) -> Result<()> {
        let left = Self::now()?.since(self);
        ensure!(left.is_empty(), "it left traces:\n{}", left.join("\n"));
        Ok(())
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .collect()
}

fn sysctls(folder: &Path, facts: &mut BTreeSet<String>) {
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            sysctls(&path, facts);
            continue;
        }
        let name = path
            .strip_prefix("/proc/sys")
            .unwrap_or(&path)
            .display()
            .to_string();
        if RESTLESS.iter().any(|it| name.starts_with(it)) {
            continue;
        }
        if let Ok(value) = fs::read_to_string(&path) {
            facts.insert(format!("sysctl {name} = {}", value.trim()));
        }
    }
}

fn cgroups(folder: &Path, facts: &mut BTreeSet<String>) {
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() && !path.is_symlink() {
            facts.insert(format!("cgroup {}", path.display()));
            cgroups(&path, facts);
        }
    }
}

/// Rules and policies. An empty table that accepts all does nothing, and may come and go.
fn rules(tool: &str) -> Vec<String> {
    let Ok(output) = Command::new(tool).output() else {
        return Vec::new();
    };
    let saved = String::from_utf8_lossy(&output.stdout);
    let mut table = "";
    let mut rules = Vec::new();
    for line in saved.lines() {
        match line.chars().next() {
            Some('*') => table = line,
            Some('-') => rules.push(format!("{table} {line}")),
            Some(':') if !line.contains(" ACCEPT ") => {
                rules.push(format!(
                    "{table} {}",
                    line.split(" [").next().unwrap_or(line)
                ));
            }
            _ => {}
        }
    }
    rules
}
