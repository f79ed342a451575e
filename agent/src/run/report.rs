//! What one host measured, as the resource that a cluster would show.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use maplatency_core::agents::{AgentFacts, agents_status};
use maplatency_core::condition::{self, AGENTS_READY, Truth, Verdict, conditions};
use maplatency_core::crd::nodes::{NodeCounts, PartialWindow};
use maplatency_core::crd::objectives::ObjectiveStatus;
use maplatency_core::crd::spec::{HeldBy, MapSelector};
use maplatency_core::node_window::NodeWindow;
use maplatency_core::{MapLatencyProbe, MapLatencyProbeStatus, MapType, objectives, summary};

use crate::host::Host;
use crate::manifest::Manifest;
use crate::monitor::{ProbeSnapshot, Snapshot};
use crate::table::{self, Facts};

/// Turns snapshots into statuses and tables.
pub(super) struct Reporter {
    probe: MapLatencyProbe,
    window: Duration,
    host: Host,
    tier: String,
    wanted: String,
    /// The newest conditions: they lend their transition times to the next.
    conditions: Vec<Condition>,
    /// Likewise.
    objectives: Vec<ObjectiveStatus>,
}

impl Reporter {
    pub(super) fn new(manifest: Manifest, host: Host, tier: String) -> Self {
        Self {
            wanted: wanted(&manifest.probe.spec.maps),
            probe: manifest.probe,
            window: manifest.spec.window,
            host,
            tier,
            conditions: Vec::new(),
            objectives: Vec::new(),
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
        let agent = AgentFacts {
            node: self.host.node.clone(),
            tier: self.tier.clone(),
            cost: snapshot.cost,
            shed: snapshot.shed.clone(),
        };
        let agents = [agent];
        let verdicts = self.verdicts(&windows, problems).into_iter();
        let verdicts = verdicts.chain(condition::shedding(&agents));
        let generation = self.probe.metadata.generation;
        let now = Time(Timestamp::now());
        let wanted = self.probe.spec.objectives();
        self.objectives = objectives::evaluate(wanted, &windows, &self.objectives, &now);
        let verdicts = verdicts.chain(objectives::verdict(wanted, &self.objectives));
        self.conditions = conditions(verdicts, &self.conditions, generation, &now);
        let nodes = self.nodes(measured.map_or(Duration::ZERO, |it| it.span));
        let status = summary::status(&windows, nodes, self.conditions.clone(), generation);
        MapLatencyProbeStatus {
            agents: agents_status(&agents),
            ..status.with_objectives(self.objectives.clone())
        }
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
            tier: &self.tier,
            window: self.window,
            span: measured.map_or(Duration::ZERO, |it| it.span),
            elapsed,
            objectives: self.probe.spec.objectives(),
            reads_actively: self.probe.spec.active_reads.is_some(),
            wanted: &self.wanted,
            maps: &measured.map(map_names).unwrap_or_default(),
            gone: measured.map_or(0, |it| it.gone.len()),
            problems: measured.map_or(&[], |it| &it.problems),
            slowest,
            cost: snapshot.cost,
            shed: &snapshot.shed,
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

    /// This host is the only node. Its window moves on once a second.
    fn nodes(&self, measured: Duration) -> NodeCounts {
        let is_partial = measured + Duration::from_secs(1) < self.window;
        let partial = is_partial.then(|| (self.host.node.clone(), measured));
        NodeCounts {
            partial_window: PartialWindow::of(&partial.into_iter().collect()),
            ..NodeCounts::all_ready(1)
        }
    }

    fn verdicts(&self, windows: &[NodeWindow], problems: &[String]) -> [Verdict; 3] {
        let measures = "1 of 1 node measures";
        let agents = if problems.is_empty() {
            Verdict::new(AGENTS_READY, Truth::True, "AllNodesMeasure", measures)
        } else {
            let message = format!("{measures}; {}: {}", self.host.node, problems.join("; "));
            Verdict::new(AGENTS_READY, Truth::False, "AgentProblems", message)
        };
        let found = condition::maps_found(windows, &self.host.node, &self.wanted);
        [condition::ready(&agents, &found), agents, found]
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
    let MapSelector {
        names,
        types,
        ids,
        pin_paths,
        held_by,
    } = selector;
    let HeldBy { commands, cgroups } = held_by.clone().unwrap_or_default();
    let list = |what: &str, items: Vec<String>| format!("{what} {}", items.join(" or "));
    let parts: Vec<String> = [
        names.as_ref().map(|it| list("name", it.clone())),
        types
            .as_ref()
            .map(|it| list("type", it.iter().map(MapType::to_string).collect())),
        ids.as_ref()
            .map(|it| list("id", it.iter().map(i64::to_string).collect())),
        pin_paths.as_ref().map(|it| list("pin", it.clone())),
        commands.map(|it| list("holder", it)),
        cgroups.map(|it| list("holder's cgroup", it)),
    ]
    .into_iter()
    .flatten()
    .collect();
    parts.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use maplatency_core::MapIdentity;
    use maplatency_core::condition::{MAPS_FOUND, READY};

    use crate::monitor::ProbeRequest;

    fn map(id: u32) -> MapIdentity {
        MapIdentity {
            id,
            name: "ct_tcp".to_owned(),
            map_type: Some(MapType::Hash),
        }
    }

    /// What was measured on a host with these maps.
    fn snapshot(reporter: &Reporter, maps: &[u32], gone: &[u32], problems: &[&str]) -> Snapshot {
        let request = ProbeRequest {
            name: "conntrack".to_owned(),
            uid: "u".to_owned(),
            generation: 1,
            spec: reporter.probe.spec.check().unwrap(),
        };
        let problems = problems.iter().map(|it| (*it).to_owned()).collect();
        let probe = ProbeSnapshot {
            maps: maps.iter().copied().map(map).collect(),
            gone: gone.iter().copied().map(map).collect(),
            ..ProbeSnapshot::empty(&request, problems)
        };
        Snapshot {
            probes: vec![probe],
            ..Snapshot::default()
        }
    }

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
            "Tracepoint".to_owned(),
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
    fn maps_that_are_gone_are_told_of() {
        let mut reporter = reporter("[{names: ['ct_*']}]");
        let snapshot = snapshot(&reporter, &[], &[4, 9], &[]);

        let status = reporter.status(&snapshot);
        let table = reporter.table(&snapshot, Duration::from_secs(9), 5);

        let message = "no map on node-a matches now; 2 matched earlier in the window";
        assert_eq!(condition(&status, READY), ("False", "MapsGone", message));
        assert_eq!(
            condition(&status, MAPS_FOUND),
            ("False", "MapsGone", message)
        );
        assert!(
            table.contains("No map matches now; 2 matched earlier in the window."),
            "{table}"
        );
    }

    #[test]
    fn what_cannot_be_measured_makes_the_probe_unready() {
        let mut reporter = reporter("[{ids: [7]}]");
        let snapshot = snapshot(&reporter, &[7, 8], &[], &["CPU 3 is offline"]);

        let status = reporter.status(&snapshot);

        let message = "1 of 1 node measures; node-a: CPU 3 is offline";
        assert_eq!(
            condition(&status, READY),
            ("False", "AgentProblems", message)
        );
        assert_eq!(
            condition(&status, MAPS_FOUND),
            ("True", "MapsMatch", "2 maps match on node-a")
        );
    }
}
