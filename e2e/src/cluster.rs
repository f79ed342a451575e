//! A cluster of parts that run on one machine: a real API server, the real operator, and real agents started as
//! a kubelet would start them.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Node, NodeSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus};

use crate::controlplane::ControlPlane;
use crate::kubelet::{self, Projected};
use crate::process::{Daemon, workspace_binary};
use crate::{crd, wait, workspace};

/// The operator's namespace.
pub const NAMESPACE: &str = "maplatency-system";
/// The agents' DaemonSet.
pub const AGENTS: &str = "maplatency-agent";
/// Time for the operator to act on a change. It writes at most every five seconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How agents and operator talk.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Without TLS and tokens.
    Plaintext,
    /// With both, as in a real cluster, and with these further flags of the operator.
    Tls(Vec<String>),
}

impl Transport {
    /// TLS with further flags of the operator.
    pub fn tls(flags: &[&str]) -> Self {
        Self::Tls(flags.iter().map(|it| (*it).to_owned()).collect())
    }
}

/// The cluster. Everything ends when it is dropped: the operator before the API server.
#[allow(missing_debug_implementations, reason = "the client has none")]
pub struct Cluster {
    operator: Option<Daemon>,
    control_plane: ControlPlane,
    client: Client,
    transport: Transport,
    listen: SocketAddr,
    http: SocketAddr,
    agent_http: Option<SocketAddr>,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts it with the resource's definition, the namespace, and nodes of these names and labels.
    pub async fn start(nodes: &[(&str, &[(&str, &str)])]) -> Result<Self> {
        Self::start_with(nodes, Transport::Plaintext).await
    }

    /// The same, with a choice of how agents and operator talk.
    pub async fn start_with(
        nodes: &[(&str, &[(&str, &str)])],
        transport: Transport,
    ) -> Result<Self> {
        let mut cluster = Self::without_operator(nodes, transport).await?;
        cluster.start_operator()?;
        Ok(cluster)
    }

    /// The same without an operator.
    pub async fn without_operator(
        nodes: &[(&str, &[(&str, &str)])],
        transport: Transport,
    ) -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let client = control_plane.client();
        crd::install(&client, &workspace().join("crds")).await?;
        let namespace = Namespace {
            metadata: named(NAMESPACE),
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        for (name, labels) in nodes {
            let mut metadata = named(name);
            let os = [("kubernetes.io/os", "linux")];
            metadata.labels = Some(
                os.iter()
                    .chain(*labels)
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            );
            let node = Node {
                metadata,
                spec: Some(NodeSpec::default()),
                ..Node::default()
            };
            Api::all(client.clone())
                .create(&PostParams::default(), &node)
                .await?;
        }
        kubelet::service_account(&client, NAMESPACE, AGENTS).await?;
        Ok(Self {
            operator: None,
            control_plane,
            client,
            transport,
            listen: free_port()?,
            http: free_port()?,
            agent_http: None,
            folder: tempfile::tempdir()?,
        })
    }

    /// Starts the operator, again after [`Self::kill_operator`].
    pub fn start_operator(&mut self) -> Result<()> {
        self.operator = Some(self.start_alone("operator", self.listen, self.http)?);
        Ok(())
    }

    /// Starts one more operator, on an address of its own. It stands in no election, and works as if it were the only one.
    pub fn start_another(&self, name: &str, listen: SocketAddr) -> Result<Daemon> {
        self.start_alone(name, listen, free_port()?)
    }

    fn start_alone(&self, name: &str, listen: SocketAddr, http: SocketAddr) -> Result<Daemon> {
        let mut command = self.operator_command(listen, listen)?;
        command
            .args(["--http-listen", &http.to_string()])
            // After a kill nobody waits for the lease to run out.
            .args(["--leader-elect", "false"]);
        let log = self.folder.path().join(format!("{name}.log"));
        Daemon::spawn("the operator", command, &log)
    }

