//! What an agent leaves out to stay within its budget, and when it takes that back.
//!
//! [`Shedding`] is fed with what each slice cost. It has no clock: it counts slices, and figures bring their time.
//!
//! **Why it does not swing.** A step is taken back only while what was measured before it, scaled by how many operations
//! there are now, would fit four fifths of the budget, and so does what is measured now. Where that turns out wrong and
//! the same step has to be taken again soon, the wait before it is taken back doubles.
//!
//! The run time of BPF programs is known from short looks, and one that met a burst may be far too high. Each step waits for
//! a look after the one before, so such a look costs the first step alone.

use std::collections::BTreeMap;
use std::fmt;

/// Slices in a row above the budget after which something is left out.
const OVER: u32 = 3;
/// Slices in a row in which a step would fit the budget again after which it is taken back, at first and at most.
const PATIENCE: u32 = 10;
const MOST_PATIENCE: u32 = 960;
/// Slices after a change of which the figures still tell of the time before: at least, and at most. In between they do
/// until the run time of BPF programs has been looked at anew.
const SETTLING: u32 = 3;
const LONGEST_SETTLING: u32 = 30;
/// The greatest number of operations that one may stand for.
const MOST_ONE_IN: u32 = 1024;

/// What an agent may cost its node. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// CPU time and run time of BPF programs in parts per million of one core.
    pub cpu: Option<u64>,
    /// Memory of the process and of its BPF objects, in bytes.
    pub memory: Option<u64>,
}

/// What a budget is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
}

/// What can be left out, what costs least knowledge first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Fewer slow operations are told one by one, and single operations are not handed over.
    FewerOutliers,
    /// Callers are not told apart.
    CoarserCallers,
    /// Only some operations are counted, for all of them.
    Sampling,
}

/// Something that is left out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shed {
    /// What.
    pub step: Step,
    /// Whose budget was exceeded when it began.
    pub resource: Resource,
    /// When it began, in microseconds since 1970 by the node's clock.
    pub since_unix_microseconds: i64,
    /// With [`Step::Sampling`]: one operation in so many is counted; else 1.
    pub one_in: u32,
}

/// What one slice cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// When it ended, in microseconds since 1970 by the node's clock.
    pub at_unix_microseconds: i64,
    /// CPU time of the process without pinned readers, and the newest known run time of its BPF programs, in parts per
    /// million of one core.
    pub cpu: Option<u64>,
    /// Memory of the process and of its BPF objects, in bytes.
    pub memory: Option<u64>,
    /// Operations per second; an estimate where they are sampled.
    pub operations: u64,
    /// One operation in so many is looked at now, as probes or the budget want it.
    pub one_in: u32,
    /// How often the run time of BPF programs was looked at so far.
    pub looks: u64,
}

/// How the agent measures while it sheds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Fewer slow operations are told one by one, and single operations are not handed over.
    pub fewer_outliers: bool,
    /// Callers are not told apart.
    pub coarser_callers: bool,
    /// One operation in so many is counted.
    pub one_in: u32,
}

/// Decides what is left out.
#[derive(Clone, Debug)]
pub struct Shedding {
    budget: Budget,
    /// Oldest first; the newest is the next to be taken back.
    taken: Vec<Taken>,
    slices: u32,
    /// When something changed last: the slice, and the looks by then.
    changed: Option<(u32, u64)>,
    /// Slices in a row above the budget.
    over: Vec<Figures>,
    /// Slices in a row in which the newest step would fit.
    calm: u32,
    history: BTreeMap<Key, History>,
}

/// A step, with the factor that it brings.
type Key = (Step, u32);

#[derive(Clone, Copy, Debug)]
struct Taken {
    key: Key,
    resource: Resource,
    /// The mean of the slices that led to it.
    before: Figures,
}

