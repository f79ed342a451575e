//! The command line.
#![allow(
    clippy::doc_markdown,
    reason = "the comments are help texts, where backquotes would show"
)]

mod budget;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum};
use maplatency_bpf::Tier;
use maplatency_core::budget::Budget;
use maplatency_proto::{Transport, operator_url, transport};
use tonic::transport::Uri;

use crate::engine::TierChoice;
pub use budget::{CpuBudget, MemoryBudget};

/// Measures how long operations on BPF maps take, per map, operation and CPU.
///
/// Every bpf(2) call on a matched map is counted, on new maps from the first one on, unless spec.aggregation asks for
/// samples. Each is timed twice: to its exit from the kernel (the kernel
/// window), and until its caller runs in user mode again (until user). Stalls by the scheduler show only in the
/// second.
#[derive(Debug, Parser)]
#[command(name = "maplatency-agent", version, about, after_help = NEEDS, after_long_help = NEEDS)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const NEEDS: &str = "\
Needs:
  Linux 5.15 or later with BTF (/sys/kernel/btf/vmlinux), and root with at
  least CAP_SYS_ADMIN, which contains CAP_BPF and CAP_PERFMON. Nothing stays
  behind: when the agent ends, the kernel frees its probes.

Examples:
  Measure the maps of this host for half a minute, no cluster needed
    maplatency-agent run -f probe.yaml --for 30s

  Report to an operator, as the DaemonSet does
    maplatency-agent serve --node node-a \\
      --operator https://maplatency-gateway.maplatency-system.svc:7443";

