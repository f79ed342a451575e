//! Turns a spec into what the agent and the operator act on, or says what to write instead.
//!
//! The API server refuses most mistakes by schema and CEL. A file given to `maplatency-agent run` meets no API
//! server, and some mistakes no schema can see; so everything is checked here again.

mod cpus;
mod labels;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use cpus::CpuChoice;
pub use labels::selects;

use crate::crd::spec::{
    ActiveReads, Aggregation, CallerSelector, HeldBy, MapLatencyProbeSpec, MapSelector,
    OutlierSelector, ReadMethod, Strategy,
};
use crate::exact::{Keep, MAX_KEPT};
use crate::glob::Glob;
use crate::path_glob::PathGlob;
use crate::vocabulary::{MapIdentity, MapType, Operation};

/// One mistake: where it stands and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, such as `spec.maps[0].names[1]`.
    pub field: String,
    /// What is wrong and what to write instead.
    pub advice: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.advice)
    }
}

/// Every mistake in a spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidSpec(pub Vec<Problem>);

/// A spec without mistakes, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedSpec {
    /// Which maps; any of them.
    pub maps: Vec<MapMatcher>,
    /// Which operations, in order.
    pub operations: Vec<Operation>,
    /// Which callers.
    pub callers: CallerMatcher,
    /// Reads by the agent itself.
    pub active: Option<ActivePlan>,
    /// Slow operations to tell one by one.
    pub outliers: Option<OutlierPlan>,
    /// How operations become figures.
    pub aggregation: AggregationPlan,
    /// Length of the sliding window.
    pub window: Duration,
}

impl CheckedSpec {
    /// Whether a map is to be measured.
    pub fn matches(&self, map: &MapIdentity, ties: Ties<'_>) -> bool {
        self.maps.iter().any(|it| it.matches(map, ties))
    }

    /// Whether a map can match by its name, type or id alone.
    pub fn matches_by_identity(&self) -> bool {
        let by_identity = |it: &MapMatcher| it.pin_paths.is_none() && it.held_by.is_none();
        self.maps.iter().any(by_identity)
    }

    /// Whether pins have to be known.
    pub fn needs_pins(&self) -> bool {
        self.maps.iter().any(|it| it.pin_paths.is_some())
    }

    /// Whether holders have to be known.
    pub fn needs_holders(&self) -> bool {
        self.maps.iter().any(|it| it.held_by.is_some())
    }
}

/// What ties a map to user space. By default nothing does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ties<'a> {
    /// Paths at which it is pinned.
    pub pins: &'a [String],
    /// Processes that hold it open.
    pub holders: &'a [Holder],
}

/// A process that holds a map open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The command of its main thread, at most 15 bytes.
    pub command: String,
    /// The end of its memory cgroup's path, at most four names; empty at the root.
    pub cgroup: String,
}

/// One entry of `spec.maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapMatcher {
    names: Option<Vec<Glob>>,
    types: Option<Vec<MapType>>,
    ids: Option<Vec<u32>>,
    pin_paths: Option<Vec<PathGlob>>,
    held_by: Option<HolderMatcher>,
}

/// `spec.maps[].heldBy`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HolderMatcher {
    commands: Option<Vec<Glob>>,
    cgroups: Option<Vec<PathGlob>>,
}

impl HolderMatcher {
    fn matches(&self, holder: &Holder) -> bool {
        let command = self
            .commands
            .as_ref()
            .is_none_or(|all| all.iter().any(|it| it.matches(&holder.command)));
        let cgroup = self
            .cgroups
            .as_ref()
            .is_none_or(|all| all.iter().any(|it| it.matches(&holder.cgroup)));
        command && cgroup
    }
}

impl MapMatcher {
    fn matches(&self, map: &MapIdentity, ties: Ties<'_>) -> bool {
        let name = self
            .names
            .as_ref()
            .is_none_or(|all| all.iter().any(|it| it.matches(&map.name)));
        let map_type = self
            .types
            .as_ref()
            .is_none_or(|all| map.map_type.is_some_and(|it| all.contains(&it)));
        let id = self.ids.as_ref().is_none_or(|all| all.contains(&map.id));
        let pinned = self.pin_paths.as_ref().is_none_or(|all| {
            let pins = |glob: &PathGlob| ties.pins.iter().any(|it| glob.matches(it));
            all.iter().any(pins)
        });
        let held = self
            .held_by
            .as_ref()
            .is_none_or(|wanted| ties.holders.iter().any(|it| wanted.matches(it)));
        name && map_type && id && pinned && held
    }
}

