//! Bringing the cluster up and taking it down.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::config;
use super::docker::Docker;
use super::image::NodeImage;
use super::machine::Machine;
use super::state::{self, State, Store};
use super::tools::Tools;
use crate::command::output_of;
use crate::process::die_with_this_process;

pub use super::image::Choice;

/// The cluster's name; nodes are called `maplatency-control-plane`, `maplatency-worker` and `maplatency-worker2`.
pub const NAME: &str = "maplatency";
/// Docker's network of all clusters of kind.
const NETWORK: &str = "kind";
/// Which containers are nodes of ours.
const NODES: &str = "label=io.x-k8s.kind.cluster=maplatency";
/// A proxy is of no use to nodes that pull nothing, and kind would hand it on.
const PROXIES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// What agents and the reader of `helm test` need, with the numbers of `linux/capability.h`.
const CAPABILITIES: [(&str, u32); 2] = [("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// How to bring it up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The nodes' image.
    pub image: Choice,
    /// Leaves a cluster that did not come up as it is, to be looked at.
    pub retain: bool,
}

/// A cluster that is up.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The file with the address and the credentials of a cluster admin.
    pub kubeconfig: PathBuf,
    /// A kubectl that fits.
    pub kubectl: PathBuf,
}

/// Brings the cluster up, unless it is. Says on stderr what it does, and how long that takes.
pub fn up(options: &Options) -> Result<Cluster> {
    let begin = Instant::now();
    let store = Store::open()?;
    if let Some(state) = store.load()? {
        if let Some(cluster) = working(&state, &store.kubeconfig()) {
            eprintln!("the cluster is up already");
            return Ok(cluster);
        }
        eprintln!("a cluster was not finished, or has stopped; it is taken down first");
        take_down(&store, &state)?;
    }
    let mut state = State {
        boot: state::boot()?,
        machine: Machine::now()?,
        docker: Docker::find()?,
        image: None,
        tools: None,
        ready: false,
    };
    store.save(&state)?;
    let cluster = match bring_up(&store, &mut state, &options.image) {
        Ok(cluster) => cluster,
        Err(error) if options.retain => return Err(error),
        Err(error) => {
            keep_logs(&store, &state);
            // The first error matters more.
            if let Err(error) = take_down(&store, &state) {
                eprintln!("error: {error:#}");
            }
            return Err(error);
        }
    };
    eprintln!("the cluster is up after {:.0?}", begin.elapsed());
    Ok(cluster)
}

/// Takes the cluster down, and puts the machine back as it was. Does nothing where there is nothing to do.
pub fn down() -> Result<()> {
    let store = Store::open()?;
    let Some(state) = store.load()? else {
        eprintln!("there is no cluster");
        return Ok(());
    };
    take_down(&store, &state)
}

/// Whether the cluster is up and answers.
pub fn is_up() -> Result<bool> {
    let state = state::peek()?;
    let kubeconfig = state::kubeconfig_in(&state::folder()?);
    Ok(state.is_some_and(|it| working(&it, &kubeconfig).is_some()))
}

/// Loads image archives into every node of the cluster.
pub fn load(archives: &[PathBuf]) -> Result<()> {
    load_into(NAME, archives)
}

/// The same for a cluster of kind of any name.
pub(super) fn load_into(name: &str, archives: &[PathBuf]) -> Result<()> {
    let ours = state::peek()?.filter(|_| name == NAME);
    let (kind, docker) = match ours {
        Some(State {
            tools: Some(tools),
            docker,
            ..
        }) => (tools.kind, docker),
        Some(_) => bail!("the cluster is not up; `make cluster` brings it up"),
        None => (Tools::of_machine()?.kind, Docker::of_environment()),
    };
    let mut command = Command::new(kind);
    command.args(["load", "image-archive", "--name", name]);
    docker.address(&mut command);
    output_of(command.args(archives)).map(drop)
}

/// The daemon that runs the nodes of a cluster of kind.
pub(super) fn docker_of(name: &str) -> Result<Docker> {
    let ours = state::peek()?.filter(|_| name == NAME);
    Ok(ours.map_or_else(Docker::of_environment, |it| it.docker))
}

/// Says on stdout how the cluster is. Gives back whether it works.
pub fn status() -> Result<bool> {
    let Some(state) = state::peek()? else {
        println!("there is no cluster; `make cluster` brings one up");
        return Ok(false);
    };
    let kubeconfig = state::kubeconfig_in(&state::folder()?);
    if let Some(NodeImage { name, why, .. }) = &state.image {
        println!("node image  {name} ({why})");
    }
    let daemon = if state.docker.is_own() {
        "one that was started for the cluster"
    } else {
        "the machine's"
    };
    println!("docker      {daemon}");
    println!("kubeconfig  {}", kubeconfig.display());
    let Some(cluster) = working(&state, &kubeconfig) else {
        println!("it is not finished, or has stopped; `make cluster-down` clears it away");
        return Ok(false);
    };
    print!("{}", cluster.kubectl(&["get", "nodes"])?);
    Ok(true)
}

impl Cluster {
    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output_of(
            Command::new(&self.kubectl)
                .arg("--kubeconfig")
                .arg(&self.kubeconfig)
                .args(arguments)
                .env("KUBERC", "off"),
        )
    }
}

/// The cluster of a state, if it was finished and answers.
fn working(state: &State, kubeconfig: &Path) -> Option<Cluster> {
    let State {
        tools: Some(tools),
        ready: true,
        ..
    } = state
    else {
        return None;
    };
    let cluster = Cluster {
        kubeconfig: kubeconfig.to_owned(),
        kubectl: tools.kubectl.clone(),
    };
    let answer = cluster.kubectl(&["get", "--raw=/readyz", "--request-timeout=10s"]);
    answer.is_ok().then_some(cluster)
}

