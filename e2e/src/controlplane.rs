//! A real etcd and kube-apiserver on loopback, one pair per [`ControlPlane`].
//!
//! It is the API of a cluster and nothing behind it. No kube-controller-manager, scheduler or
//! kubelet runs, so nobody makes pods for a `DaemonSet` or the `default` service account of a
//! namespace, nobody collects garbage, and a deleted namespace stays `Terminating`. Tests create
//! such objects themselves.

mod binaries;
mod pki;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    core::{Request, params::GetParams},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpSocket;

pub use crate::command::Output;
use crate::{command, process::Daemon, wait};

/// About 4 s on two idle cores; the rest is room for a machine that compiles at the same time.
const READY: Duration = Duration::from_mins(2);

/// A running control plane. Dropping it stops the processes and deletes all they stored.
#[derive(Debug)]
pub struct ControlPlane {
    apiserver: Daemon,
    etcd: Daemon,
    config: Config,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    dir: TempDir,
    /// Keeps the port from other programs as long as the control plane lives.
    _port: TcpSocket,
}

impl ControlPlane {
    /// Starts etcd and kube-apiserver and returns once `/readyz` says yes.
    ///
    /// The programs come from `KUBEBUILDER_ASSETS`, else from `e2e/controlplane/build.sh`, whose
    /// first run takes minutes. Async, and to be called within a tokio runtime. What goes wrong is
    /// reported with the end of the log of the process concerned.
    pub async fn start() -> Result<Self> {
        let assets = binaries::folder().await?;
        let dir = tempfile::Builder::new()
            .prefix("maplatency-e2e-")
            .tempdir()
            .context("could not make a folder for the control plane")?;
        pki::write(&dir.path().join("pki"))?;
        let (socket, port) = reserve_port()?;
        let kubeconfig = write_kubeconfig(dir.path(), port)?;
        let config = client_config(&kubeconfig).await?;
        let mut etcd = start_etcd(&assets, dir.path())?;
        let mut apiserver = start_apiserver(&assets, dir.path(), port)?;
        ready(&config, &mut etcd, &mut apiserver).await?;
        Ok(Self {
            apiserver,
            etcd,
            config,
            kubeconfig,
            kubectl: assets.join("kubectl"),
            dir,
            _port: socket,
        })
    }

    /// The file with the address and the credentials of a cluster admin.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A new client with the rights of a cluster admin.
    ///
    /// New each time, because a client belongs to the runtime that made it and a control plane may
    /// outlive that runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn client(&self) -> Client {
        Client::try_from(self.config.clone()).expect("the same configuration made a client before")
    }

    /// Runs the real kubectl, as a cluster admin, with `args`.
    ///
    /// Only a kubectl that cannot be started is an error; [`Output::ok`] turns a failed run into
    /// one.
    pub async fn kubectl(&self, args: &[&str]) -> Result<Output> {
        self.run_kubectl(args, "").await
    }

    /// Does `kubectl apply` with the documents in `yaml` and returns what it printed.
    pub async fn apply_yaml(&self, yaml: &str) -> Result<String> {
        self.run_kubectl(&["apply", "-f", "-"], yaml).await?.ok()
    }

    /// Does `kubectl apply` of a file without storing anything: the API server checks all but what controllers would. A
    /// field that it does not know is an error.
    pub async fn would_apply(&self, file: &Path) -> Result<Output> {
        let file = file.to_str().context("the path is not UTF-8")?;
        self.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", file])
            .await
    }

    /// A kubeconfig, in the same folder, with the rights of a service account and no others.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let token = self
            .kubectl(&["create", "token", account, "--namespace", namespace])
            .await?
            .ok()?;
        let text = fs::read_to_string(&self.kubeconfig).context("could not read the kubeconfig")?;
        let mut config: serde_json::Value =
            serde_yaml::from_str(&text).context("the kubeconfig is not YAML")?;
        config["users"][0]["user"] = json!({"token": token.trim_end()});
        let path = self.dir.path().join(format!("kubeconfig-{account}"));
        let text = serde_yaml::to_string(&config).context("could not write YAML")?;
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
        Ok(path)
    }

    /// The key by which kube-apiserver signs tokens of service accounts, as PEM.
    pub fn token_key(&self) -> Result<String> {
        let path = self.dir.path().join("pki/sa.key");
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
    }

    /// The ids of kube-apiserver and etcd, in this order.
    pub fn pids(&self) -> [u32; 2] {
        [self.apiserver.id(), self.etcd.id()]
    }

    async fn run_kubectl(&self, args: &[&str], stdin: &str) -> Result<Output> {
        let mut kubectl = tokio::process::Command::new(&self.kubectl);
        kubectl
            .env("KUBECONFIG", &self.kubeconfig)
            // The cache and preferences of the user must not change what a test sees, or be changed.
            .env("HOME", self.dir.path())
            .env_remove("KUBECACHEDIR")
            .env("KUBERC", "off");
        command::run(kubectl, args, stdin).await
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // At once: kube-apiserver waits up to a minute for clients that keep connections open. Nothing is lost, since all
        // that it stored goes away too.
        for daemon in [&mut self.apiserver, &mut self.etcd] {
            if let Err(error) = daemon.kill() {
                eprintln!("{error:#}");
            }
        }
    }
}