/// Callers by command; the kernel side evaluates it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallerMatcher {
    /// Patterns to measure; empty: everyone.
    pub commands: Vec<Glob>,
    /// Patterns to leave out; they outrank `commands`.
    pub exclude: Vec<Glob>,
}

/// Reads by pinned threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivePlan {
    /// Where to read from.
    pub cpus: CpuChoice,
    /// Time between two reads of a map on a CPU.
    pub period: Duration,
    /// How to read.
    pub method: ReadMethod,
}

/// Which operations are outliers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierPlan {
    /// From how long on. `None`: as the window so far says.
    pub threshold: Option<Duration>,
    /// How many to tell in a second.
    pub per_second: u32,
}

impl OutlierPlan {
    /// The threshold that holds where the window has not said one.
    pub fn fixed_nanoseconds(&self) -> u64 {
        let nanoseconds = self.threshold.map(|it| u64::try_from(it.as_nanos()));
        nanoseconds.and_then(Result::ok).unwrap_or(u64::MAX)
    }
}

/// How operations become figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AggregationPlan {
    /// Every operation is counted.
    #[default]
    Histogram,
    /// One operation in so many is counted, for all of them.
    Sampled {
        /// A power of two.
        one_in: u32,
    },
    /// Every operation is counted, and the last ones of each map and operation have exact figures.
    SlidingWindow {
        /// How many.
        last: usize,
    },
    /// Every operation is counted, and kept as it is for the window.
    Direct,
}

impl AggregationPlan {
    /// How many operations one stands for.
    pub const fn sampling(self) -> u32 {
        match self {
            Self::Histogram | Self::SlidingWindow { .. } | Self::Direct => 1,
            Self::Sampled { one_in } => one_in,
        }
    }

    /// Which single operations are kept beside the counts. `None`: none.
    pub const fn keeps(self) -> Option<Keep> {
        match self {
            Self::Histogram | Self::Sampled { .. } => None,
            Self::SlidingWindow { last } => Some(Keep::Last(last)),
            Self::Direct => Some(Keep::All(MAX_KEPT)),
        }
    }
}

/// One in how many operations is counted where a spec does not say.
const ONE_IN: i64 = 16;
/// Least and most that it may say.
const ONE_IN_RANGE: (u32, u32) = (2, 1024);
/// How many operations have exact figures where a spec does not say.
const LAST_OPERATIONS: i64 = 4096;
/// Least and most that it may say.
const LAST_OPERATIONS_RANGE: (u32, u32) = (256, 65_536);

impl MapLatencyProbeSpec {
    /// Parses every field, or lists every mistake.
    pub fn check(&self) -> Result<CheckedSpec, InvalidSpec> {
        let mut problems = Problems::default();
        if let Some(selector) = &self.node_selector {
            labels::check(selector, &mut problems);
        }
        problems.length("spec.maps", self.maps.len(), 16, Empty::WrongAndNeeded);
        if let Some(operations) = &self.operations {
            problems.length("spec.operations", operations.len(), 9, Empty::Wrong);
        }
        let maps = self
            .maps
            .iter()
            .enumerate()
            .filter_map(|(at, it)| check_maps(at, it, &mut problems))
            .collect();
        let callers = self
            .callers
            .as_ref()
            .map_or_else(CallerMatcher::default, |it| {
                check_callers(it, &mut problems)
            });
        let active = self
            .active_reads
            .as_ref()
            .and_then(|it| check_active(it, &mut problems));
        let outliers = self
            .outliers
            .as_ref()
            .map(|it| check_outliers(it, &mut problems));
        let aggregation = check_aggregation(self.aggregation.as_ref(), &mut problems);
        let window = problems.range("spec.windowSeconds", self.window_seconds, 10, 600);
        problems.into_result(|| CheckedSpec {
            maps,
            operations: self.effective_operations(),
            callers,
            active,
            outliers,
            aggregation,
            window: Duration::from_secs(window),
        })
    }
}

