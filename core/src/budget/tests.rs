//! Steps and their way back, driven by given costs.

use super::*;

const CPU: Budget = Budget {
    cpu: Some(10_000),
    memory: None,
};

/// An agent whose hooks cost in proportion to the operations that they look at, and that looks at itself every ten
/// slices.
struct Agent {
    shedding: Shedding,
    slices: u64,
    changes: Vec<(u64, Detail)>,
}

impl Agent {
    fn new(budget: Budget) -> Self {
        Self {
            shedding: Shedding::new(budget),
            slices: 0,
            changes: vec![],
        }
    }

    /// `cost` tells CPU and memory of a slice by how the agent measures.
    fn run(&mut self, slices: u64, operations: u64, cost: impl Fn(Detail) -> (u64, u64)) {
        for _ in 0..slices {
            self.slices += 1;
            let (cpu, memory) = cost(self.shedding.detail());
            let figures = Figures {
                at_unix_microseconds: i64::try_from(self.slices).unwrap(),
                cpu: Some(cpu),
                memory: Some(memory),
                operations,
                looks: self.slices / 10,
                one_in: self.shedding.detail().one_in,
            };
            if self.shedding.observe(&figures) {
                self.changes.push((self.slices, self.shedding.detail()));
            }
        }
    }

    fn steps(&self) -> Vec<(Step, u32)> {
        let shed = self.shedding.shed();
        shed.iter().map(|it| (it.step, it.one_in)).collect()
    }
}

/// 1,000 for the process, and 1 for each operation that is looked at.
fn hooks(operations: u64) -> impl Fn(Detail) -> (u64, u64) {
    move |it| (1_000 + operations / u64::from(it.one_in), 0)
}

#[test]
fn within_the_budget_nothing_is_left_out() {
    let mut agent = Agent::new(CPU);
    agent.run(1_000, 9_000, hooks(9_000));
    assert_eq!((agent.changes.len(), agent.steps()), (0, vec![]));
}

#[test]
fn without_a_budget_nothing_is_left_out() {
    let mut agent = Agent::new(Budget::default());
    agent.run(1_000, u64::MAX, |_| (u64::MAX, u64::MAX));
    assert_eq!(agent.changes.len(), 0);
}

#[test]
fn a_slice_or_two_above_the_budget_are_borne() {
    let mut agent = Agent::new(CPU);
    for _ in 0..100 {
        agent.run(2, 90_000, hooks(90_000));
        agent.run(1, 100, hooks(100));
    }
    assert_eq!(agent.changes.len(), 0);
}

#[test]
fn steps_come_one_at_a_time_until_the_budget_holds() {
    let mut agent = Agent::new(CPU);
    agent.run(400, 60_000, hooks(60_000));
    // 1,000 + 60,000 / 8 fits.
    let expected = [
        (Step::FewerOutliers, 1),
        (Step::CoarserCallers, 1),
        (Step::Sampling, 8),
    ];
    assert_eq!(agent.steps(), expected);
    let factors: Vec<u32> = agent.changes.iter().map(|it| it.1.one_in).collect();
    assert_eq!(factors, [1, 1, 2, 4, 8], "{:?}", agent.changes);
    for pair in agent.changes.windows(2) {
        let (earlier, later) = (pair[0].0, pair[1].0);
        assert!(later / 10 > earlier / 10, "no look between {pair:?}");
    }
}

#[test]
fn each_step_says_why_and_since_when() {
    let mut agent = Agent::new(CPU);
    agent.run(3, 60_000, hooks(60_000));
    let expected = Shed {
        step: Step::FewerOutliers,
        resource: Resource::Cpu,
        since_unix_microseconds: 3,
        one_in: 1,
    };
    assert_eq!(agent.shedding.shed(), [expected]);
}

#[test]
fn a_steady_load_is_shed_once_and_for_all() {
    let mut agent = Agent::new(CPU);
    // By sampling half it costs 5,500, which is far within the budget; only the cost before tells that it must stay.
    agent.run(20_000, 9_001, |it| {
        (1_000 + 9_001 / u64::from(it.one_in), 0)
    });
    assert_eq!(agent.changes.len(), 3, "{:?}", agent.changes);
}

#[test]
fn when_the_load_ends_the_steps_go_one_by_one() {
    let mut agent = Agent::new(CPU);
    agent.run(400, 60_000, hooks(60_000));
    let taken = agent.changes.len();
    agent.run(400, 500, hooks(500));
    assert_eq!(agent.steps(), []);
    assert_eq!(agent.shedding.detail(), Detail::default());
    assert_eq!(agent.changes.len(), 2 * taken, "{:?}", agent.changes);
    for pair in agent.changes[taken..].windows(2) {
        assert!(pair[1].0 - pair[0].0 >= u64::from(PATIENCE), "{pair:?}");
    }
}