const RUN_NOTES: &str = "\
Examples:
  Watch a table until Ctrl-C
    maplatency-agent run -f probe.yaml

  Measure for half a minute and keep the figures, in nanoseconds
    maplatency-agent run -f probe.yaml --for 30s --output json > result.json

  Every single operation for ten seconds, with spec.aggregation.strategy Direct
    maplatency-agent run -f direct.yaml --for 10s --operations operations.csv

  Every lookup on this host, without a file
    maplatency-agent run --for 10s -f - <<END
    apiVersion: maplatency.dev/v1alpha1
    kind: MapLatencyProbe
    metadata: {name: lookups}
    spec: {maps: [{names: [\"*\"]}], operations: [Lookup]}
    END

Rows:
  until user     from the entry of bpf(2) until the caller runs in user mode
                 again: what the caller feels, with stalls by the scheduler
  kernel window  from the entry of bpf(2) to its exit, of the same operations
  active read    reads by the agent itself, if spec.activeReads asks for them
  start delay    how long after its scheduled moment such a read began

Header:
  tier           hooks by which calls are timed, and why not better ones
  window         how much of spec.windowSeconds the figures cover
  unrecorded     operations that were seen and could not be recorded, by kind

EXACT
  With spec.aggregation.strategy SlidingWindow or Direct: figures of single
  operations in nanoseconds, not rounded. MISSED operations of the same seconds
  could not be handed over, so the figures lack them.

LEFT OUT
  What is left out to stay within --cpu-budget or --memory-budget, since when,
  and what that means for the figures. It comes back when the load is over.

Last line:
  This agent     what the agent costs this host, renewed every ten seconds: CPU
                 time of its process as a share of one core, with that of
                 active reads in brackets; the time that its hooks run in, which
                 is that of the processes they see

What is not counted:
  Maps mapped into memory, reads through iterators of BPF, and what BPF programs
  do with maps: none of it calls bpf(2). Where pinPaths or heldBy select a new
  map, operations within the second until its pin or holder is found.

Units:
  The table writes ns, µs, ms and s, and counts such as 12.3k or 1.25M. YAML
  and JSON hold whole nanoseconds. Latencies are rounded by 0.8 % at most.
  LOST is the share of time lost to slow operations: those that took over four
  times their row's median, and of them what goes beyond the median.

Needs:
  Linux 5.15 or later with BTF (/sys/kernel/btf/vmlinux), and root with at
  least CAP_SYS_ADMIN.

Exit codes:
  0  measured, also when ended by SIGINT, SIGTERM or SIGHUP
  1  could not measure
  2  the file or the command line is wrong";

const SERVE_NOTES: &str = "\
The agent goes on measuring while it has no connection. It connects again
after a random time of at most half a second, and then of at most one second
for as long as another operator may take over (20 s); later that doubles with
every failure up to 15 seconds. Where the kernel refuses its probes it tells
the operator why, and tries again every minute. What it reports are totals since it started, so a report
that is lost loses no counts.

It trusts the CAs in --operator-ca, and shows who it is by the token in
--token-file. Both are read again for every connection, and a token that the
kubelet has renewed is sent on the connection that stands.

Needs:
  Linux 5.15 or later with BTF (/sys/kernel/btf/vmlinux), and root with at
  least CAP_SYS_ADMIN.

Examples:
  As the DaemonSet does
    maplatency-agent serve --node node-a \\
      --operator https://maplatency-gateway.maplatency-system.svc:7443

  A trial with an operator on the same host
    maplatency-agent serve --operator http://127.0.0.1:7443 --node node-a \\
      --insecure-plaintext";

impl Args {
    /// Reads the command line. Ends the process if it is wrong, or asks for help.
    pub fn read() -> Self {
        let args = Self::parse();
        if let Command::Serve(serve) = &args.command
            && let Err(problem) = serve.transport()
        {
            let mut all = Self::command();
            // Gives subcommands their whole name, which the usage begins with.
            all.build();
            all.find_subcommand_mut("serve")
                .expect("serve was read a moment ago")
                .error(ErrorKind::ArgumentConflict, problem)
                .exit()
        }
        args
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure this host as a MapLatencyProbe in a file asks for, and print what was found.
    ///
    /// Takes the same YAML as a cluster does and shows the same status. On a terminal a table is redrawn every
    /// second; otherwise it is printed every 5 seconds. In the end the resource follows with its status.
    #[command(after_long_help = RUN_NOTES)]
    Run(RunArgs),
    /// Measure what an operator asks for, and report to it.
    #[command(after_long_help = SERVE_NOTES)]
    Serve(ServeArgs),
    /// Make a BPF map and read it a hundred times a second, so that there is something to measure.
    ///
    /// `helm test` measures it. Needs CAP_BPF; the map goes when the process ends.
    Example(ExampleArgs),
}

/// How to measure one host.
#[derive(Clone, Debug, ClapArgs)]
pub struct RunArgs {
    /// File with one MapLatencyProbe as YAML or JSON; - reads standard input.
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,

    /// How long to measure, such as 30s or 5m, from 1s to 366days [default: until Ctrl-C].
    ///
    /// The figures cover the probe's windowSeconds at most, however long it takes.
    #[arg(long = "for", value_name = "TIME", value_parser = measuring_time)]
    pub duration: Option<Duration>,

    /// What to print on standard output.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Output::Table)]
    pub output: Output,

    /// Write every operation to a file, one CSV line each, if spec.aggregation.strategy is Direct.
    ///
    /// The file is emptied first, and grows as long as measuring lasts. What could not be handed over is not in it, and
    /// its number is told in the end.
    #[arg(long, value_name = "FILE")]
    pub operations: Option<PathBuf>,

    /// What measuring may cost of one core, such as 1% or 0.5%: CPU time without active reads, and that of the hooks.
    ///
    /// Above it for some seconds the agent leaves out step by step what costs it most: slow operations told one by one,
    /// who calls, and then it counts one operation in so many for all of them. The table and the conditions say so.
    #[arg(
        long,
        env = "MAPLATENCY_CPU_BUDGET",
        value_name = "SHARE",
        default_value = "none"
    )]
    pub cpu_budget: CpuBudget,

    /// What it may take of memory, such as 32MiB: that of the process and of its BPF maps and programs.
    #[arg(
        long,
        env = "MAPLATENCY_MEMORY_BUDGET",
        value_name = "SIZE",
        default_value = "none"
    )]
    pub memory_budget: MemoryBudget,

    /// Name for this host in the results [default: the host's name].
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub node: Option<String>,

    /// Hooks by which bpf(2) is timed.
    #[arg(long, value_enum, value_name = "TIER", ignore_case = true, default_value_t = TierArg::Auto)]
    pub tier: TierArg,

    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// How to report to an operator. Every flag can be given as an environment variable.
#[derive(Clone, Debug, ClapArgs)]
pub struct ServeArgs {
    /// URL of the operator, such as https://maplatency-gateway.maplatency-system.svc:7443.
    #[arg(long, env = "MAPLATENCY_OPERATOR", value_name = "URL", value_parser = operator_url)]
    pub operator: Uri,

    /// Name of the Kubernetes node that this agent runs on.
    #[arg(long, env = "MAPLATENCY_NODE", value_name = "NAME", value_parser = node_name)]
    pub node: String,

    /// File with the CAs, as PEM, by which the operator shows that it is the one.
    #[arg(
        long,
        env = "MAPLATENCY_OPERATOR_CA",
        value_name = "FILE",
        default_value = "/var/run/secrets/maplatency.dev/ca.crt"
    )]
    pub operator_ca: PathBuf,

    /// File with the agent's token: of service account maplatency-agent, with audience maplatency-operator.
    #[arg(
        long,
        env = "MAPLATENCY_TOKEN_FILE",
        value_name = "FILE",
        default_value = "/var/run/secrets/maplatency.dev/token"
    )]
    pub token_file: PathBuf,

    /// What measuring may cost of one core, such as 1% or 0.5%, or none: CPU time without active reads, and that of the
    /// hooks.
    ///
    /// Above it for some seconds the agent leaves out step by step what costs it most: slow operations told one by one,
    /// who calls, and then it counts one operation in so many for all of them. Conditions say so. The default is a
    /// backstop: it leaves counts exact where nothing is out of the ordinary.
    #[arg(
        long,
        env = "MAPLATENCY_CPU_BUDGET",
        value_name = "SHARE",
        default_value = "100%"
    )]
    pub cpu_budget: CpuBudget,

    /// What it may take of memory, such as 32MiB, or none: that of the process and of its BPF maps and programs.
    #[arg(
        long,
        env = "MAPLATENCY_MEMORY_BUDGET",
        value_name = "SIZE",
        default_value = "512MiB"
    )]
    pub memory_budget: MemoryBudget,

    /// Address to answer on for /metrics, over plain HTTP [default: none].
    #[arg(long, env = "MAPLATENCY_HTTP_LISTEN", value_name = "ADDRESS:PORT")]
    pub http_listen: Option<SocketAddr>,

    /// Report without TLS and without proof of who reports, to an operator on this host.
    ///
    /// For trials. Needs a URL with http:// and a loopback address.
    #[arg(long, env = "MAPLATENCY_INSECURE_PLAINTEXT")]
    pub insecure_plaintext: bool,

    /// Hooks by which bpf(2) is timed.
    #[arg(long, env = "MAPLATENCY_TIER", value_enum, value_name = "TIER", ignore_case = true, default_value_t = TierArg::Auto)]
    pub tier: TierArg,

    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What to read.
