//! What the operator asks an agent to measure.

use std::collections::BTreeSet;
use std::time::Duration;

use maplatency_core::MapLatencyProbeSpec;
use maplatency_core::crd::spec::{
    ActiveReads, Aggregation, CallerSelector, HeldBy, MapSelector, OutlierSelector, ReadMethod,
    Strategy,
};
use maplatency_core::vocabulary::MapType;

use crate::invalid::{
    Checked, Problem, dns_subdomain, each, length, present, range, repeated, text, uid,
};
use crate::rows::{operation, operation_to_wire};
use crate::{InvalidMessage, MAX_PROBES, MAX_SAMPLING, wire};

/// Longest pattern or list of CPUs that a spec holds.
const MAX_TEXT: usize = 256;

/// Everything that one agent is to measure. Replaces every earlier assignment.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// Rises with every assignment.
    pub revision: u64,
    /// Time between two reports: 100 ms to 5 min, in whole milliseconds.
    pub report_period: Duration,
    /// The probes that select the agent's node, each uid once.
    pub probes: Vec<AssignedProbe>,
}

/// One probe, as an agent needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct AssignedProbe {
    /// The resource's name.
    pub name: String,
    /// The resource's uid: a probe that is deleted and made again is another one.
    pub uid: String,
    /// The generation of the spec.
    pub generation: i64,
    /// The spec. Its node selector does not travel: the operator has applied it.
    pub spec: MapLatencyProbeSpec,
}

impl TryFrom<wire::Assign> for Assignment {
    type Error = InvalidMessage;

    fn try_from(wire: wire::Assign) -> Checked<Self> {
        let wire::Assign {
            revision,
            report_period_milliseconds,
            probes,
        } = wire;
        let fields = || {
            let period = range(
                "report_period_milliseconds",
                report_period_milliseconds,
                100,
                300_000,
            )?;
            length("probes", probes.len(), MAX_PROBES)?;
            let probes = each("probes", probes, AssignedProbe::try_from)?;
            let mut seen = BTreeSet::new();
            if let Some(at) = probes.iter().position(|it| !seen.insert(&it.uid)) {
                return Err(repeated("probes", at, "uid"));
            }
            Ok(Self {
                revision: range("revision", revision, 1, u64::MAX)?,
                report_period: Duration::from_millis(u64::from(period)),
                probes,
            })
        };
        fields().map_err(|e: InvalidMessage| e.within("assign"))
    }
}

