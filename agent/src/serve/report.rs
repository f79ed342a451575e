//! Builds a report from what was measured, within the limits of the protocol.

use std::collections::{BTreeMap, BTreeSet};

use maplatency_core::callers::CallerRow;
use maplatency_core::measure::Rows;
use maplatency_proto::{
    AssignedProbe, Beginning, MAX_CALLER_ROWS, MAX_LOSS_KINDS, MAX_MAPS, MAX_MESSAGE_BYTES,
    MAX_PROBLEMS, MAX_SERIES, ProbeReport, Report, wire,
};
use prost::Message as _;

use crate::monitor::{ProbeSnapshot, Snapshot};

/// Longest problem and description of a tier, in bytes.
const MAX_TEXT: usize = 512;

/// A probe in one of its generations.
pub type Generation = (String, i64);

/// An assigned probe that cannot be measured, and why.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The probe's uid.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// What is wrong with it, as sentences.
    pub problems: Vec<String>,
}

impl Refused {
    /// Notes why a probe is not measured.
    pub fn new(probe: &AssignedProbe, problems: Vec<String>) -> Self {
        Self {
            uid: probe.uid.clone(),
            generation: probe.generation,
            problems,
        }
    }
}

/// Builds a report. `begun` are the generations whose beginning the stream has told already; it becomes those whose
/// rows this report tells, so that rows which come again after they were withheld bring their beginning.
pub fn build(
    sequence: u64,
    revision: u64,
    snapshot: &Snapshot,
    refused: &[Refused],
    begun: &mut BTreeSet<Generation>,
) -> wire::Report {
    let measured = snapshot.probes.iter().map(|it| measured(it, begun));
    let report = Report {
        sequence,
        revision,
        taken: snapshot.taken,
        probes: measured.chain(refused.iter().map(unmeasured)).collect(),
        losses: snapshot
            .losses
            .clone()
            .into_iter()
            .take(MAX_LOSS_KINDS)
            .collect(),
        cost: snapshot.cost,
        shed: snapshot.shed.clone(),
    };
    let report = fit(report, MAX_SERIES, MAX_MESSAGE_BYTES);
    *begun = told(&report);
    report
}

/// The generations whose rows a report tells.
fn told(report: &wire::Report) -> BTreeSet<Generation> {
    let told = report.probes.iter().filter(|it| !it.rows_withheld);
    told.map(|it| (it.uid.clone(), it.generation)).collect()
}

/// The generations that a snapshot tells of.
pub fn generations(snapshot: &Snapshot) -> BTreeSet<Generation> {
    snapshot
        .probes
        .iter()
        .map(|it| (it.uid.clone(), it.generation))
        .collect()
}

fn measured(probe: &ProbeSnapshot, begun: &BTreeSet<Generation>) -> ProbeReport {
    let is_told = begun.contains(&(probe.uid.clone(), probe.generation));
    let mut problems = probe.problems.clone();
    if probe.maps.len() > MAX_MAPS {
        let advice = format!(
            "{} maps match; only the {MAX_MAPS} with the lowest ids are named; select fewer maps",
            probe.maps.len()
        );
        problems.insert(0, advice);
    }
    ProbeReport {
        uid: probe.uid.clone(),
        generation: probe.generation,
        maps: probe.maps.iter().take(MAX_MAPS).cloned().collect(),
        rows: probe.cumulative.clone(),
        worst: probe.worst.clone(),
        beginning: (!is_told).then(|| Beginning {
            taken: probe.beginning_at,
            rows: probe.beginning.clone(),
        }),
        problems: tellable(&problems),
        rows_withheld: false,
        callers: top_callers(&probe.callers),
        spikes: probe.spikes.clone(),
        outliers: probe.outliers.clone(),
        sampling: probe.sampling,
        exact: probe.exact.clone(),
    }
}