/// What is known of a step that was taken back.
#[derive(Clone, Copy, Debug)]
struct History {
    /// In which slice.
    slice: u32,
    patience: u32,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 3] = [Self::FewerOutliers, Self::CoarserCallers, Self::Sampling];

    /// The name: also the type of the condition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FewerOutliers => "FewerOutliers",
            Self::CoarserCallers => "CoarserCallers",
            Self::Sampling => "Sampling",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Resource {
    /// What can be left out for it, in order. Fewer operations take no less memory.
    const fn steps(self) -> &'static [Step] {
        match self {
            Self::Cpu => &Step::ALL,
            Self::Memory => &[Step::CoarserCallers, Step::FewerOutliers],
        }
    }

    /// One word for machines: why a step was taken.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Cpu => "OverCpuBudget",
            Self::Memory => "OverMemoryBudget",
        }
    }

    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
        }
    }
}

impl Shed {
    /// What that means for the figures.
    pub fn meaning(&self) -> String {
        match self.step {
            Step::FewerOutliers => {
                "fewer slow operations are told one by one, and exact figures get no more operations; all counts and \
                 other percentiles stay whole"
                    .to_owned()
            }
            Step::CoarserCallers => {
                "callers are counted, but not told apart; all other figures stay whole".to_owned()
            }
            Step::Sampling => format!(
                "one operation in {} is counted, by chance, for all of them; counts are estimates, and rare slow \
                 operations may be missed",
                self.one_in
            ),
        }
    }
}

impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::Sampling => write!(f, "{} 1/{}", self.step, self.one_in),
            step => step.fmt(f),
        }
    }
}

impl Default for Detail {
    fn default() -> Self {
        Self {
            fewer_outliers: false,
            coarser_callers: false,
            one_in: 1,
        }
    }
}

impl Budget {
    fn of(self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
        }
    }
}

impl Figures {
    fn of(&self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
        }
    }

    fn exceed(&self, budget: Budget, resource: Resource) -> bool {
        let cost = self.of(resource).zip(budget.of(resource));
        cost.is_some_and(|(cost, most)| cost > most)
    }

    fn mean(slices: &[Self]) -> Self {
        let mean = |of: &dyn Fn(&Self) -> Option<u64>| {
            let known: Vec<u64> = slices.iter().filter_map(of).collect();
            let sum = known.iter().fold(0u64, |sum, it| sum.saturating_add(*it));
            sum.checked_div(known.len() as u64)
        };
        let newest = slices.last().copied().unwrap_or_default();
        Self {
            cpu: mean(&|it| it.cpu),
            memory: mean(&|it| it.memory),
            operations: mean(&|it| Some(it.operations)).unwrap_or_default(),
            ..newest
        }
    }
}

impl Taken {
    /// Whether sampling has saved less than a tenth, so that more of it would spoil figures and save nothing. With far
    /// fewer operations than before that cannot be told, nor can they be what costs so much.
    fn was_in_vain(&self, now: &Figures) -> bool {
        let (Step::Sampling, Some(before), Some(cost)) = (self.key.0, self.before.cpu, now.cpu)
        else {
            return false;
        };
        let expected = before.max(self.scaled(before, now));
        now.operations < self.before.operations / 2 || cost > expected / 10 * 9
    }

    /// What came with the operations before, for as many as there are now. What came by itself tells nothing about now.
    fn scaled(&self, value: u64, now: &Figures) -> u64 {
        let product = u128::from(value) * u128::from(now.operations);
        let scaled = product.checked_div(u128::from(self.before.operations));
        scaled.map_or(0, |it| u64::try_from(it).unwrap_or(u64::MAX))
    }

    /// Whether the agent would be well within its budget without this step.
    fn would_fit(&self, budget: Budget, now: &Figures) -> bool {
        let Some(most) = budget.of(self.resource) else {
            return true;
        };
        let (Some(before), Some(cost)) = (self.before.of(self.resource), now.of(self.resource))
        else {
            return false;
        };
        let expected = match self.resource {
            Resource::Cpu => self.scaled(before, now).max(cost),
            // The process itself is there with or without operations.
            Resource::Memory => cost.saturating_add(self.scaled(before.saturating_sub(cost), now)),
        };
        expected <= most - most / 5
    }
}