fn check_maps(at: usize, selector: &MapSelector, problems: &mut Problems) -> Option<MapMatcher> {
    let path = format!("spec.maps[{at}]");
    let MapSelector {
        names,
        types,
        ids,
        pin_paths,
        held_by,
    } = selector;
    let given = [
        names.is_some(),
        types.is_some(),
        ids.is_some(),
        pin_paths.is_some(),
        held_by.is_some(),
    ];
    if !given.contains(&true) {
        problems.add(
            path,
            "needs names, types, ids, pinPaths or heldBy; to match every map write names: [\"*\"]",
        );
        return None;
    }
    let empty = Empty::among(given);
    if let Some(types) = types {
        problems.length(&format!("{path}.types"), types.len(), 33, empty);
    }
    let ids = ids.as_ref().map(|ids| {
        problems.length(&format!("{path}.ids"), ids.len(), 64, empty);
        ids.iter()
            .enumerate()
            .map(|(n, id)| problems.range(&format!("{path}.ids[{n}]"), *id, 1, 2_147_483_647))
            .map(|id| u32::try_from(id).unwrap_or(u32::MAX))
            .collect()
    });
    let names = names
        .as_ref()
        .map(|it| check_globs(&format!("{path}.names"), it, 16, empty, problems));
    let pin_paths = pin_paths
        .as_ref()
        .map(|it| check_pin_paths(&format!("{path}.pinPaths"), it, empty, problems));
    let held_by = held_by
        .as_ref()
        .map(|it| check_holders(&format!("{path}.heldBy"), it, problems));
    Some(MapMatcher {
        names,
        types: types.clone(),
        ids,
        pin_paths,
        held_by,
    })
}

fn check_outliers(outliers: &OutlierSelector, problems: &mut Problems) -> OutlierPlan {
    let OutlierSelector {
        threshold_microseconds,
        per_second,
    } = outliers;
    let field = "spec.outliers.thresholdMicroseconds";
    let per_second = problems.range("spec.outliers.perSecond", *per_second, 1, 1_000);
    OutlierPlan {
        threshold: threshold_microseconds
            .map(|it| Duration::from_micros(problems.range(field, it, 1, 10_000_000))),
        per_second: u32::try_from(per_second).unwrap_or(u32::MAX),
    }
}

fn check_pin_paths(
    path: &str,
    patterns: &[String],
    empty: Empty,
    problems: &mut Problems,
) -> Vec<PathGlob> {
    for (n, pattern) in patterns.iter().enumerate() {
        if !pattern.is_empty() && !pattern.starts_with('/') {
            let advice = format!(
                "{pattern:?} does not begin with /; write a whole path, such as \"/sys/fs/bpf/tc/globals/*\""
            );
            problems.add(format!("{path}[{n}]"), advice);
        }
    }
    check_globs(path, patterns, 16, empty, problems)
}

fn check_holders(path: &str, held_by: &HeldBy, problems: &mut Problems) -> HolderMatcher {
    let HeldBy { commands, cgroups } = held_by;
    if commands.is_none() && cgroups.is_none() {
        problems.add(
            path,
            "needs commands or cgroups; to match maps whoever holds them leave heldBy out",
        );
    }
    let empty = Empty::among([commands.is_some(), cgroups.is_some()]);
    let commands = commands
        .as_ref()
        .map(|it| check_globs(&format!("{path}.commands"), it, 8, empty, problems));
    let cgroups = cgroups.as_ref().map(|it| {
        for (n, pattern) in it.iter().enumerate() {
            if pattern.starts_with('/') {
                let advice = format!(
                    "{pattern:?} begins with /, but only the end of a cgroup's path is known; write \"**{pattern}\""
                );
                problems.add(format!("{path}.cgroups[{n}]"), advice);
            }
        }
        check_globs(&format!("{path}.cgroups"), it, 8, empty, problems)
    });
    HolderMatcher { commands, cgroups }
}

fn check_callers(callers: &CallerSelector, problems: &mut Problems) -> CallerMatcher {
    let CallerSelector {
        commands,
        exclude_commands,
    } = callers;
    if commands.is_none() && exclude_commands.is_none() {
        problems.add(
            "spec.callers",
            "needs commands or excludeCommands; to measure every caller leave callers out",
        );
    }
    let empty = Empty::among([commands.is_some(), exclude_commands.is_some()]);
    let mut globs = |field: &str, patterns: &Option<Vec<String>>| {
        patterns
            .as_ref()
            .map(|it| check_globs(&format!("spec.callers.{field}"), it, 8, empty, problems))
            .unwrap_or_default()
    };
    let matcher = CallerMatcher {
        commands: globs("commands", commands),
        exclude: globs("excludeCommands", exclude_commands),
    };
    for both in matcher
        .commands
        .iter()
        .filter(|it| matcher.exclude.contains(it))
    {
        let advice = format!(
            "{:?} stands in both commands and excludeCommands; take it out of one of them",
            both.as_str()
        );
        problems.add("spec.callers", advice);
    }
    matcher
}

