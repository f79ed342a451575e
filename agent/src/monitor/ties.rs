//! What ties maps to user space, looked at only while a probe selects by it.

use std::time::Duration;

use maplatency_core::validate::{CheckedSpec, Ties};

use crate::discover::Pins;
use crate::engine::{Engine, Holders};
use crate::error::chain;

/// Between two looks at least, so that a new list of probes right after a slice costs none.
const REST: Duration = Duration::from_millis(500);

/// The pins and holders of all maps.
#[derive(Debug, Default)]
pub(super) struct AllTies {
    pins: Look<Pins>,
    holders: Look<Holders>,
}

/// What one kind of look brought.
#[derive(Debug, Default)]
struct Look<T> {
    at: Option<Duration>,
    seen: T,
    problem: Option<String>,
}

impl<T: Default> Look<T> {
    /// Whether to look now. What nobody asks for any more is let go.
    fn is_due(&mut self, is_needed: bool, now: Duration) -> bool {
        if !is_needed {
            *self = Self::default();
            return false;
        }
        let is_due = self.at.is_none_or(|at| now.saturating_sub(at) >= REST);
        if is_due {
            self.at = Some(now);
        }
        is_due
    }
}

impl AllTies {
    /// Looks at what the specs ask for.
    pub(super) fn refresh<'a, I: Iterator<Item = &'a CheckedSpec>>(
        &mut self,
        specs: impl Fn() -> I,
        engine: &mut Engine,
        now: Duration,
    ) {
        if self.pins.is_due(specs().any(CheckedSpec::needs_pins), now) {
            let answer = self.pins.seen.refresh();
            self.pins.problem = answer.err().map(|it| problem("pinPaths", &it));
        }
        if self
            .holders
            .is_due(specs().any(CheckedSpec::needs_holders), now)
        {
            let (seen, error) = engine.holders();
            // After a failed look the last one stands.
            self.holders.seen = seen.unwrap_or_else(|| std::mem::take(&mut self.holders.seen));
            self.holders.problem = error.map(|it| problem("heldBy", &it));
        }
    }

    /// Those of one map.
    pub(super) fn of(&self, map_id: u32) -> Ties<'_> {
        Ties {
            pins: self.pins.seen.of(map_id),
            holders: self.holders.seen.get(&map_id).map_or(&[], Vec::as_slice),
        }
    }

    /// What keeps a spec from matching all that it asks for.
    pub(super) fn problems(&self, spec: &CheckedSpec) -> Vec<String> {
        let pins = spec.needs_pins().then_some(&self.pins.problem);
        let holders = spec.needs_holders().then_some(&self.holders.problem);
        let both = [pins, holders];
        both.into_iter().flatten().flatten().cloned().collect()
    }
}

fn problem(field: &str, error: &(dyn std::error::Error + 'static)) -> String {
    format!("spec.maps[].{field}: {}", chain(error))
}
