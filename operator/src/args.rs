//! The command line.
#![allow(
    clippy::doc_markdown,
    reason = "these comments are printed as help, where backticks are noise"
)]

use std::net::SocketAddr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Port on which agents find the operator.
const PORT: u16 = 7443;

/// Measures BPF map latency across a cluster: places agents, merges what they measure, writes status.
#[derive(Debug, Parser)]
#[command(name = "maplatency-operator", version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// Reads the command line. Ends the process if it is wrong, or asks for help.
    pub fn read() -> Self {
        let args = Self::parse();
        if let Command::Run(run) = &args.command
            && !run.insecure_plaintext
        {
            let mut all = Self::command();
            // Gives subcommands their whole name, which the usage begins with.
            all.build();
            all.find_subcommand_mut("run")
                .expect("run was read a moment ago")
                .error(ErrorKind::MissingRequiredArgument, NO_TLS)
                .exit()
        }
        args
    }
}

const NO_TLS: &str = "\
the operator cannot use TLS yet and cannot tell who its agents are, so it runs
only with --insecure-plaintext, for trials on a single host. A later release
brings TLS and agent identities.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print docs/metrics.md: what operator and agent export to Prometheus.
    #[command(hide = true)]
    Metrics,
    /// Print the CustomResourceDefinition as YAML.
    ///
    /// To install it: maplatency-operator crd | kubectl apply --server-side -f -
    Crd,
    /// Serve the agents and keep every MapLatencyProbe's status up to date.
    ///
    /// Talks to the API server of the kubeconfig ($KUBECONFIG), or of the cluster that it runs in. For every
    /// probe it decides which nodes measure, keeps one DaemonSet of agents on exactly those nodes, tells each
    /// agent what to measure and writes what comes back into the probe's status.
    Run(Box<RunArgs>),
}

/// How to serve. Every flag can be given as an environment variable.
#[derive(Clone, Debug, ClapArgs)]
pub struct RunArgs {
    /// Serve agents without TLS and without checking who they are.
    ///
    /// Whoever reaches the port can then report as any node. For trials on a single host; a later release
    /// brings TLS and agent identities, and until then the operator starts with this flag only.
    #[arg(long, env = "MAPLATENCY_INSECURE_PLAINTEXT")]
    pub insecure_plaintext: bool,

    /// Address to listen on for agents.
    #[arg(
        long,
        env = "MAPLATENCY_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:7443"
    )]
    pub listen: SocketAddr,

    /// URL under which agents find this operator
    /// [default: `http://maplatency-operator.<namespace>.svc:7443`].
    #[arg(long, env = "MAPLATENCY_AGENT_OPERATOR_URL", value_name = "URL", value_parser = operator_url)]
    pub agent_operator_url: Option<String>,

    /// Namespace for the agents' DaemonSet; the operator's own.
    #[arg(long, env = "POD_NAMESPACE", default_value = "maplatency-system", value_parser = namespace)]
    pub namespace: String,

    /// Image of the agent.
    #[arg(
        long,
        env = "MAPLATENCY_AGENT_IMAGE",
        value_name = "IMAGE",
        default_value = concat!("maplatency-agent:", env!("CARGO_PKG_VERSION"))
    )]
    pub agent_image: String,

    /// Time between two reports of an agent, from 100ms to 10s.
    ///
    /// Shorter makes status fresher, longer makes large clusters cheaper. No count is lost either way.
    #[arg(
        long,
        env = "MAPLATENCY_REPORT_PERIOD",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = report_period
    )]
    pub report_period: Duration,

    /// Address to answer on for /healthz, /readyz and /metrics, over plain HTTP.
    #[arg(
        long,
        env = "MAPLATENCY_HTTP_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8080"
    )]
    pub http_listen: SocketAddr,

    /// Address for agents to answer on for /metrics [default: they do not].
    #[arg(
        long,
        env = "MAPLATENCY_AGENT_HTTP_LISTEN",
        value_name = "ADDRESS:PORT"
    )]
    pub agent_http_listen: Option<SocketAddr>,

    /// Label of nodes by whose value latencies are told apart in metrics.
    #[arg(
        long,
        env = "MAPLATENCY_NODE_CLASS_LABEL",
        value_name = "LABEL",
        default_value = "node.kubernetes.io/instance-type"
    )]
    pub node_class_label: String,

    /// Whether to work only while holding the Lease maplatency-operator, so that one of several operators leads.
    ///
    /// With false no second operator may run in the cluster.
    #[arg(
        long,
        env = "MAPLATENCY_LEADER_ELECT",
        value_name = "BOOL",
        default_value_t = true,
        action = ArgAction::Set
    )]
    pub leader_elect: bool,

    /// After so long without news of the leader another operator takes over; from 3s to 10m, in whole seconds.
    ///
    /// A leader renews every sixth of it, and ends if that did not work for two thirds of it.
    #[arg(
        long,
        env = "MAPLATENCY_LEASE_DURATION",
        value_name = "DURATION",
        default_value = "6s",
        value_parser = lease_duration
    )]
    pub lease_duration: Duration,

    /// Name of this process among operators [default: the host's name and a random number].
    #[arg(long, env = "POD_NAME", value_name = "NAME", value_parser = process_name)]
    pub name: Option<String>,

    /// Form of the log on stderr.
    #[arg(long, env = "MAPLATENCY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What to log, such as debug, or info,maplatency_operator=debug.
    #[arg(
        long,
        env = "RUST_LOG",
        value_name = "FILTER",
        default_value = "info,kube=warn"
    )]
    pub log_filter: String,
}