    /// The command of an operator that listens on one address and tells agents to dial another.
    pub fn operator_command(&self, listen: SocketAddr, dialed: SocketAddr) -> Result<Command> {
        let mut command = Command::new(workspace_binary("maplatency-operator")?);
        command.args(["run", "--namespace", NAMESPACE]);
        let scheme = match &self.transport {
            Transport::Plaintext => {
                command.arg("--insecure-plaintext");
                "http"
            }
            Transport::Tls(flags) => {
                command.args(flags);
                "https"
            }
        };
        command
            .args(["--listen", &listen.to_string()])
            .args(["--agent-operator-url", &format!("{scheme}://{dialed}")])
            .args(["--report-period", "1s"])
            // Proxies, flags and log filters of whoever runs the test are not part of the cluster.
            .env_clear()
            .env("KUBECONFIG", self.control_plane.kubeconfig());
        if let Some(address) = self.agent_http {
            command.args(["--agent-http-listen", &address.to_string()]);
        }
        Ok(command)
    }

    /// Where the operator listens.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Where the operator answers for health and metrics.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Lets agents export metrics; gives where. Of several agents on this machine only one can.
    pub fn export_agent(&mut self) -> Result<SocketAddr> {
        let address = free_port()?;
        self.agent_http = Some(address);
        Ok(address)
    }

    /// The key by which the API server signs tokens of service accounts, as PEM.
    pub fn token_key(&self) -> Result<String> {
        self.control_plane.token_key()
    }

    /// Kills the operator as a crash would.
    pub fn kill_operator(&mut self) -> Result<()> {
        let mut operator = self.operator.take().context("no operator runs")?;
        operator.kill().map(drop)
    }

    /// The operator's process.
    pub fn operator(&mut self) -> Result<&mut Daemon> {
        self.operator.as_mut().context("no operator runs")
    }

    /// A client of the API server.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs kubectl.
    pub async fn kubectl(&self, args: &[&str]) -> Result<crate::controlplane::Output> {
        self.control_plane.kubectl(args).await
    }

    /// Objects of the API server as kubectl prints them.
    pub async fn json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let args = [args, &["-o", "json"]].concat();
        let text = self.kubectl(&args).await?.ok()?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    /// Applies one manifest as a user would.
    pub async fn apply(&self, yaml: &str) -> Result<crate::controlplane::Output> {
        let file = self.folder.path().join("manifest.yaml");
        std::fs::write(&file, yaml)?;
        let file = file.to_str().context("the temporary folder is UTF-8")?;
        self.kubectl(&["apply", "-f", file]).await
    }

    /// Applies a probe with this spec.
    pub async fn apply_probe(&self, name: &str, spec: &str) -> Result<()> {
        self.apply(&probe_yaml(name, spec)).await?.ok().map(drop)
    }

    /// A probe as it is now.
    pub async fn probe(&self, name: &str) -> Result<MapLatencyProbe> {
        Ok(Api::all(self.client()).get(name).await?)
    }

    /// Waits until a probe's status fits. Statuses of older generations never do.
    pub async fn status(
        &self,
        what: &str,
        name: &str,
        fits: impl Fn(&MapLatencyProbeStatus) -> bool,
    ) -> Result<MapLatencyProbeStatus> {
        let operator = self.operator.as_ref();
        wait::until(what, PATIENCE, async || {
            let probe = self.probe(name).await?;
            let status = probe.status.unwrap_or_default();
            ensure!(
                status.observed_generation == probe.metadata.generation && fits(&status),
                "{}\nthe operator's log ends with:\n{}",
                serde_yaml::to_string(&status)?,
                operator.map(Daemon::log_tail).unwrap_or_default(),
            );
            Ok(Some(status))
        })
        .await
    }