/// As many as a report holds: mostly those that are told apart, which come first, and some of the others.
fn top_callers(rows: &[CallerRow]) -> Vec<CallerRow> {
    let named = rows.iter().filter(|it| it.caller.is_some());
    let others = rows.iter().filter(|it| it.caller.is_none());
    named
        .take(MAX_CALLER_ROWS / 4 * 3)
        .chain(others.take(MAX_CALLER_ROWS / 4))
        .cloned()
        .collect()
}

fn unmeasured(
    Refused {
        uid,
        generation,
        problems,
    }: &Refused,
) -> ProbeReport {
    ProbeReport {
        uid: uid.clone(),
        generation: *generation,
        maps: vec![],
        rows: Rows::new(),
        worst: BTreeMap::new(),
        beginning: None,
        problems: tellable(problems),
        rows_withheld: false,
        callers: vec![],
        spikes: vec![],
        outliers: None,
        sampling: 1,
        exact: vec![],
    }
}

/// As many problems, each as long, as a report may hold.
fn tellable(problems: &[String]) -> Vec<String> {
    problems
        .iter()
        .filter(|it| !it.is_empty())
        .take(MAX_PROBLEMS)
        .map(|it| printable(it))
        .collect()
}

/// A text as the protocol takes it: on one line, and of limited length.
pub fn printable(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|it| if it.is_control() { ' ' } else { it })
        .collect();
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

/// Leaves out the rows of the largest probes until the report is small enough, and says so. Half of a probe's
/// rows would look like its whole truth, so all of them go.
fn fit(mut report: Report, most_series: usize, most_bytes: usize) -> wire::Report {
    loop {
        let wire = wire::Report::from(report.clone());
        let series: usize = report.probes.iter().map(rows).sum();
        if series <= most_series && wire.encoded_len() <= most_bytes {
            return wire;
        }
        let Some(largest) = report
            .probes
            .iter_mut()
            .max_by_key(|it| rows(it))
            .filter(|it| rows(it) > 0)
        else {
            // Names alone do not fill a message.
            return wire;
        };
        let advice = format!(
            "{} rows of map, operation and CPU are more than a report can hold, so none is reported; select fewer maps",
            largest.rows.len()
        );
        largest.rows.clear();
        largest.worst.clear();
        largest.callers.clear();
        largest.spikes.clear();
        largest.outliers = None;
        largest.exact.clear();
        largest.beginning = None;
        largest.rows_withheld = true;
        largest.problems.insert(0, advice);
        largest.problems.truncate(MAX_PROBLEMS);
    }
}