impl Shedding {
    /// Nothing is left out yet.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            taken: Vec::new(),
            slices: 0,
            changed: None,
            over: Vec::new(),
            calm: 0,
            history: BTreeMap::new(),
        }
    }

    /// The budget.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Takes what a slice cost. Says whether something changed: one step at most.
    pub fn observe(&mut self, figures: &Figures) -> bool {
        self.slices = self.slices.saturating_add(1);
        if !self.is_settled(figures) {
            return false;
        }
        let exceeded = [Resource::Cpu, Resource::Memory]
            .into_iter()
            .filter(|it| figures.exceed(self.budget, *it))
            .find_map(|it| Some((it, self.next(it, figures)?)));
        if let Some((resource, key)) = exceeded {
            self.calm = 0;
            self.over.push(*figures);
            if self.over.len() < OVER as usize {
                return false;
            }
            self.take(key, resource);
            self.change(figures);
            return true;
        }
        self.over.clear();
        let newest = self.taken.last();
        if !newest.is_some_and(|it| it.would_fit(self.budget, figures)) {
            self.calm = 0;
            return false;
        }
        self.calm += 1;
        self.take_back(figures)
    }

    /// How to measure now.
    pub fn detail(&self) -> Detail {
        let has = |step| self.taken.iter().any(|it| it.key.0 == step);
        let factors = self.taken.iter().map(|it| it.key.1);
        Detail {
            fewer_outliers: has(Step::FewerOutliers),
            coarser_callers: has(Step::CoarserCallers),
            one_in: factors.max().unwrap_or(1),
        }
    }

    /// What is left out, each step once.
    pub fn shed(&self) -> Vec<Shed> {
        let of = |step| {
            let first = self.taken.iter().find(|it| it.key.0 == step)?;
            let factors = self.taken.iter().filter(|it| it.key.0 == step);
            Some(Shed {
                step,
                resource: first.resource,
                since_unix_microseconds: first.before.at_unix_microseconds,
                one_in: factors.map(|it| it.key.1).max().unwrap_or(1),
            })
        };
        Step::ALL.into_iter().filter_map(of).collect()
    }

    /// Whether figures tell of the time since the last change.
    fn is_settled(&self, figures: &Figures) -> bool {
        let Some((slice, looks)) = self.changed else {
            return true;
        };
        let passed = self.slices.saturating_sub(slice);
        passed > LONGEST_SETTLING || (passed > SETTLING && figures.looks > looks)
    }

    /// The next that can be left out for a resource.
    fn next(&self, resource: Resource, now: &Figures) -> Option<Key> {
        let detail = self.detail();
        resource.steps().iter().find_map(|step| {
            let one_in = match step {
                Step::FewerOutliers if detail.fewer_outliers => return None,
                Step::CoarserCallers if detail.coarser_callers => return None,
                Step::FewerOutliers | Step::CoarserCallers => 1,
                Step::Sampling if self.taken.last().is_some_and(|it| it.was_in_vain(now)) => {
                    return None;
                }
                Step::Sampling => detail.one_in.max(now.one_in).saturating_mul(2),
            };
            (one_in <= MOST_ONE_IN).then_some((*step, one_in))
        })
    }

    fn take(&mut self, key: Key, resource: Resource) {
        // Taken back in vain: the next time it waits for longer.
        if let Some(it) = self.history.get_mut(&key) {
            let soon = 2 * it.patience + LONGEST_SETTLING;
            it.patience = if self.slices.saturating_sub(it.slice) <= soon {
                (2 * it.patience).min(MOST_PATIENCE)
            } else {
                PATIENCE
            };
        }
        let before = Figures::mean(&self.over);
        self.taken.push(Taken {
            key,
            resource,
            before,
        });
    }

    fn take_back(&mut self, figures: &Figures) -> bool {
        let Some(key) = self.taken.last().map(|it| it.key) else {
            return false;
        };
        let patience = self.history.get(&key).map_or(PATIENCE, |it| it.patience);
        if self.calm < patience {
            return false;
        }
        self.taken.pop();
        let slice = self.slices;
        self.history.insert(key, History { slice, patience });
        self.change(figures);
        true
    }

    fn change(&mut self, figures: &Figures) {
        self.changed = Some((self.slices, figures.looks));
        self.over.clear();
        self.calm = 0;
    }
}

#[cfg(test)]
mod tests;
