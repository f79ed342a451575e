//! A real cluster on one machine: kind, with one control plane and two workers.
//!
//! [`rig`] brings it up and takes it down (`maplatency-kind`, `make cluster`). Tests use [`KindCluster`], which
//! takes the cluster of `KUBECONFIG` where that is set.
//!
//! Nothing of the machine stays changed after [`rig::down`], whatever ended the run that brought the cluster up:
//! [`state`] writes down what is there before it is changed.

mod archive;
mod config;
mod diagnosis;
mod docker;
mod filters;
mod image;
mod machine;
pub mod rig;
pub mod state;
mod tools;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tempfile::TempDir;

use crate::command::{self, Output};
use crate::helm::Version;
use crate::wait;

/// What the contexts of clusters that kind made begin with; the cluster's name follows.
const KIND_CONTEXT: &str = "kind-";

/// Whose cluster it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `KUBECONFIG` names it.
    Given,
    /// It was up before, by `make cluster`.
    Found,
    /// It was made for this value, and goes with it.
    Made,
}

/// A cluster to run tests in.
#[allow(missing_debug_implementations, reason = "the client's has secrets")]
pub struct KindCluster {
    origin: Origin,
    config: Config,
    context: String,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    /// In place of the user's home, whose caches and preferences must not change what a test sees.
    home: TempDir,
}

impl KindCluster {
    /// The cluster of `KUBECONFIG` if that is set, else the one that is up, else a new one, which takes half a
    /// minute, and a quarter of an hour where all programs have to be built first.
    pub async fn from_env_or_new() -> Result<Self> {
        if let Some(path) = std::env::var_os("KUBECONFIG").filter(|it| !it.is_empty()) {
            return Self::new(Origin::Given, path.into(), tools::any_kubectl()?).await;
        }
        let (before, cluster) = tokio::task::spawn_blocking(|| {
            let before = rig::is_up()?;
            anyhow::Ok((before, rig::up(&rig::Options::default())?))
        })
        .await
        .context("the task that brings the cluster up")??;
        let origin = if before { Origin::Found } else { Origin::Made };
        let rig::Cluster {
            kubeconfig,
            kubectl,
        } = cluster;
        Self::new(origin, kubeconfig, kubectl).await
    }

    /// Waits until no other process of this user tests in a cluster, so that no two use the same names. That holds as
    /// long as the file is open.
    pub fn alone() -> Result<std::fs::File> {
        state::alone()
    }

    async fn new(origin: Origin, kubeconfig: PathBuf, kubectl: PathBuf) -> Result<Self> {
        let read = Kubeconfig::read_from(&kubeconfig)
            .with_context(|| format!("could not read the kubeconfig {}", kubeconfig.display()))?;
        let context = read.current_context.clone().unwrap_or_default();
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("the kubeconfig {}", kubeconfig.display()))?;
        Ok(Self {
            origin,
            config,
            context,
            kubeconfig,
            kubectl,
            home: tempfile::tempdir()?,
        })
    }

    /// Whose cluster it is.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The file with the address and the credentials of a cluster admin.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A new client. It belongs to the runtime that it was made in.
    pub fn client(&self) -> Result<Client> {
        Client::try_from(self.config.clone()).context("could not make a client of the kubeconfig")
    }

    /// Runs kubectl. Only one that cannot be started is an error; [`Output::ok`] turns a failed run into one.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        command::run(self.command(&self.kubectl), arguments, "").await
    }

    /// The same with something to read, such as the documents for `apply -f -`.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<Output> {
        command::run(self.command(&self.kubectl), arguments, input).await
    }

    /// Does `kubectl apply` with the documents in `yaml`.
    pub async fn apply(&self, yaml: &str) -> Result<Output> {
        self.kubectl_with_input(&["apply", "-f", "-"], yaml).await
    }

    /// Runs Helm, of which the first run on a machine is fetched.
    pub async fn helm(&self, version: Version, arguments: &[&str]) -> Result<Output> {
        let program = version.program().await?;
        command::run(self.command(&program), arguments, "").await
    }

    /// Loads image archives (`docker save`, or OCI archives) into every node.
    pub async fn load(&self, archives: &[&Path]) -> Result<()> {
        let name = self.name("images can be loaded")?;
        let archives: Vec<_> = archives.iter().map(|&it| it.to_owned()).collect();
        tokio::task::spawn_blocking(move || rig::load_into(&name, &archives))
            .await
            .context("the task that loads images")?
    }

    /// Makes an image of one program and the libraries that it needs, and loads it into every node.
    pub async fn load_program(&self, image: &str, program: &Path) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let archive = archive::of_program(image, program, folder.path())?;
        self.load(&[&archive]).await
    }

    /// Runs a program on a node, outside of its pods, and gives what it wrote.
    pub async fn on_node(&self, node: &str, arguments: &[&str]) -> Result<String> {
        self.docker(&[&["exec", node], arguments].concat()).await
    }

    /// Stops a node with all that runs there, and starts it again.
    pub async fn restart_node(&self, node: &str) -> Result<()> {
        self.docker(&["restart", "--time", "2", node])
            .await
            .map(drop)
    }

    async fn docker(&self, arguments: &[&str]) -> Result<String> {
        let docker = rig::docker_of(&self.name("nodes are containers")?)?;
        let mut command = docker.command(arguments);
        tokio::task::spawn_blocking(move || command::output_of(&mut command))
            .await
            .context("the task that runs docker")?
    }

    /// Whether kind made it, so that its nodes are containers, and share this machine's kernel if Docker runs here.
    pub fn is_of_kind(&self) -> bool {
        self.context.starts_with(KIND_CONTEXT)
    }

    /// What kind calls the cluster. `what` is possible in those of kind alone.
    fn name(&self, what: &str) -> Result<String> {
        let name = self.context.strip_prefix(KIND_CONTEXT);
        let name = name.with_context(|| {
            format!(
                "the context {} is of no cluster that kind made, and {what} only in those",
                self.context
            )
        })?;
        Ok(name.to_owned())
    }

    /// The nodes that are no control planes, by name.
    pub async fn workers(&self) -> Result<Vec<String>> {
        let listed = self
            .kubectl(&[
                "get",
                "nodes",
                "--selector=!node-role.kubernetes.io/control-plane",
                "--output=name",
            ])
            .await?
            .ok()?;
        let names = listed.lines().filter_map(|it| it.strip_prefix("node/"));
        Ok(names.map(str::to_owned).collect())
    }

    /// Waits for a condition as [`wait::until`] does. Where it does not come, tells on stderr how the cluster is.
    pub async fn until<T>(
        &self,
        what: &str,
        timeout: Duration,
        check: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let result = wait::until(what, timeout, check).await;
        self.explain(result).await
    }

    /// Gives the result back. For an error, tells [`Self::diagnosis`] on stderr.
    pub async fn explain<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            eprintln!("{error:#}\n{}", self.diagnosis().await);
        }
        result
    }

    /// How the cluster is: nodes, pods, events, and the logs of pods.
    pub async fn diagnosis(&self) -> String {
        diagnosis::of(self).await
    }

    fn command(&self, program: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.home.path())
            .env_remove("KUBECACHEDIR")
            .env("KUBERC", "off");
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env_remove(variable);
        }
        command
    }
}

impl Drop for KindCluster {
    fn drop(&mut self) {
        if self.origin == Origin::Made
            && let Err(error) = rig::down()
        {
            eprintln!("error: {error:#}");
        }
    }
}
