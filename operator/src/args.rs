//! The command line.
#![allow(
    clippy::doc_markdown,
    reason = "these comments are printed as help, where backticks are noise"
)]

mod values;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum};
use maplatency_proto::Transport;
use tonic::transport::Uri;

use crate::authority::{Names, Terms};
use values::{
    lease_duration, lifetime, namespace, operator_url, process_name, report_period, review_period,
    spread,
};

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
            && let Err(problem) = run.check()
        {
            let mut all = Self::command();
            // Gives subcommands their whole name, which the usage begins with.
            all.build();
            all.find_subcommand_mut("run")
                .expect("run was read a moment ago")
                .error(ErrorKind::ArgumentConflict, problem)
                .exit()
        }
        args
    }
}

/// A page of the documentation that is generated.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Page {
    /// docs/metrics.md: what operator and agent export to Prometheus.
    Metrics,
    /// docs/resource.md: the fields of the resource.
    Resource,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a page of the documentation that is generated.
    #[command(hide = true)]
    Docs {
        /// Which one.
        page: Page,
    },
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
    /// Prove that a map's latency gets into a status: make a probe, wait for figures, delete it.
    ///
    /// `helm test` runs it beside `maplatency-agent example`, which reads the map.
    Test(TestArgs),
}

/// What to measure as a proof.
#[derive(Clone, Debug, ClapArgs)]
pub struct TestArgs {
    /// Name of the probe; one that is there already is deleted first.
    #[arg(long, value_name = "NAME", default_value = "maplatency-test")]
    pub probe: String,

    /// Name of a map that is read on the node.
    #[arg(long, value_name = "NAME", default_value = "mlp_example")]
    pub map: String,

    /// The node.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: String,

    /// How long to wait for figures.
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// How to serve. Every flag can be given as an environment variable.
#[derive(Clone, Debug, ClapArgs)]
pub struct RunArgs {
    /// Serve agents without TLS and without checking who they are, on a loopback address.
    ///
    /// Every program on this host can then report as any node. For trials on a single host.
    #[arg(long, env = "MAPLATENCY_INSECURE_PLAINTEXT")]
    pub insecure_plaintext: bool,

    /// Address to listen on for agents [default: 0.0.0.0:7443, and 127.0.0.1:7443 with --insecure-plaintext].
    #[arg(long, env = "MAPLATENCY_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// URL under which agents find this operator
    /// [default: `https://maplatency-gateway.<namespace>.svc:7443`].
    ///
    /// Its host is among the names of the operator's certificate.
    #[arg(long, env = "MAPLATENCY_AGENT_OPERATOR_URL", value_name = "URL", value_parser = operator_url)]
    pub agent_operator_url: Option<String>,

    /// Further names or addresses for the operator's certificate, with commas between them.
    #[arg(
        long,
        env = "MAPLATENCY_SERVER_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub server_name: Vec<String>,