fn bring_up(store: &Store, state: &mut State, choice: &Choice) -> Result<Cluster> {
    if state.docker.is_own() {
        step("no Docker daemon answers; starting one", || {
            state.docker.start()
        })?;
    }
    let image = step("node image", || NodeImage::choose(&state.docker, choice))?;
    eprintln!("  {}: {}", image.name, image.why);
    let tools = if image.own {
        Tools::of_own_image()?
    } else {
        Tools::of_machine()?
    };
    state.image = Some(image.clone());
    state.tools = Some(tools.clone());
    store.save(state)?;

    state.machine.prepare(state.docker.is_own())?;
    let cluster = Cluster {
        kubeconfig: store.kubeconfig(),
        kubectl: tools.kubectl.clone(),
    };
    step("three nodes", || create(state, &tools, &image, &cluster))?;
    step("nodes and system pods ready", || {
        let all = ["--for=condition=Ready", "--all", "--timeout=180s"];
        cluster.kubectl(&[&["wait", "node"], &all[..]].concat())?;
        let pods = ["wait", "pod", "--namespace=kube-system"];
        cluster.kubectl(&[&pods[..], &all].concat())
    })?;
    warn_of_missing_capabilities(&state.docker)?;
    state.ready = true;
    store.save(state)?;
    Ok(cluster)
}

fn create(state: &State, tools: &Tools, image: &NodeImage, cluster: &Cluster) -> Result<()> {
    let mut kind = Command::new(&tools.kind);
    kind.args(["create", "cluster", "--retain", "--config=-"])
        .args(["--name", NAME, "--image", &image.name])
        .arg("--kubeconfig")
        .arg(&cluster.kubeconfig);
    state.docker.address(&mut kind);
    if image.own {
        for proxy in PROXIES {
            kind.env_remove(proxy);
        }
    }
    // Without this process nobody would know of its nodes.
    die_with_this_process(&mut kind);
    let mut child = kind
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("could not start kind")?;
    let input = child.stdin.take().context("kind has no stdin")?;
    serde_json::to_writer(input, &config::cluster(image.own)).context("kind's configuration")?;
    let status = child.wait().context("could not wait for kind")?;
    ensure!(
        status.success(),
        "kind ended with {status}; its messages are above"
    );
    Ok(())
}

fn nodes(docker: &Docker) -> Result<Vec<String>> {
    let listed =
        output_of(&mut docker.command(&["ps", "--all", "--filter", NODES, "--format={{.Names}}"]))?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// An old Docker daemon does not know the newest capabilities, so that nobody in its containers can have them.
fn warn_of_missing_capabilities(docker: &Docker) -> Result<()> {
    for node in nodes(docker)? {
        let status = output_of(&mut docker.command(&["exec", &node, "cat", "/proc/1/status"]))?;
        let missing = missing_capabilities(&status);
        if !missing.is_empty() {
            eprintln!(
                "warning: {node} has no {}, and so `helm test` will not work there: this Docker daemon is too old. \
                 Use Docker 23 or newer, or stop it, and one is started for the cluster that can",
                missing.join(" and ")
            );
        }
    }
    Ok(())
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let set = status.lines().find_map(|it| it.strip_prefix("CapBnd:"));
    let set = set.and_then(|it| u64::from_str_radix(it.trim(), 16).ok());
    let set = set.unwrap_or_default();
    let missing = CAPABILITIES.iter().filter(|(_, bit)| set >> bit & 1 == 0);
    missing.map(|(name, _)| *name).collect()
}

fn keep_logs(store: &Store, state: &State) {
    let Some(tools) = &state.tools else {
        return;
    };
    let logs = store.logs();
    let mut kind = Command::new(&tools.kind);
    kind.args(["export", "logs", "--name", NAME]).arg(&logs);
    state.docker.address(&mut kind);
    if output_of(&mut kind).is_ok() {
        eprintln!("the logs of the nodes are in {}", logs.display());
    }
}

fn take_down(store: &Store, state: &State) -> Result<()> {
    let begin = Instant::now();
    // After a boot only files are left; what is to be put back then is what starting the daemon changes now.
    let now = (state.boot != state::boot()?).then(Machine::now);
    let now = now.transpose()?;
    let machine = now.as_ref().unwrap_or(&state.machine);
    let docker = &state.docker;
    // One that has crashed leaves the nodes running; only a daemon knows how to end them.
    docker.start()?;
    for node in nodes(docker)? {
        output_of(&mut docker.command(&["rm", "--force", "--volumes", &node]))?;
    }
    if docker.is_own() {
        // Fails if kind has not come so far as to make it.
        _ = output_of(&mut docker.command(&["network", "rm", NETWORK]));
    }
    docker.stop()?;
    let failures = machine.put_back(docker.is_own())?;
    store.clear()?;
    ensure!(
        failures.is_empty(),
        "the cluster is down, but this could not be put back: {}",
        failures.join("; ")
    );
    eprintln!(
        "the cluster is down, and the machine as it was before, after {:.0?}",
        begin.elapsed()
    );
    Ok(())
}

/// Says what is done, and how long it took.
fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    eprintln!("{what} ...");
    let value = work().with_context(|| what.to_owned())?;
    eprintln!("  {what}: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_an_old_daemon_lacks_what_agents_need() {
        // What Docker 20.10 gives, and what Linux 6.18 has.
        assert_eq!(
            missing_capabilities("Name:\tsystemd\nCapBnd:\t0000003fffffffff\n"),
            ["CAP_PERFMON", "CAP_BPF"]
        );
        assert!(missing_capabilities("CapBnd:\t000001ffffffffff\n").is_empty());
    }
}