fn rows(probe: &ProbeReport) -> usize {
    probe.rows.len() + probe.beginning.as_ref().map_or(0, |it| it.rows.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use maplatency_core::budget::{Resource, Shed, Step};
    use maplatency_core::cost::Cost;
    use maplatency_core::measure::{Counts, SeriesKey};
    use maplatency_core::{MapIdentity, Operation, Outcome};
    use std::time::Duration;

    fn counted(rows: u32) -> Rows {
        let counts = Counts {
            until_user: [100, 200].into_iter().collect(),
            ..Counts::default()
        };
        let key = |cpu| SeriesKey {
            map_id: 1,
            operation: Operation::Lookup,
            cpu,
            outcome: Outcome::Success,
        };
        (0..rows).map(|cpu| (key(cpu), counts.clone())).collect()
    }

    fn probe(uid: &str, rows: u32) -> ProbeSnapshot {
        ProbeSnapshot {
            name: uid.to_owned(),
            uid: uid.to_owned(),
            generation: 3,
            maps: vec![MapIdentity {
                id: 1,
                name: "m".to_owned(),
                map_type: None,
            }],
            gone: vec![],
            cumulative: counted(rows),
            beginning: counted(1),
            beginning_at: Duration::from_secs(4),
            within: counted(rows),
            sampling: 1,
            exact: vec![],
            span: Duration::from_secs(6),
            worst: BTreeMap::new(),
            callers: vec![],
            spikes: vec![],
            outliers: None,
            readers: Rows::new(),
            problems: vec![],
        }
    }

    fn snapshot(probes: Vec<ProbeSnapshot>) -> Snapshot {
        Snapshot {
            taken: Duration::from_secs(10),
            probes,
            losses: BTreeMap::from([("Storage".to_owned(), 2)]),
            cost: Cost::default(),
            shed: vec![],
            written: None,
        }
    }

    /// As the operator reads it.
    fn read(report: wire::Report) -> Report {
        Report::try_from(report).unwrap()
    }

    #[test]
    fn a_report_holds_totals_and_where_the_window_begins() {
        let report = read(build(
            7,
            5,
            &snapshot(vec![probe("a", 2)]),
            &[],
            &mut BTreeSet::new(),
        ));

        assert_eq!(
            (report.sequence, report.revision, report.taken),
            (7, 5, Duration::from_secs(10))
        );
        assert_eq!(report.losses["Storage"], 2);
        let a = &report.probes[0];
        assert_eq!((a.uid.as_str(), a.generation, a.maps.len()), ("a", 3, 1));
        assert_eq!(a.rows, counted(2));
        let beginning = a.beginning.as_ref().unwrap();
        assert_eq!(
            (beginning.taken, &beginning.rows),
            (Duration::from_secs(4), &counted(1))
        );
    }

    #[test]
    fn a_report_tells_what_the_agent_costs() {
        let mut taken = snapshot(vec![]);
        taken.cost.rss_bytes = Some(4096);
        taken.shed = vec![Shed {
            step: Step::Sampling,
            resource: Resource::Cpu,
            since_unix_microseconds: 1,
            one_in: 2,
        }];
        let report = read(build(1, 1, &taken, &[], &mut BTreeSet::new()));
        assert_eq!(report.cost, taken.cost);
        assert_eq!(report.shed, taken.shed);
    }

    #[test]
    fn a_beginning_is_told_once_per_generation() {
        let taken = snapshot(vec![probe("a", 2), probe("b", 2)]);
        let mut begun = BTreeSet::from([("a".to_owned(), 3), ("b".to_owned(), 2)]);

        let report = read(build(8, 5, &taken, &[], &mut begun));

        assert!(report.probes[0].beginning.is_none());
        assert!(
            report.probes[1].beginning.is_some(),
            "its generation is another one"
        );
        assert_eq!(begun, generations(&taken));
    }

    #[test]
    fn a_refused_probe_is_reported_with_its_problems() {
        let problem = "spec.windowSeconds: is\n1".to_owned();
        let refused = Refused {
            uid: "r".to_owned(),
            generation: 1,
            problems: vec![problem, "é".repeat(400)],
        };

        let report = read(build(
            1,
            1,
            &snapshot(vec![]),
            &[refused],
            &mut BTreeSet::new(),
        ));

        assert_eq!(report.probes[0].problems[0], "spec.windowSeconds: is 1");
        assert_eq!(report.probes[0].problems[1], "é".repeat(256));
        assert!(report.probes[0].rows.is_empty());
    }

    #[test]
    fn of_too_many_rows_the_largest_probes_are_left_out_with_a_problem() {
        let taken = snapshot(vec![probe("small", 2), probe("large", 9)]);
        let report = Report {
            sequence: 1,
            revision: 1,
            taken: taken.taken,
            probes: taken
                .probes
                .iter()
                .map(|it| measured(it, &BTreeSet::new()))
                .collect(),
            losses: BTreeMap::new(),
            cost: Cost::default(),
            shed: vec![],
        };

        let by_rows = read(fit(report.clone(), 10, usize::MAX));
        assert_eq!(
            (by_rows.probes[0].rows.len(), by_rows.probes[1].rows.len()),
            (2, 0)
        );
        assert!(
            by_rows.probes[1].problems[0].starts_with("9 rows of map"),
            "{:?}",
            by_rows.probes[1].problems
        );

        assert!(by_rows.probes[1].rows_withheld && !by_rows.probes[0].rows_withheld);

        let by_bytes = fit(report, usize::MAX, 280);
        assert_eq!(told(&by_bytes), BTreeSet::from([("small".to_owned(), 3)]));
        assert!(by_bytes.encoded_len() <= 280);
        assert!(!read(by_bytes).probes[0].rows.is_empty());
    }
}