    /// The agents' DaemonSet, once there is one.
    pub async fn daemon_set(&self) -> Result<DaemonSet> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client(), NAMESPACE);
        wait::until("the agents' DaemonSet", PATIENCE, async || {
            Ok(sets.get_opt(AGENTS).await?)
        })
        .await
    }

    /// Waits until there is no DaemonSet.
    pub async fn no_daemon_set(&self) -> Result<()> {
        let sets: Api<DaemonSet> = Api::namespaced(self.client(), NAMESPACE);
        wait::until("the DaemonSet to go", PATIENCE, async || {
            ensure!(sets.get_opt(AGENTS).await?.is_none(), "it is still there");
            Ok(Some(()))
        })
        .await
    }

    /// Starts the real agent on a node with what the DaemonSet's pod template says.
    pub async fn start_agent(&self, node: &str) -> Result<Daemon> {
        self.start_agent_with(node, &[]).await
    }

    /// The same through another program, which is to run what follows its arguments.
    pub async fn start_agent_with(&self, node: &str, through: &[&str]) -> Result<Daemon> {
        let volumes = self.renew_identity(node).await?;
        let identity = (volumes, self.identity_folder(node));
        start_agent(
            &self.daemon_set().await?,
            node,
            self.folder.path(),
            Some(&identity),
            through,
        )
    }

    /// Writes the files of the agent's projected volume as they should be now, with a new token.
    pub async fn renew_identity(&self, node: &str) -> Result<Vec<Projected>> {
        let template = self.daemon_set().await?.spec.context("a spec")?.template;
        let pod = template.spec.context("a pod spec")?;
        let container = pod.containers.first().context("a container")?;
        let volumes = kubelet::projected(&pod, container);
        for volume in &volumes {
            let folder = self.identity_folder(node);
            volume
                .write(&self.client(), NAMESPACE, node, &folder)
                .await?;
        }
        Ok(volumes)
    }

    /// Where the agent of a node has the files of its projected volume.
    pub fn identity_folder(&self, node: &str) -> PathBuf {
        self.folder.path().join(format!("identity-{node}"))
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Starts the real agent as a kubelet of `node` would, with its log in `folder`. `identity` has its projected volumes and the
/// folder in which their files are. With `through`, that program is to run what follows its arguments.
pub fn start_agent(
    set: &DaemonSet,
    node: &str,
    folder: &Path,
    identity: Option<&(Vec<Projected>, PathBuf)>,
    through: &[&str],
) -> Result<Daemon> {
    let spec = set.spec.as_ref().context("a spec")?;
    let pod = spec.template.spec.as_ref().context("a pod spec")?;
    let container = pod.containers.first().context("a container")?;
    let agent = workspace_binary("maplatency-agent")?;
    let mut command = match through {
        [] => Command::new(agent),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(agent);
            command
        }
    };
    // A container has the variables of its template alone.
    command.env_clear();
    let mut variables = Vec::new();
    for variable in container.env.iter().flatten() {
        let path = variable
            .value_from
            .as_ref()
            .and_then(|it| it.field_ref.as_ref())
            .map(|it| it.field_path.as_str());
        let value = match (path, &variable.value) {
            (Some("spec.nodeName"), None) => node,
            (None, Some(value)) => value,
            _ => bail!("a kubelet would set {variable:?}"),
        };
        command.env(&variable.name, value);
        variables.push((format!("$({})", variable.name), value));
    }
    for argument in container.args.iter().flatten() {
        let resolved = variables
            .iter()
            .fold(argument.clone(), |text, (name, value)| {
                text.replace(name, value)
            });
        let resolved = identity.iter().fold(resolved, |text, (volumes, folder)| {
            volumes
                .iter()
                .fold(text, |text, it| it.resolve(&text, folder))
        });
        command.arg(resolved);
    }
    Daemon::spawn(
        "the agent",
        command,
        &folder.join(format!("agent-{node}.log")),
    )
}

/// A loopback address that nobody uses. Bound for a moment only; an operator binds it again, also after a restart.
pub fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("could not find a free port")?;
    Ok(listener.local_addr()?)
}

/// A probe as a user writes it.
pub fn probe_yaml(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: maplatency.dev/v1alpha1\nkind: MapLatencyProbe\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}