impl From<Assignment> for wire::Assign {
    fn from(assignment: Assignment) -> Self {
        let Assignment {
            revision,
            report_period,
            probes,
        } = assignment;
        Self {
            revision,
            report_period_milliseconds: u32::try_from(report_period.as_millis())
                .unwrap_or(u32::MAX),
            probes: probes.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::AssignedProbe> for AssignedProbe {
    type Error = InvalidMessage;

    fn try_from(wire: wire::AssignedProbe) -> Checked<Self> {
        let wire::AssignedProbe {
            name,
            uid: id,
            generation,
            spec,
        } = wire;
        let spec = present("spec", spec)?;
        Ok(Self {
            name: dns_subdomain("name", name)?,
            uid: uid(id)?,
            generation: range("generation", generation, 0, i64::MAX)?,
            spec: spec_from_wire(spec).map_err(|e| e.within("spec"))?,
        })
    }
}

impl From<AssignedProbe> for wire::AssignedProbe {
    fn from(probe: AssignedProbe) -> Self {
        let AssignedProbe {
            name,
            uid,
            generation,
            spec,
        } = probe;
        Self {
            name,
            uid,
            generation,
            spec: Some(spec_to_wire(spec)),
        }
    }
}

fn spec_from_wire(wire: wire::Spec) -> Checked<MapLatencyProbeSpec> {
    let wire::Spec {
        maps,
        operations,
        callers,
        active_reads,
        window_seconds,
        outliers,
        aggregation,
    } = wire;
    length("maps", maps.len(), 16)?;
    length("operations", operations.len(), 9)?;
    let operations = each("operations", operations, |it| operation("value", it))?;
    Ok(MapLatencyProbeSpec {
        node_selector: None,
        maps: each("maps", maps, maps_from_wire)?,
        operations: some(operations),
        callers: callers
            .map(callers_from_wire)
            .transpose()
            .map_err(|e| e.within("callers"))?,
        active_reads: active_reads
            .map(active_from_wire)
            .transpose()
            .map_err(|e| e.within("active_reads"))?,
        outliers: outliers
            .map(outliers_from_wire)
            .transpose()
            .map_err(|e| e.within("outliers"))?,
        aggregation: aggregation
            .map(aggregation_from_wire)
            .transpose()
            .map_err(|e| e.within("aggregation"))?,
        objectives: None,
        window_seconds: range("window_seconds", window_seconds, 10, 600)?,
    })
}

fn spec_to_wire(spec: MapLatencyProbeSpec) -> wire::Spec {
    let MapLatencyProbeSpec {
        node_selector: _,
        objectives: _,
        maps,
        operations,
        callers,
        active_reads,
        outliers,
        aggregation,
        window_seconds,
    } = spec;
    wire::Spec {
        maps: maps.into_iter().map(maps_to_wire).collect(),
        operations: operations
            .into_iter()
            .flatten()
            .map(operation_to_wire)
            .collect(),
        callers: callers.map(
            |CallerSelector {
                 commands,
                 exclude_commands,
             }| {
                wire::CallerSelector {
                    commands: commands.unwrap_or_default(),
                    exclude_commands: exclude_commands.unwrap_or_default(),
                }
            },
        ),
        active_reads: active_reads.map(active_to_wire),
        window_seconds,
        outliers: outliers.map(|it| wire::OutlierSelector {
            threshold_microseconds: it.threshold_microseconds,
            per_second: it.per_second,
        }),
        aggregation: aggregation.map(aggregation_to_wire),
    }
}

fn maps_from_wire(wire: wire::MapSelector) -> Checked<MapSelector> {
    let wire::MapSelector {
        names,
        types,
        ids,
        pin_paths,
        held_by,
    } = wire;
    length("types", types.len(), MapType::ALL.len())?;
    length("ids", ids.len(), 64)?;
    let types = each("types", types, |it| {
        MapType::from_number(it)
            .ok_or_else(|| InvalidMessage::new("value", Problem::Unknown(it.into())))
    })?;
    let ids = each("ids", ids, |it| range("value", it, 1, i32::MAX))?;
    Ok(MapSelector {
        names: some(patterns("names", names, 16)?),
        types: some(types),
        ids: some(ids),
        pin_paths: some(patterns("pin_paths", pin_paths, 16)?),
        held_by: held_by
            .map(holders_from_wire)
            .transpose()
            .map_err(|e| e.within("held_by"))?,
    })
}

fn holders_from_wire(wire: wire::HeldBy) -> Checked<HeldBy> {
    let wire::HeldBy { commands, cgroups } = wire;
    Ok(HeldBy {
        commands: some(patterns("commands", commands, 8)?),
        cgroups: some(patterns("cgroups", cgroups, 8)?),
    })
}

fn maps_to_wire(selector: MapSelector) -> wire::MapSelector {
    let MapSelector {
        names,
        types,
        ids,
        pin_paths,
        held_by,
    } = selector;
    wire::MapSelector {
        names: names.unwrap_or_default(),
        types: types.into_iter().flatten().map(MapType::number).collect(),
        ids: ids.unwrap_or_default(),
        pin_paths: pin_paths.unwrap_or_default(),
        held_by: held_by.map(|HeldBy { commands, cgroups }| wire::HeldBy {
            commands: commands.unwrap_or_default(),
            cgroups: cgroups.unwrap_or_default(),
        }),
    }
}

fn callers_from_wire(wire: wire::CallerSelector) -> Checked<CallerSelector> {
    let wire::CallerSelector {
        commands,
        exclude_commands,
    } = wire;
    Ok(CallerSelector {
        commands: some(patterns("commands", commands, 8)?),
        exclude_commands: some(patterns("exclude_commands", exclude_commands, 8)?),
    })
}

fn outliers_from_wire(wire: wire::OutlierSelector) -> Checked<OutlierSelector> {
    let wire::OutlierSelector {
        threshold_microseconds,
        per_second,
    } = wire;
    let threshold = |it| range("threshold_microseconds", it, 1, 10_000_000);
    Ok(OutlierSelector {
        threshold_microseconds: threshold_microseconds.map(threshold).transpose()?,
        per_second: range("per_second", per_second, 1, 1_000)?,
    })
}

fn active_from_wire(wire: wire::ActiveReads) -> Checked<ActiveReads> {
    let wire::ActiveReads {
        cpus,
        period_milliseconds,
        method,
    } = wire;
    Ok(ActiveReads {
        cpus: text("cpus", cpus, MAX_TEXT, "1 to 256 printable characters")?,
        period_milliseconds: range("period_milliseconds", period_milliseconds, 10, 60_000)?,
        method: match wire::ReadMethod::try_from(method) {
            Ok(wire::ReadMethod::Auto) => ReadMethod::Auto,
            Ok(wire::ReadMethod::Lookup) => ReadMethod::Lookup,
            Ok(wire::ReadMethod::Unspecified) | Err(_) => {
                return Err(InvalidMessage::new(
                    "method",
                    Problem::Unknown(method.into()),
                ));
            }
        },
    })
}

fn active_to_wire(active: ActiveReads) -> wire::ActiveReads {
    let ActiveReads {
        cpus,
        period_milliseconds,
        method,
    } = active;
    let method = match method {
        ReadMethod::Auto => wire::ReadMethod::Auto,
        ReadMethod::Lookup => wire::ReadMethod::Lookup,
    };
    wire::ActiveReads {
        cpus,
        period_milliseconds,
        method: method.into(),
    }
}

fn aggregation_from_wire(wire: wire::Aggregation) -> Checked<Aggregation> {
    let wire::Aggregation {
        strategy,
        one_in,
        last_operations,
    } = wire;
    Ok(Aggregation {
        strategy: match wire::Strategy::try_from(strategy) {
            Ok(wire::Strategy::Histogram) => Strategy::Histogram,
            Ok(wire::Strategy::Sampled) => Strategy::Sampled,
            Ok(wire::Strategy::SlidingWindow) => Strategy::SlidingWindow,
            Ok(wire::Strategy::Direct) => Strategy::Direct,
            Ok(wire::Strategy::Unspecified) | Err(_) => {
                let problem = Problem::Unknown(strategy.into());
                return Err(InvalidMessage::new("strategy", problem));
            }
        },
        one_in: one_in
            .map(|it| range("one_in", it, 2, MAX_SAMPLING))
            .transpose()?,
        last_operations: last_operations
            .map(|it| range("last_operations", it, 256, 65_536))
            .transpose()?,
    })
}

fn aggregation_to_wire(
    Aggregation {
        strategy,
        one_in,
        last_operations,
    }: Aggregation,
) -> wire::Aggregation {
    let strategy = match strategy {
        Strategy::Histogram => wire::Strategy::Histogram,
        Strategy::Sampled => wire::Strategy::Sampled,
        Strategy::SlidingWindow => wire::Strategy::SlidingWindow,
        Strategy::Direct => wire::Strategy::Direct,
    };
    wire::Aggregation {
        strategy: strategy.into(),
        one_in,
        last_operations,
    }
}

fn patterns(field: &str, patterns: Vec<String>, most: usize) -> Checked<Vec<String>> {
    length(field, patterns.len(), most)?;
    each(field, patterns, |it| {
        text("value", it, MAX_TEXT, "1 to 256 printable characters")
    })
}

/// On the wire an empty list stands for an absent one.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
