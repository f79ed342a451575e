//! What one host measured, as the resource that a cluster would show.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use maplatency_core::condition::{AGENTS_READY, MAPS_FOUND, READY, Truth, Verdict, conditions};
use maplatency_core::crd::spec::MapSelector;
use maplatency_core::crd::status::NodeCounts;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus, MapType, summary};

use crate::engine::Engine;
use crate::host::Host;
use crate::manifest::Manifest;
use crate::monitor::{ProbeSnapshot, Snapshot};
use crate::table::{self, Facts};

/// This host is the only node.
const NODES: NodeCounts = NodeCounts {
    selected: 1,
    ready: 1,
};

/// Turns snapshots into statuses and tables.
pub(super) struct Reporter {
    probe: MapLatencyProbe,
    window: Duration,
    host: Host,
    wanted: String,
    /// The newest conditions: they lend their transition times to the next.
    conditions: Vec<Condition>,
}

impl Reporter {
    pub(super) fn new(manifest: Manifest, host: Host) -> Self {
        Self {
            wanted: wanted(&manifest.probe.spec.maps),
            probe: manifest.probe,
            window: manifest.spec.window,
            host,
            conditions: Vec::new(),
        }
    }

    /// What the probe's status says, with the same fields as in a cluster.
    pub(super) fn status(&mut self, snapshot: &Snapshot) -> MapLatencyProbeStatus {
        let measured = snapshot.probes.first();
        let windows: Vec<_> = measured
            .map(|it| it.node_window(&self.host.node, &self.host.boot_id, &snapshot.losses))
            .into_iter()
            .collect();
        let problems = measured.map_or(&[][..], |it| &it.problems);
        let verdicts = self.verdicts(summary::matched_maps(&windows), problems);
        let generation = self.probe.metadata.generation;
        let now = Time(Timestamp::now());
        self.conditions = conditions(verdicts, &self.conditions, generation, &now);
        summary::status(&windows, NODES, self.conditions.clone(), generation)
    }

    /// The table, with as many of the slowest rows as asked for.
    pub(super) fn table(
        &mut self,
        snapshot: &Snapshot,
        elapsed: Duration,
        slowest: usize,
    ) -> String {
        let status = self.status(snapshot);
        let measured = snapshot.probes.first();
        let facts = Facts {
            probe: self.probe.metadata.name.as_deref().unwrap_or_default(),
            host: &self.host,
            tier: Engine::TIER,
            window: self.window,
            span: measured.map_or(Duration::ZERO, |it| it.span),
            elapsed,
            reads_actively: self.probe.spec.active_reads.is_some(),
            wanted: &self.wanted,
            maps: &measured.map(map_names).unwrap_or_default(),
            problems: measured.map_or(&[], |it| &it.problems),
            slowest,
        };
        table::render(&status, &facts)
    }

    /// The resource with its status.
    pub(super) fn resource(&mut self, snapshot: &Snapshot) -> MapLatencyProbe {
        MapLatencyProbe {
            status: Some(self.status(snapshot)),
            ..self.probe.clone()
        }
    }

    fn verdicts(&self, maps: i64, problems: &[String]) -> [Verdict; 3] {
        let agents = if problems.is_empty() {
            verdict(
                AGENTS_READY,
                Truth::True,
                "AllNodesMeasure",
                "1 of 1 node measures".to_owned(),
            )
        } else {
            let message = format!(
                "1 of 1 node measures; {}: {}",
                self.host.node,
                problems.join("; ")
            );
            verdict(AGENTS_READY, Truth::False, "AgentProblems", message)
        };
        let found = match maps {
            0 => verdict(
                MAPS_FOUND,
                Truth::False,
                "NoMapMatches",
                format!(
                    "no map on {} matches {}; compare spec.maps with bpftool map list, where names are cut to 15 \
                     characters",
                    self.host.node, self.wanted
                ),
            ),
            1 => verdict(
                MAPS_FOUND,
                Truth::True,
                "MapsMatch",
                "1 map matches on 1 node".to_owned(),
            ),
            _ => verdict(
                MAPS_FOUND,
                Truth::True,
                "MapsMatch",
                format!("{maps} maps match on 1 node"),
            ),
        };
        [sum(&agents, &found), agents, found]
    }
}