/// Finds a free port and keeps it: nobody else can take it between this call and the bind of
/// kube-apiserver, which alone shares it (`--permit-port-sharing`). A socket that does not listen
/// receives no connections.
fn reserve_port() -> Result<(TcpSocket, u16)> {
    let reserve = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let port = socket.local_addr()?.port();
        Ok::<_, std::io::Error>((socket, port))
    };
    reserve().context("could not reserve a port for kube-apiserver")
}

fn write_kubeconfig(dir: &Path, port: u16) -> Result<PathBuf> {
    let pki = dir.join("pki");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "e2e", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": pki.join("ca.crt"),
        }}],
        "users": [{"name": "admin", "user": {
            "client-certificate": pki.join("admin.crt"),
            "client-key": pki.join("admin.key"),
        }}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "admin"}}],
        "current-context": "e2e",
    });
    let path = dir.join("kubeconfig");
    let text = serde_yaml::to_string(&config).context("could not write the kubeconfig as YAML")?;
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    Ok(path)
}

async fn client_config(kubeconfig: &Path) -> Result<Config> {
    let read = Kubeconfig::read_from(kubeconfig).context("could not read back the kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .context("could not make a client of the kubeconfig")?;
    // Taken from the environment, and of no use on loopback.
    config.proxy_url = None;
    Ok(config)
}

fn start_etcd(assets: &Path, dir: &Path) -> Result<Daemon> {
    let mut command = Command::new(assets.join("etcd"));
    // Sockets need no free ports. Their names are relative to the working folder, since the path of
    // a socket is limited to 107 bytes and that of a temporary folder is not.
    command.current_dir(dir).args([
        "--data-dir=etcd",
        "--listen-client-urls=unix://etcd.sock",
        "--advertise-client-urls=unix://etcd.sock",
        "--listen-peer-urls=unix://etcd-peer.sock",
        "--initial-advertise-peer-urls=unix://etcd-peer.sock",
        "--initial-cluster=default=unix://etcd-peer.sock",
        // The data need not survive the machine.
        "--unsafe-no-fsync",
    ]);
    Daemon::spawn("etcd", command, &dir.join("etcd.log"))
}

fn start_apiserver(assets: &Path, dir: &Path, port: u16) -> Result<Daemon> {
    let mut command = Command::new(assets.join("kube-apiserver"));
    command
        .current_dir(dir)
        .arg(format!("--secure-port={port}"))
        .args([
            "--etcd-servers=unix://etcd.sock",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--permit-port-sharing",
            "--tls-cert-file=pki/apiserver.crt",
            "--tls-private-key-file=pki/apiserver.key",
            "--client-ca-file=pki/ca.crt",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--service-account-key-file=pki/sa.pub",
            "--service-account-signing-key-file=pki/sa.key",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC",
            // The agent's DaemonSet mounts host paths and adds capabilities.
            "--allow-privileged",
            // A loopback address is not allowed in the endpoints of the `kubernetes` service.
            "--endpoint-reconciler-type=none",
        ]);
    Daemon::spawn("kube-apiserver", command, &dir.join("kube-apiserver.log"))
}

async fn ready(config: &Config, etcd: &mut Daemon, apiserver: &mut Daemon) -> Result<()> {
    let client = Client::try_from(config.clone()).context("could not make a client")?;
    let answer = wait::until("kube-apiserver to be ready", READY, async || {
        // A process that has ended will never be ready, so the wait ends with it.
        if let Err(ended) = etcd.ensure_alive().and_then(|()| apiserver.ensure_alive()) {
            return Ok(Some(Err(ended)));
        }
        // kube builds requests for objects only; this one yields the plain path.
        let request = Request::new("").get("readyz", &GetParams::default())?;
        let text = client.request_text(request).await?;
        ensure!(text == "ok", "/readyz said {text}");
        Ok(Some(Ok(())))
    })
    .await;
    match answer {
        Ok(result) => result,
        Err(timeout) => Err(timeout.context(format!(
            "the log of kube-apiserver ends:\n{}\nthe log of etcd ends:\n{}",
            apiserver.log_tail(),
            etcd.log_tail()
        ))),
    }
}