impl RunArgs {
    /// The URL that agents dial.
    pub fn operator_url(&self) -> String {
        self.agent_operator_url
            .clone()
            .unwrap_or_else(|| format!("http://maplatency-operator.{}.svc:{PORT}", self.namespace))
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

fn report_period(text: &str) -> Result<Duration, String> {
    let period = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if (Duration::from_millis(100)..=Duration::from_secs(10)).contains(&period) {
        Ok(period)
    } else {
        Err("write a duration from 100ms to 10s".to_owned())
    }
}

fn lease_duration(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    let fits = (Duration::from_secs(3)..=Duration::from_mins(10)).contains(&lease);
    if fits && lease.subsec_nanos() == 0 {
        Ok(lease)
    } else {
        Err("write a duration from 3s to 10m, in whole seconds".to_owned())
    }
}

fn process_name(text: &str) -> Result<String, String> {
    let fits = (1..=253).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("write the name of the pod: 1 to 253 printable characters".to_owned())
    }
}

fn operator_url(text: &str) -> Result<String, String> {
    maplatency_proto::operator_url(text).map(|_| text.to_owned())
}

fn namespace(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fine = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fine {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 63 lowercase letters, digits and '-'".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<RunArgs, clap::Error> {
        let line = ["maplatency-operator", "run"].iter().chain(arguments);
        match Args::try_parse_from(line)?.command {
            Command::Run(run) => Ok(*run),
            Command::Crd | Command::Metrics => unreachable!("`run` was asked for"),
        }
    }

    #[test]
    fn agents_dial_the_service_of_the_namespace_unless_told_otherwise() {
        let here = run(&["--namespace", "measure"]).unwrap();
        assert_eq!(
            here.operator_url(),
            "http://maplatency-operator.measure.svc:7443"
        );

        let there = run(&["--agent-operator-url", "http://127.0.0.1:9000"]).unwrap();
        assert_eq!(there.operator_url(), "http://127.0.0.1:9000");
    }

    #[test]
    fn values_out_of_range_are_refused_with_advice() {
        for (flag, value, advice) in [
            ("--report-period", "1ms", "from 100ms to 10s"),
            ("--report-period", "soon", "expected number"),
            ("--report-period", "292277026596y", "from 100ms to 10s"),
            (
                "--report-period",
                "9223372036854775807s",
                "from 100ms to 10s",
            ),
            (
                "--agent-operator-url",
                "https://x:1",
                "http://maplatency-operator",
            ),
            ("--agent-operator-url", "x", "http://maplatency-operator"),
            ("--lease-duration", "2s", "from 3s to 10m"),
            ("--lease-duration", "3500ms", "in whole seconds"),
            ("--leader-elect", "maybe", "true, false"),
            ("--http-listen", "8080", "invalid socket address"),
            ("--agent-operator-url", "http://x:0", "port 0 is no port"),
            (
                "--agent-operator-url",
                "http://x:99999",
                "http://maplatency-operator",
            ),
            (
                "--agent-operator-url",
                "http://x:1/metrics",
                "leave \"/metrics\" out",
            ),
            ("--namespace", "Not_One", "lowercase letters"),
        ] {
            let error = run(&[flag, value]).unwrap_err().to_string();
            assert!(error.contains(advice), "{flag} {value}: {error}");
        }
    }
}
