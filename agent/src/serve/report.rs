//! Builds a report from what was measured, within the limits of the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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

/// What a stream has told of generations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun(BTreeMap<Generation, Span>);

/// When rows of a generation were told without a break, by the agent's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: Duration,
    last: Duration,
}

impl Begun {
    /// Whether the operator has to be told where a window begins. What it was told first is one step to it, out of which the
    /// window is to slide little by little; and it may be told of another run of measuring since the report before.
    fn lacks(&self, probe: &ProbeSnapshot) -> bool {
        let told = self.0.get(&(probe.uid.clone(), probe.generation));
        told.is_none_or(|it| probe.beginning_at < it.first || probe.beginning_at > it.last)
    }

    /// Those whose rows a report tells. Others have to begin anew when they come again.
    fn told(&mut self, report: &wire::Report, taken: Duration) {
        let told = report.probes.iter().filter(|it| !it.rows_withheld);
        let spans = told.map(|it| {
            let generation = (it.uid.clone(), it.generation);
            let first = self.0.get(&generation).map_or(taken, |it| it.first);
            (generation, Span { first, last: taken })
        });
        self.0 = spans.collect();
    }
}

/// Builds a report, the next one of the stream that has told what `begun` says.
pub fn build(
    sequence: u64,
    revision: u64,
    snapshot: &Snapshot,
    refused: &[Refused],
    begun: &mut Begun,
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
    begun.told(&report, snapshot.taken);
    report
}

/// The generations that a snapshot tells of.
pub fn generations(snapshot: &Snapshot) -> BTreeSet<Generation> {
    snapshot
        .probes
        .iter()
        .map(|it| (it.uid.clone(), it.generation))
        .collect()
}

fn measured(probe: &ProbeSnapshot, begun: &Begun) -> ProbeReport {
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
        beginning: begun.lacks(probe).then(|| Beginning {
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

/// Leaves out what is largest until the report is small enough: first where windows begin, without which an operator that
/// knows nothing takes the rows as the beginning. Then all rows of a probe, as half of them would look like its whole truth;
/// that is said.
fn fit(mut report: Report, most_series: usize, most_bytes: usize) -> wire::Report {
    loop {
        let wire = wire::Report::from(report.clone());
        let series: usize = report.probes.iter().map(rows).sum();
        if series <= most_series && wire.encoded_len() <= most_bytes {
            return wire;
        }
        let beginnings = report.probes.iter_mut().map(|it| &mut it.beginning);
        let largest = beginnings
            .max_by_key(|it| begins_with(it.as_ref()))
            .filter(|it| begins_with(it.as_ref()) > 0);
        if let Some(largest) = largest {
            *largest = None;
            continue;
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
    probe.rows.len() + begins_with(probe.beginning.as_ref())
}

/// So many rows.
fn begins_with(beginning: Option<&Beginning>) -> usize {
    beginning.map_or(0, |it| it.rows.len())
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
            &mut Begun::default(),
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
        let report = read(build(1, 1, &taken, &[], &mut Begun::default()));
        assert_eq!(report.cost, taken.cost);
        assert_eq!(report.shed, taken.shed);
    }

    /// Whether a report brings where the window of its only probe begins.
    fn begins(begun: &mut Begun, generation: i64, from: u64, taken: u64) -> bool {
        let mut one = probe("a", 2);
        one.generation = generation;
        one.beginning_at = Duration::from_secs(from);
        let mut snapshot = snapshot(vec![one]);
        snapshot.taken = Duration::from_secs(taken);
        let report = read(build(1, 5, &snapshot, &[], begun));
        report.probes[0].beginning.is_some()
    }

    #[test]
    fn a_beginning_is_told_until_the_streams_first_report_is_no_part_of_the_window() {
        let mut begun = Begun::default();
        // The operator knows nothing, and the window of ten seconds is full.
        for taken in 20..30 {
            assert!(begins(&mut begun, 1, taken - 10, taken), "at {taken} s");
        }
        for taken in 30..50 {
            assert!(!begins(&mut begun, 1, taken - 10, taken), "at {taken} s");
        }
        // The spec has changed.
        assert!(begins(&mut begun, 2, 49, 50));
        assert!(begins(&mut begun, 2, 49, 51));
        assert!(!begins(&mut begun, 2, 50, 60));
        // The node was not selected for a moment, so another run of measuring has begun since the report before.
        assert!(begins(&mut begun, 2, 61, 62));
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
            &mut Begun::default(),
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
                .map(|it| measured(it, &Begun::default()))
                .collect(),
            losses: BTreeMap::new(),
            cost: Cost::default(),
            shed: vec![],
        };

        let all = read(fit(report.clone(), 12, usize::MAX));
        let with_beginning = |it: &Report| {
            it.probes
                .iter()
                .map(|it| it.beginning.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!((all.probes[0].rows.len(), all.probes[1].rows.len()), (2, 9));
        assert_eq!(
            with_beginning(&all),
            [true, false],
            "the rows themselves are worth more"
        );

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

        let without_beginnings = fit(report.clone(), 11, usize::MAX).encoded_len();
        let most = without_beginnings - 1;
        let by_bytes = fit(report, usize::MAX, most);
        let mut begun = Begun::default();
        begun.told(&by_bytes, taken.taken);
        let told: Vec<_> = begun.0.keys().cloned().collect();
        assert_eq!(told, [("small".to_owned(), 3)]);
        assert!(by_bytes.encoded_len() <= most);
        assert!(!read(by_bytes).probes[0].rows.is_empty());
    }
}
