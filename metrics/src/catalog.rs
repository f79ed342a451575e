//! Every metric that there is.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises, and begins at zero with the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts of values by their size; native where the scraper takes protobuf.
    Histogram,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, as scraped. That of a counter ends with `_total`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it tells.
    pub help: &'static str,
    /// What it is told apart by.
    pub labels: &'static [Label],
}

impl Metric {
    /// The name as the encoder wants it: it adds a counter's suffix itself.
    pub(crate) fn name_without_suffix(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }
}

/// A label. Its values are few, whatever the size of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Which values it has.
    pub values: &'static str,
}

const fn label(name: &'static str, values: &'static str) -> Label {
    Label { name, values }
}

const fn gauge(name: &'static str, help: &'static str, labels: &'static [Label]) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        help,
        labels,
    }
}

const fn counter(name: &'static str, help: &'static str, labels: &'static [Label]) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        help,
        labels,
    }
}

const PROBE: Label = label("probe", "the name of each MapLatencyProbe");
const OBJECTIVE: Label = label("objective", "the names in `spec.objectives`, at most eight");
const OPERATION: Label = label(
    "operation",
    "the operations of `spec.operations`, such as `Lookup`",
);
const LATENCY: Label = label(
    "latency",
    "`until_user` (entry of bpf(2) until the caller runs in user mode again) and `kernel_window` (entry to exit)",
);
const LOSS: Label = label(
    "kind",
    "the kinds of docs/measurement.md; beyond 32 of them `other`",
);
const MEMORY: Label = label("kind", "`maps` and `programs`");
const STEP: Label = label("step", "`FewerOutliers`, `CoarserCallers` and `Sampling`");
const VERSION: Label = label("version", "the version of the program");

/// Latencies, merged over agents.
pub const OPERATIONS: Metric = Metric {
    name: "maplatency_operation_duration_seconds",
    kind: Kind::Histogram,
    help: "Latency of operations on the maps that a probe selects, over all nodes of a class.",
    labels: &[
        PROBE,
        OPERATION,
        LATENCY,
        label(
            "node_class",
            "values of the node label `--node-class-label`; `none` for nodes without it, and beyond 16 classes `other`",
        ),
    ],
};
/// Losses, merged over agents.
pub const LOSSES: Metric = counter(
    "maplatency_lost_operations_total",
    "Operations that agents saw and could not record.",
    &[LOSS],
);
/// Nodes of a probe.
pub const PROBE_NODES: Metric = gauge(
    "maplatency_probe_nodes",
    "Nodes of a probe by what they do.",
    &[
        PROBE,
        label(
            "state",
            "`selected`, and of these `ready`, `missing` (no agent, or none of this generation), `stale` (no report for \
             two periods) and `unable` (the agent cannot load its probes)",
        ),
    ],
);
/// Maps of a probe.
pub const PROBE_MAPS: Metric = gauge(
    "maplatency_probe_matched_maps",
    "Distinct maps that match a probe, once for each kernel.",
    &[PROBE],
);
/// Whether a probe is ready.
pub const PROBE_READY: Metric = gauge(
    "maplatency_probe_ready",
    "Whether the condition Ready of a probe is True.",
    &[PROBE],
);
/// Whether an objective holds.
pub const OBJECTIVE_BREACHED: Metric = gauge(
    "maplatency_probe_objective_breached",
    "Whether an objective of a probe is breached.",
    &[PROBE, OBJECTIVE],
);
/// Where it stands.
pub const OBJECTIVE_LATENCY: Metric = gauge(
    "maplatency_probe_objective_latency_seconds",
    "The percentile of an objective on the node where it is highest; not there without an operation in the window.",
    &[PROBE, OBJECTIVE],
);
/// What it allows.
pub const OBJECTIVE_THRESHOLD: Metric = gauge(
    "maplatency_probe_objective_threshold_seconds",
    "What the percentile of an objective may be at most.",
    &[PROBE, OBJECTIVE],
);
/// On how many nodes it does not hold.
pub const OBJECTIVE_NODES: Metric = gauge(
    "maplatency_probe_objective_nodes_above",
    "Nodes on which the percentile of an objective is above its threshold.",
    &[PROBE, OBJECTIVE],
);
/// Streams.
pub const AGENTS: Metric = gauge(
    "maplatency_connected_agents",
    "Agents whose stream is open.",
    &[],
);
/// Reports.
pub const REPORTS: Metric = counter(
    "maplatency_agent_reports_total",
    "Reports of agents by what became of them.",
    &[label(
        "outcome",
        "`new`, `repeated`, `went_backwards` (it counts; the window of a probe began anew) and `superseded` (of a stream \
         that another took over from)",
    )],
);
/// Agents turned away.
pub const REFUSALS: Metric = counter(
    "maplatency_agent_refusals_total",
    "Connections, streams and messages that were refused, by reason.",
    &[label(
        "reason",
        "`OtherNode`, `ExpiredToken`, `Nonsense`, `Flood` and others; docs/security.md lists them",
    )],
);
/// Cost of the costliest agent.
pub const HIGHEST_CPU: Metric = gauge(
    "maplatency_agents_highest_cpu_ratio",
    "CPU time of the agent that takes most, as a share of one core, over about ten seconds.",
    &[],
);
/// Likewise.
pub const HIGHEST_RSS: Metric = gauge(
    "maplatency_agents_highest_resident_memory_bytes",
    "Resident memory of the agent that takes most.",
    &[],
);
/// Likewise.
pub const HIGHEST_BPF: Metric = gauge(
    "maplatency_agents_highest_bpf_memory_bytes",
    "Memory of the BPF maps and programs of the agent that takes most.",
    &[],
);
/// Likewise.
pub const HIGHEST_HOOKS: Metric = gauge(
    "maplatency_agents_highest_bpf_run_time_ratio",
    "Time that the hooks of the agent that takes most run in, on all CPUs together, as a share of one core.",
    &[],
);
/// Whether this process leads.
pub const LEADER: Metric = gauge(
    "maplatency_operator_leader",
    "Whether this process leads and serves agents.",
    &[],
);
/// Failures.
pub const FAILURES: Metric = counter(
    "maplatency_operator_reconcile_errors_total",
    "Writes to the API server that failed and are tried again.",
    &[
        label("object", "`probe`, `agents` and `event`"),
        label("class", "`write`, `apply`, `delete` and `timeout`"),
    ],
);
/// Statuses.
pub const STATUSES: Metric = counter(
    "maplatency_operator_status_writes_total",
    "Statuses of probes that were written.",
    &[],
);
/// The operator's version.
pub const OPERATOR_INFO: Metric = gauge(
    "maplatency_operator_info",
    "Always 1; the label tells the version.",
    &[VERSION],
);