fn check_globs<T: FromStr<Err: fmt::Display>>(
    path: &str,
    patterns: &[String],
    at_most: usize,
    empty: Empty,
    problems: &mut Problems,
) -> Vec<T> {
    problems.length(path, patterns.len(), at_most, empty);
    let mut globs = Vec::with_capacity(patterns.len());
    for (n, pattern) in patterns.iter().enumerate() {
        match pattern.parse() {
            Ok(glob) => globs.push(glob),
            Err(error) => problems.add(format!("{path}[{n}]"), format!("{pattern:?} {error}")),
        }
    }
    globs
}

fn check_active(active: &ActiveReads, problems: &mut Problems) -> Option<ActivePlan> {
    let ActiveReads {
        cpus,
        period_milliseconds,
        method,
    } = active;
    let period = problems.range(
        "spec.activeReads.periodMilliseconds",
        *period_milliseconds,
        10,
        60_000,
    );
    match cpus.parse() {
        Ok(cpus) => Some(ActivePlan {
            cpus,
            period: Duration::from_millis(period),
            method: *method,
        }),
        Err(error) => {
            problems.add("spec.activeReads.cpus", format!("{cpus:?} {error}"));
            None
        }
    }
}

fn check_aggregation(
    aggregation: Option<&Aggregation>,
    problems: &mut Problems,
) -> AggregationPlan {
    let Some(Aggregation {
        strategy,
        one_in,
        last_operations,
    }) = aggregation
    else {
        return AggregationPlan::default();
    };
    if one_in.is_some() && *strategy != Strategy::Sampled {
        let advice = "goes with strategy Sampled only; write strategy: Sampled, or leave oneIn out";
        problems.add("spec.aggregation.oneIn", advice);
    }
    if last_operations.is_some() && *strategy != Strategy::SlidingWindow {
        let advice = "goes with strategy SlidingWindow only; write strategy: SlidingWindow, or leave lastOperations out";
        problems.add("spec.aggregation.lastOperations", advice);
    }
    match strategy {
        Strategy::Histogram => AggregationPlan::Histogram,
        Strategy::Sampled => AggregationPlan::Sampled {
            one_in: check_one_in(one_in.unwrap_or(ONE_IN), problems),
        },
        Strategy::SlidingWindow => {
            let (least, most) = LAST_OPERATIONS_RANGE;
            let asked = last_operations.unwrap_or(LAST_OPERATIONS);
            let number = problems.range("spec.aggregation.lastOperations", asked, least, most);
            AggregationPlan::SlidingWindow {
                last: usize::try_from(number).unwrap_or(usize::MAX),
            }
        }
        Strategy::Direct => AggregationPlan::Direct,
    }
}

fn check_one_in(asked: i64, problems: &mut Problems) -> u32 {
    let (least, most) = ONE_IN_RANGE;
    let one_in = u32::try_from(asked).unwrap_or_default();
    if !(least..=most).contains(&one_in) || !one_in.is_power_of_two() {
        let advice =
            format!("is {asked}; write a power of two from {least} to {most}, such as {ONE_IN}");
        problems.add("spec.aggregation.oneIn", advice);
    }
    one_in
}

/// What an empty list is.
#[derive(Clone, Copy)]
enum Empty {
    Fine,
    /// A mistake, while the field may be left out.
    Wrong,
    /// A mistake in a field that has to be there.
    WrongAndNeeded,
}

impl Empty {
    /// In one of several fields of which at least one has to be there.
    fn among<const N: usize>(given: [bool; N]) -> Self {
        if given.into_iter().filter(|it| *it).count() == 1 {
            Self::WrongAndNeeded
        } else {
            Self::Wrong
        }
    }
}

/// Collects mistakes, so that a user sees all of them at once.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Problem {
            field: field.into(),
            advice: advice.into(),
        });
    }

    fn length(&mut self, field: &str, length: usize, most: usize, empty: Empty) {
        if length > most {
            self.add(
                field,
                format!("has {length} items; at most {most} are allowed"),
            );
        }
        match (length, empty) {
            (0, Empty::Wrong) => {
                self.add(field, "is empty; list at least one, or leave the field out");
            }
            (0, Empty::WrongAndNeeded) => self.add(field, "is empty; list at least one"),
            _ => (),
        }
    }

    fn range(&mut self, field: &str, value: i64, least: u32, most: u32) -> u64 {
        if (i64::from(least)..=i64::from(most)).contains(&value) {
            return u64::try_from(value).unwrap_or_default();
        }
        self.add(
            field,
            format!("is {value}; write a number from {least} to {most}"),
        );
        u64::from(least)
    }

    fn into_result<T>(self, value: impl FnOnce() -> T) -> Result<T, InvalidSpec> {
        if self.0.is_empty() {
            Ok(value())
        } else {
            Err(InvalidSpec(self.0))
        }
    }
}

#[cfg(test)]
mod tests;
