//! How often a probe's status is computed and written.
//!
//! At most every [`PERIOD`], with two exceptions that a user waits for: the answer to a new generation, and the
//! first figures of it. What agents cost is written with the rest, and by itself only every [`COSTS_PERIOD`].

use std::time::{Duration, Instant};

use maplatency_core::MapLatencyProbeStatus;

/// Between two writes.
pub(super) const PERIOD: Duration = Duration::from_secs(5);
/// Between two writes where nothing has changed but what agents cost.
const COSTS_PERIOD: Duration = Duration::from_mins(1);

/// What was done for one probe so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    /// The generation that was answered.
    generation: Option<i64>,
    /// Whether figures of it were written.
    figures: bool,
    written: Option<Instant>,
    /// When the status was last computed, and at which version of the fleet.
    looked: Option<(Instant, u64)>,
}

impl Pace {
    /// Whether computing the status could lead to a write.
    pub(super) fn is_worth_a_look(&self, generation: i64, version: u64, now: Instant) -> bool {
        if !self.has_answered(generation) {
            return true;
        }
        // Without news from agents only time passes, and rows leave the window.
        let news = self
            .looked
            .is_none_or(|(at, seen)| seen != version || now.duration_since(at) >= PERIOD);
        news && (!self.figures || self.is_due(now))
    }

    /// Whether this operator has written a status of the generation.
    pub(super) fn has_answered(&self, generation: i64) -> bool {
        self.generation == Some(generation)
    }

    pub(super) fn looked(&mut self, version: u64, now: Instant) {
        self.looked = Some((now, version));
    }

    /// Whether this status, which differs from the one written, may be written now.
    pub(super) fn may_write(&self, status: &MapLatencyProbeStatus, now: Instant) -> bool {
        let new_generation = self.generation != status.observed_generation;
        let first_figures = !self.figures && has_figures(status);
        new_generation || first_figures || self.is_due(now)
    }

    /// Whether a status may be written that tells nothing new but what agents cost. On a quiet cluster that is the
    /// only thing that changes.
    pub(super) fn may_write_costs(&self, now: Instant) -> bool {
        self.written
            .is_none_or(|it| now.duration_since(it) >= COSTS_PERIOD)
    }

    pub(super) fn wrote(&mut self, status: &MapLatencyProbeStatus, now: Instant) {
        let same = self.generation == status.observed_generation;
        self.figures = has_figures(status) || same && self.figures;
        self.generation = status.observed_generation;
        self.written = Some(now);
        // What changed while the write was held back has not been looked at.
        self.looked = None;
    }

    fn is_due(&self, now: Instant) -> bool {
        self.written
            .is_none_or(|it| now.duration_since(it) >= PERIOD)
    }
}

fn has_figures(status: &MapLatencyProbeStatus) -> bool {
    !status.operations.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use maplatency_core::Operation;
    use maplatency_core::crd::status::OperationStatus;

    fn status(generation: i64, count: i64) -> MapLatencyProbeStatus {
        let operation = OperationStatus {
            operation: Operation::Lookup,
            count,
            until_user: None,
            kernel_window: None,
            outcomes: vec![],
            entries: None,
            moved: 0,
            worst_second: None,
            active: None,
        };
        MapLatencyProbeStatus {
            observed_generation: Some(generation),
            operations: (count > 0).then_some(operation).into_iter().collect(),
            ..MapLatencyProbeStatus::default()
        }
    }

    fn after(begin: Instant, milliseconds: u64) -> Instant {
        begin + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_new_generation_and_its_first_figures_do_not_wait() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.may_write(&status(1, 0), begin));
        pace.wrote(&status(1, 0), begin);

        assert!(!pace.may_write(&status(1, 0), after(begin, 900)));
        assert!(pace.may_write(&status(1, 7), after(begin, 900)));
        pace.wrote(&status(1, 7), after(begin, 900));

        assert!(!pace.may_write(&status(1, 8), after(begin, 5_800)));
        assert!(pace.may_write(&status(1, 8), after(begin, 5_900)));
        assert!(pace.may_write(&status(2, 0), after(begin, 1_000)));
    }

    #[test]
    fn figures_that_come_and_go_do_not_hurry_a_write() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        pace.wrote(&status(1, 7), begin);
        pace.wrote(&status(1, 0), after(begin, 5_000));
        assert!(!pace.may_write(&status(1, 7), after(begin, 6_000)));
    }

    #[test]
    fn what_agents_cost_is_written_once_a_minute_by_itself() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.may_write_costs(begin));
        pace.wrote(&status(1, 7), begin);
        assert!(!pace.may_write_costs(after(begin, 59_999)));
        assert!(pace.may_write_costs(after(begin, 60_000)));
    }

    #[test]
    fn without_news_a_look_waits_for_rows_to_leave_the_window() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        assert!(pace.is_worth_a_look(1, 10, begin));
        pace.wrote(&status(1, 7), begin);
        assert!(!pace.is_worth_a_look(1, 11, after(begin, 1_000)));
        assert!(pace.is_worth_a_look(2, 11, after(begin, 1_000)));
        assert!(pace.is_worth_a_look(1, 11, after(begin, 5_000)));
        pace.looked(11, after(begin, 5_000));
        assert!(!pace.is_worth_a_look(1, 11, after(begin, 6_000)));
        assert!(pace.is_worth_a_look(1, 12, after(begin, 6_000)));
        assert!(pace.is_worth_a_look(1, 11, after(begin, 10_000)));
    }
}