/// Ready takes over what is wrong.
fn sum(agents: &Verdict, maps: &Verdict) -> Verdict {
    match [agents, maps]
        .into_iter()
        .find(|it| it.truth != Truth::True)
    {
        Some(cause) => verdict(READY, cause.truth, cause.reason, cause.message.clone()),
        None => verdict(
            READY,
            Truth::True,
            "Measuring",
            format!("{}; {}", agents.message, maps.message),
        ),
    }
}

fn verdict(kind: &'static str, truth: Truth, reason: &'static str, message: String) -> Verdict {
    Verdict {
        kind,
        truth,
        reason,
        message,
    }
}

fn map_names(measured: &ProbeSnapshot) -> Vec<String> {
    let name = |name: &str| {
        if name.is_empty() {
            "-".to_owned()
        } else {
            name.to_owned()
        }
    };
    measured
        .maps
        .iter()
        .map(|it| format!("{} (id {})", name(&it.name), it.id))
        .collect()
}

/// What `spec.maps` looks for, in words.
fn wanted(maps: &[MapSelector]) -> String {
    let entries: Vec<String> = maps.iter().map(entry).collect();
    entries.join("; or ")
}

fn entry(selector: &MapSelector) -> String {
    let MapSelector { names, types, ids } = selector;
    let list = |what: &str, items: Vec<String>| format!("{what} {}", items.join(" or "));
    let parts: Vec<String> = [
        names.as_ref().map(|it| list("name", it.clone())),
        types
            .as_ref()
            .map(|it| list("type", it.iter().map(MapType::to_string).collect())),
        ids.as_ref()
            .map(|it| list("id", it.iter().map(i64::to_string).collect())),
    ]
    .into_iter()
    .flatten()
    .collect();
    parts.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter(maps: &str) -> Reporter {
        let spec: maplatency_core::MapLatencyProbeSpec =
            serde_yaml::from_str(&format!("{{maps: {maps}}}")).unwrap();
        let checked = spec.check().unwrap();
        let mut probe = MapLatencyProbe::new("conntrack", spec);
        probe.metadata.generation = Some(1);
        let host = Host {
            node: "node-a".to_owned(),
            kernel: "6.12.0".to_owned(),
            boot_id: "b".to_owned(),
        };
        Reporter::new(
            Manifest {
                probe,
                spec: checked,
            },
            host,
        )
    }

    fn condition<'a>(status: &'a MapLatencyProbeStatus, kind: &str) -> (&'a str, &'a str, &'a str) {
        let it = status
            .conditions
            .iter()
            .find(|it| it.type_ == kind)
            .unwrap();
        (&it.status, &it.reason, &it.message)
    }

    #[test]
    fn a_host_without_such_maps_is_told_what_was_looked_for() {
        let mut reporter = reporter("[{names: ['ct_*', nat], types: [Hash]}, {ids: [7]}]");

        let status = reporter.status(&Snapshot::default());

        let message = "no map on node-a matches name ct_* or nat and type Hash; or id 7; compare spec.maps with \
                       bpftool map list, where names are cut to 15 characters";
        assert_eq!(
            condition(&status, READY),
            ("False", "NoMapMatches", message)
        );
        assert_eq!(
            condition(&status, MAPS_FOUND),
            ("False", "NoMapMatches", message)
        );
        assert_eq!(
            condition(&status, AGENTS_READY),
            ("True", "AllNodesMeasure", "1 of 1 node measures")
        );
    }

    #[test]
    fn what_cannot_be_measured_makes_the_probe_unready() {
        let reporter = reporter("[{ids: [7]}]");
        let [ready, agents, maps] = reporter.verdicts(2, &["CPU 3 is offline".to_owned()]);

        assert_eq!((ready.truth, ready.reason), (Truth::False, "AgentProblems"));
        assert_eq!(
            agents.message,
            "1 of 1 node measures; node-a: CPU 3 is offline"
        );
        assert_eq!(
            (maps.truth, maps.message.as_str()),
            (Truth::True, "2 maps match on 1 node")
        );
    }
}