/// Latencies on this node.
pub const AGENT_OPERATIONS: Metric = Metric {
    name: "maplatency_agent_operation_duration_seconds",
    kind: Kind::Histogram,
    help: "Latency of operations on the maps that a probe selects, on this node.",
    labels: &[PROBE, OPERATION, LATENCY],
};
/// Losses on this node.
pub const AGENT_LOSSES: Metric = counter(
    "maplatency_agent_lost_operations_total",
    "Operations on this node that were seen and could not be recorded.",
    &[LOSS],
);
/// Maps on this node.
pub const AGENT_MAPS: Metric = gauge(
    "maplatency_agent_matched_maps",
    "Maps of this node that match a probe.",
    &[PROBE],
);
/// CPU time of readers and all others.
pub const AGENT_CPU: Metric = gauge(
    "maplatency_agent_cpu_ratio",
    "CPU time of the agent's process as a share of one core, over about ten seconds.",
    &[label(
        "part",
        "`all`, and of that `readers` (the pinned threads of `spec.activeReads`)",
    )],
);
/// Memory in the kernel.
pub const AGENT_BPF_MEMORY: Metric = gauge(
    "maplatency_agent_bpf_memory_bytes",
    "Memory of the agent's BPF objects, as the kernel accounts for it.",
    &[MEMORY],
);
/// Run time of hooks.
pub const AGENT_HOOKS: Metric = gauge(
    "maplatency_agent_bpf_run_time_ratio",
    "Time that the agent's hooks run in, on all CPUs together, as a share of one core; sampled for 0.1 s in ten.",
    &[],
);
/// What is left out.
pub const AGENT_SHED: Metric = gauge(
    "maplatency_agent_shed",
    "1 while the agent leaves this out to stay within its budget. With Sampling, one operation in so many is counted.",
    &[STEP],
);
/// Whether it is connected.
pub const AGENT_CONNECTED: Metric = gauge(
    "maplatency_agent_connected",
    "Whether the operator has answered on the present stream.",
    &[],
);
/// Reports sent.
pub const AGENT_REPORTS: Metric = counter(
    "maplatency_agent_reports_sent_total",
    "Reports that were sent to the operator.",
    &[],
);
/// Whether it measures.
pub const AGENT_MEASURES: Metric = gauge(
    "maplatency_agent_measuring",
    "Whether the probes are loaded. 0: the kernel refused them; the log and the operator's status say why.",
    &[],
);
/// The agent's version and tier.
pub const AGENT_INFO: Metric = gauge(
    "maplatency_agent_info",
    "Always 1; the labels tell the version and the hooks that run.",
    &[
        VERSION,
        label("tier", "`Fentry`, `Tracepoint`, `TpBtf` and `None`"),
    ],
);

/// CPU time of the process.
pub const PROCESS_CPU: Metric = counter(
    "process_cpu_seconds_total",
    "User and system time of this process.",
    &[],
);
/// Memory of the process.
pub const PROCESS_MEMORY: Metric = gauge(
    "process_resident_memory_bytes",
    "Resident memory of this process.",
    &[],
);

/// Those of the operator.
pub const OPERATOR: &[&Metric] = &[
    &OPERATIONS,
    &LOSSES,
    &PROBE_READY,
    &PROBE_NODES,
    &PROBE_MAPS,
    &OBJECTIVE_BREACHED,
    &OBJECTIVE_LATENCY,
    &OBJECTIVE_THRESHOLD,
    &OBJECTIVE_NODES,
    &AGENTS,
    &REPORTS,
    &REFUSALS,
    &HIGHEST_CPU,
    &HIGHEST_RSS,
    &HIGHEST_BPF,
    &HIGHEST_HOOKS,
    &LEADER,
    &FAILURES,
    &STATUSES,
    &OPERATOR_INFO,
    &PROCESS_CPU,
    &PROCESS_MEMORY,
];

/// Those of the agent.
pub const AGENT: &[&Metric] = &[
    &AGENT_OPERATIONS,
    &AGENT_LOSSES,
    &AGENT_MAPS,
    &AGENT_CPU,
    &AGENT_BPF_MEMORY,
    &AGENT_HOOKS,
    &AGENT_SHED,
    &AGENT_CONNECTED,
    &AGENT_REPORTS,
    &AGENT_MEASURES,
    &AGENT_INFO,
    &PROCESS_CPU,
    &PROCESS_MEMORY,
];