    /// How long a CA of the operator lasts. After two thirds the next one takes over.
    #[arg(
        long,
        env = "MAPLATENCY_CA_LIFETIME",
        value_name = "DURATION",
        default_value = "365days",
        value_parser = lifetime
    )]
    pub ca_lifetime: Duration,

    /// How long the operator's certificate lasts. After two thirds it is renewed.
    #[arg(
        long,
        env = "MAPLATENCY_CERTIFICATE_LIFETIME",
        value_name = "DURATION",
        default_value = "30days",
        value_parser = lifetime
    )]
    pub certificate_lifetime: Duration,

    /// How long a new CA is published before it signs, and the one before stays published after.
    ///
    /// Longer than a kubelet takes to renew the files of a ConfigMap, which is two minutes at most by default.
    #[arg(
        long,
        env = "MAPLATENCY_CA_SPREAD",
        value_name = "DURATION",
        default_value = "15min",
        value_parser = spread
    )]
    pub ca_spread: Duration,

    /// How often the API server is asked again about the token of an open stream.
    ///
    /// For so long a pod that was deleted may be taken for an agent. Each stream costs one TokenReview in that time.
    #[arg(
        long,
        env = "MAPLATENCY_TOKEN_REVIEW_PERIOD",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = review_period
    )]
    pub token_review_period: Duration,

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

    /// YAML file with further settings of agents: tolerations, resources, nodes that get none.
    ///
    /// The README of the Helm chart lists them, as values below `agent`.
    #[arg(long, env = "MAPLATENCY_AGENT_SETTINGS", value_name = "FILE")]
    pub agent_settings: Option<PathBuf>,

    /// Deployment of this operator in its namespace, which then owns what the operator makes there.
    ///
    /// That is the agents' DaemonSet, the Secret and the ConfigMap of the CA, and the Lease. Kubernetes deletes them together
    /// with it. Without it, agents outlive the operator. An operator that finds another Deployment of that name ends.
    #[arg(long, env = "MAPLATENCY_DEPLOYMENT", value_name = "NAME")]
    pub deployment: Option<String>,

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

    /// Address to answer on for /healthz, /readyz, /standbyz and /metrics, over plain HTTP.
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
        self.agent_operator_url.clone().unwrap_or_else(|| {
            if self.insecure_plaintext {
                format!("http://127.0.0.1:{}", self.listen().port())
            } else {
                format!("https://maplatency-gateway.{}.svc:{PORT}", self.namespace)
            }
        })
    }

    /// The address that agents are served on.
    pub fn listen(&self) -> SocketAddr {
        let any = if self.insecure_plaintext {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        self.listen.unwrap_or((any, PORT).into())
    }

    /// Names of the operator's certificate.
    pub fn names(&self) -> Result<Names, String> {
        let service = format!("maplatency-gateway.{}.svc", self.namespace);
        let url: Uri = self.operator_url().parse().map_err(|it| format!("{it}"))?;
        let host = url.host().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let own = [format!("{service}.cluster.local"), service, host];
        Names::new(own.into_iter().chain(self.server_name.iter().cloned()))
            .map_err(|it| format!("--server-name: {it}"))
    }

    /// How long certificates last.
    pub fn terms(&self) -> Terms {
        Terms {
            ca: self.ca_lifetime,
            certificate: self.certificate_lifetime,
            spread: self.ca_spread,
        }
    }

    /// Whether the flags go together.
    fn check(&self) -> Result<(), String> {
        let url: Uri = self.operator_url().parse().map_err(|it| format!("{it}"))?;
        if maplatency_proto::transport(&url, self.insecure_plaintext)? == Transport::Plaintext {
            let listen = self.listen();
            return if listen.ip().is_loopback() {
                Ok(())
            } else {
                Err(format!(
                    "--insecure-plaintext is for trials on a single host, and {listen} can be reached from others; write \
                     --listen 127.0.0.1:{}, or leave --insecure-plaintext out",
                    listen.port()
                ))
            };
        }
        self.names()?;
        // The certificate ends before its CA, and the next CA has time to become known.
        let least = (self.certificate_lifetime + self.ca_spread) * 3;
        if self.ca_lifetime < least {
            return Err(format!(
                "--ca-lifetime {} is too short: in its last third there has to be room for --ca-spread and then for \
                 --certificate-lifetime; write {} or more",
                humantime::format_duration(self.ca_lifetime),
                humantime::format_duration(least)
            ));
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<RunArgs, clap::Error> {
        let line = ["maplatency-operator", "run"].iter().chain(arguments);
        match Args::try_parse_from(line)?.command {
            Command::Run(run) => Ok(*run),
            Command::Crd | Command::Docs { .. } | Command::Test(_) => {
                unreachable!("`run` was asked for")
            }
        }
    }

    fn refusal(arguments: &[&str]) -> String {
        run(arguments).unwrap().check().unwrap_err()
    }

    #[test]
    fn agents_dial_the_service_of_the_namespace_unless_told_otherwise() {
        let here = run(&["--namespace", "measure"]).unwrap();
        assert_eq!(
            here.operator_url(),
            "https://maplatency-gateway.measure.svc:7443"
        );
        assert_eq!(here.listen().to_string(), "0.0.0.0:7443");
        here.check().unwrap();

        let there = run(&["--agent-operator-url", "https://127.0.0.1:9000"]).unwrap();
        assert_eq!(there.operator_url(), "https://127.0.0.1:9000");
        let names = format!("{:?}", there.names().unwrap());
        for name in ["maplatency-gateway.maplatency-system.svc\"", "127.0.0.1"] {
            assert!(names.contains(name), "{names}");
        }
    }

    #[test]
    fn plaintext_stays_on_this_host() {
        let trial = run(&["--insecure-plaintext"]).unwrap();
        trial.check().unwrap();
        assert_eq!(trial.operator_url(), "http://127.0.0.1:7443");
        assert_eq!(trial.listen().to_string(), "127.0.0.1:7443");
        let plain = |more: &[&'static str]| [&["--insecure-plaintext"], more].concat();
        for (arguments, advice) in [
            (
                plain(&["--listen", "0.0.0.0:9000"]),
                "write --listen 127.0.0.1:9000",
            ),
            (
                plain(&["--agent-operator-url", "http://10.0.0.1:9000"]),
                "is not a loopback address",
            ),
            (
                plain(&["--agent-operator-url", "https://127.0.0.1:9000"]),
                "leave --insecure-plaintext out",
            ),
            (
                vec!["--agent-operator-url", "http://127.0.0.1:9000"],
                "write https://",
            ),
        ] {
            let error = refusal(&arguments);
            assert!(error.contains(advice), "{error}");
        }
    }

    #[test]
    fn a_ca_lasts_long_enough_for_what_it_signs() {
        let error = refusal(&["--ca-lifetime", "40days"]);
        // 90 days and three quarters of an hour, where a month has 30.44 days.
        assert!(error.contains("write 2months 29days 3h 37m 48s"), "{error}");
        let short = [
            "--ca-lifetime",
            "1h",
            "--certificate-lifetime",
            "10m",
            "--ca-spread",
            "1m",
        ];
        run(&short).unwrap().check().unwrap();
        let error = refusal(&["--server-name", "a b"]);
        assert!(error.starts_with("--server-name: "), "{error}");
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
            ("--agent-operator-url", "x", "https://maplatency-gateway"),
            ("--ca-lifetime", "1s", "from 3s to 3660days"),
            ("--certificate-lifetime", "20000days", "from 3s to 3660days"),
            ("--ca-spread", "2days", "from 1s to 24h"),
            ("--lease-duration", "2s", "from 3s to 10m"),
            ("--lease-duration", "3500ms", "in whole seconds"),
            ("--leader-elect", "maybe", "true, false"),
            ("--http-listen", "8080", "invalid socket address"),
            ("--agent-operator-url", "http://x:0", "port 0 is no port"),
            (
                "--agent-operator-url",
                "http://x:99999",
                "https://maplatency-gateway",
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