#[derive(Clone, Debug, ClapArgs)]
pub struct ExampleArgs {
    /// Name of the map: at most 15 letters, digits, '_' and '.'.
    #[arg(long, value_name = "NAME", default_value = "mlp_example", value_parser = map_name)]
    pub map: String,

    /// How to log.
    #[command(flatten)]
    pub log: LogArgs,
}

impl RunArgs {
    /// What measuring may cost.
    pub const fn budget(&self) -> Budget {
        Budget {
            cpu: self.cpu_budget.0,
            memory: self.memory_budget.0,
        }
    }
}

impl ServeArgs {
    /// How to talk to the operator, or why the flags contradict each other.
    pub fn transport(&self) -> Result<Transport, String> {
        transport(&self.operator, self.insecure_plaintext)
    }

    /// What measuring may cost.
    pub const fn budget(&self) -> Budget {
        Budget {
            cpu: self.cpu_budget.0,
            memory: self.memory_budget.0,
        }
    }
}

/// How to log.
#[derive(Clone, Debug, ClapArgs)]
pub struct LogArgs {
    /// Form of the log on standard error; $RUST_LOG chooses what is logged, such as debug.
    #[arg(long, env = "MAPLATENCY_LOG_FORMAT", value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Hooks by which bpf(2) is timed. All count the same operations; they differ in what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TierArg {
    /// The first of the others that this kernel takes; of the last two the one that costs less here, by a second's
    /// system calls.
    #[value(name = "Auto")]
    Auto,
    /// Entry and exit of the function behind bpf(2); costs other system calls nothing.
    #[value(name = "Fentry")]
    Fentry,
    /// The tracepoints of bpf(2).
    #[value(name = "Tracepoint")]
    Tracepoint,
    /// The raw tracepoints of all system calls; costs other system calls the most.
    #[value(name = "TpBtf")]
    TpBtf,
}