#[test]
fn half_the_load_takes_back_only_what_fits() {
    let mut agent = Agent::new(CPU);
    agent.run(400, 60_000, hooks(60_000));
    agent.run(4_000, 12_000, hooks(12_000));
    // 1,000 + 12,000 / 2 fits, and the whole does not.
    assert_eq!(agent.steps().last(), Some(&(Step::Sampling, 2)));
}

#[test]
fn a_load_that_comes_and_goes_is_answered_ever_more_seldom() {
    // What is left out saves all of the cost, and the rate of operations tells nothing about it.
    let mut agent = Agent::new(CPU);
    let cost = |it: Detail| (if it.fewer_outliers { 100 } else { 11_000 }, 0);
    agent.run(10_000, 0, cost);
    let early = agent.changes.iter().filter(|it| it.0 <= 1_000).count();
    let late = agent.changes.iter().filter(|it| it.0 > 9_000).count();
    assert!(early <= 14 && late <= 3, "{early} and {late} changes");
}

#[test]
fn sampling_ends_where_it_saves_less_than_a_tenth() {
    let mut agent = Agent::new(Budget {
        cpu: Some(900),
        ..CPU
    });
    agent.run(5_000, 60_000, hooks(60_000));
    // 1 in 256 costs 1,234, and 1 in 512 still 1,117.
    assert_eq!(agent.steps().last(), Some(&(Step::Sampling, 512)));
    // The agent costs more than its budget without any operation.
    agent.run(5_000, 0, hooks(0));
    assert_eq!(agent.steps().last(), Some(&(Step::Sampling, 512)));
    assert_eq!(agent.changes.len(), 11, "and it stays there");
}

#[test]
fn what_operations_do_not_cost_is_no_reason_to_sample_more() {
    let mut agent = Agent::new(CPU);
    agent.run(2_000, 60_000, |_| (90_000, 0));
    assert_eq!(agent.steps().last(), Some(&(Step::Sampling, 2)));
    // Later they do.
    agent.run(2_000, 6_000_000, |it| {
        (90_000 + 6_000_000 / u64::from(it.one_in), 0)
    });
    assert!(agent.shedding.detail().one_in >= 64, "{:?}", agent.steps());
}

#[test]
fn sampling_goes_on_from_what_probes_ask_for() {
    let mut shedding = Shedding::new(CPU);
    let mut factors = Vec::new();
    for looks in 0..100 {
        let one_in = shedding.detail().one_in.max(64);
        let figures = Figures {
            cpu: Some(1_000_000 / u64::from(one_in)),
            operations: 1,
            one_in,
            looks,
            ..Figures::default()
        };
        if shedding.observe(&figures) {
            factors.push(shedding.detail().one_in);
        }
    }
    assert_eq!(factors, [1, 1, 128]);
}

#[test]
fn for_memory_callers_go_first_and_operations_are_never_sampled() {
    let memory = Budget {
        cpu: None,
        memory: Some(30),
    };
    let mut agent = Agent::new(memory);
    agent.run(100, 1_000, |it| {
        (0, if it.coarser_callers { 20 } else { 40 })
    });
    assert_eq!(agent.steps(), [(Step::CoarserCallers, 1)]);
    assert_eq!(agent.shedding.shed()[0].resource, Resource::Memory);

    // The callers are gone: what they took scales with what they do.
    agent.run(100, 100, |_| (0, 20));
    assert_eq!(agent.steps(), []);

    agent.run(1_000, 1_000, |_| (u64::MAX, 40));
    let all = [(Step::FewerOutliers, 1), (Step::CoarserCallers, 1)];
    assert_eq!(agent.steps(), all);
}

#[test]
fn a_figure_that_is_not_known_changes_nothing() {
    let mut shedding = Shedding::new(CPU);
    for looks in 0..100 {
        let figures = Figures {
            looks,
            ..Figures::default()
        };
        assert!(!shedding.observe(&figures));
    }
}

#[test]
fn an_agent_that_cannot_look_at_its_programs_sheds_all_the_same() {
    let mut shedding = Shedding::new(CPU);
    let figures = Figures {
        cpu: Some(90_000),
        operations: 1,
        ..Figures::default()
    };
    let changes = (0..1_000).filter(|_| shedding.observe(&figures)).count();
    assert_eq!(changes, 3);
}
