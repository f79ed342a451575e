//! What the end-to-end tests stand on: a real control plane, real child processes, and waiting.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use maplatency_e2e::controlplane::ControlPlane;
//!
//! let cluster = ControlPlane::start().await?;
//! let version = cluster.client().apiserver_version().await?;
//! println!("{}", cluster.kubectl(&["get", "namespaces"]).await?.ok()?);
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here is a mock: [`controlplane`] runs etcd and kube-apiserver, [`process`] runs the
//! workspace's own binaries, and [`wait`] polls for a condition, since a test that sleeps is either
//! slow or wrong.

pub mod caller;
pub mod capabilities;
pub mod cluster;
pub mod command;
pub mod controlplane;
pub mod crd;
pub mod fault;
pub mod helm;
pub mod http;
pub mod kind;
pub mod kubelet;
pub mod measure;
pub mod mistakes;
pub mod process;
pub mod prometheus;
pub mod replicas;
pub mod seccomp;
pub mod status;
pub mod vm;
pub mod wait;
pub mod workload;

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The root of the workspace, from which tests take manifests, examples and `crds/`.
///
/// # Panics
///
/// Never: the folder of this package lies one level below the root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies below the workspace root")
        .to_owned()
}

/// Where this user keeps what took long to make, outside the sources. The scripts that build find it likewise.
pub fn cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|it| !it.is_empty());
    Ok(
        match (set("MAPLATENCY_CACHE"), set("XDG_CACHE_HOME"), set("HOME")) {
            (Some(folder), _, _) => PathBuf::from(folder),
            (None, Some(folder), _) => Path::new(&folder).join("maplatency"),
            (None, None, home) => {
                Path::new(&home.context("HOME is not set")?).join(".cache/maplatency")
            }
        },
    )
}

/// Records that `name` could not run on this machine, for the summary of `make test`.
///
/// A test that returns early counts as passed; this line is what keeps the reader from believing
/// it. Outside `make test` the line goes to stderr alone.
pub fn not_run(name: &str, reason: &str) -> Result<()> {
    eprintln!("not run on this machine: {name}: {reason}");
    let Some(path) = std::env::var_os("MAPLATENCY_NOT_RUN") else {
        return Ok(());
    };
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("could not open {}", Path::new(&path).display()))?;
    // One write per line, so that tests which run at once do not mix their lines.
    file.write_all(format!("{name}: {reason}\n").as_bytes())
        .with_context(|| format!("could not write {}", Path::new(&path).display()))
}