impl TierArg {
    /// What the engine is asked for.
    pub const fn choice(self) -> TierChoice {
        match self {
            Self::Auto => TierChoice::Auto,
            Self::Fentry => TierChoice::Only(Tier::Fentry),
            Self::Tracepoint => TierChoice::Only(Tier::Tracepoint),
            Self::TpBtf => TierChoice::Only(Tier::TpBtf),
        }
    }
}

/// What `run` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table while it measures; in the end the table and the resource as YAML.
    Table,
    /// In the end the resource with its status, as YAML and nothing else.
    Yaml,
    /// The same as JSON.
    Json,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Longest run. Sums of times stay far from every overflow.
const LONGEST: Duration = Duration::from_hours(24 * 366);

fn measuring_time(text: &str) -> Result<Duration, String> {
    let advice = "write a time such as 30s, 5m or 1h30m";
    let time = humantime::parse_duration(text).map_err(|it| format!("{it}; {advice}"))?;
    if time < Duration::from_secs(1) {
        return Err("is too short to measure; write 1s or more".to_owned());
    }
    if time > LONGEST {
        let days = LONGEST.as_secs() / (24 * 3600);
        return Err(format!("is too long; write at most {days}days"));
    }
    Ok(time)
}

fn node_name(text: &str) -> Result<String, String> {
    if is_dns_subdomain(text) {
        return Ok(text.to_owned());
    }
    Err("write the node's name as kubectl get nodes shows it: lowercase letters, digits, '-' and '.'".to_owned())
}

fn map_name(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
    if (1..=15).contains(&text.len()) && text.bytes().all(inner) {
        return Ok(text.to_owned());
    }
    Err("write 1 to 15 letters, digits, '_' and '.', as the kernel takes them".to_owned())
}

/// Whether a text is a DNS-1123 subdomain, as the names of most Kubernetes objects are.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let part = |it: &str| {
        !it.is_empty() && it.bytes().all(inner) && !it.starts_with('-') && !it.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        let words = ["maplatency-agent"].into_iter().chain(line.split(' '));
        Args::try_parse_from(words).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Args::command().debug_assert();
    }

    #[test]
    fn values_out_of_range_are_refused_with_advice() {
        for (line, advice) in [
            ("run -f x --for soon", "write a time such as 30s"),
            ("run -f x --for 10ms", "write 1s or more"),
            ("run -f x --for 367days", "write at most 366days"),
            ("run -f x --for 292277026596y", "write at most 366days"),
            (
                "run -f x --for 9223372036854775807s",
                "write at most 366days",
            ),
            (
                "run -f x --cpu-budget 1",
                "write a share of one core such as 1%",
            ),
            ("run -f x --cpu-budget 0%", "from 0.01% to 100000%"),
            ("run -f x --cpu-budget NaN%", "write a share of one core"),
            ("run -f x --memory-budget 32", "write a size such as 32MiB"),
            ("run -f x --memory-budget 1KiB", "from 1MiB to 1024GiB"),
            (
                "run -f x --memory-budget 99999999999999999999GiB",
                "write a size",
            ),
            (
                "run -f x --memory-budget 18446744073709551615GiB",
                "from 1MiB",
            ),
            (
                "serve --node a --operator x:1",
                "write a URL such as https://maplatency-gateway",
            ),
            ("serve --node a --operator http://x:0", "port 0 is no port"),
            (
                "serve --node a --operator http://x:99999",
                "write a URL such as https://maplatency-gateway",
            ),
            (
                "serve --node a --operator http://x:1/metrics",
                "leave \"/metrics\" out",
            ),
            (
                "serve --node a --operator http://x:1?a=b",
                "leave \"?a=b\" out",
            ),
            ("example --map a-map", "write 1 to 15 letters, digits"),
            ("example --map sixteen_letters_", "write 1 to 15 letters"),
            (
                "serve --operator http://x:1 --node A_b",
                "kubectl get nodes",
            ),
        ] {
            let error = refusal(line);
            assert!(error.contains(advice), "{line}: {error}");
        }
    }
}
