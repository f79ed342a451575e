//! How long to wait before the next attempt.
//!
//! Full jitter: uniformly random between nothing and a ceiling that doubles. After a restart of the operator the
//! agents of a large cluster so come back spread over the whole time, and not in waves.

use std::time::Duration;

use maplatency_proto::MAX_RECONNECT_WAIT;
use rand::Rng;

/// Ceiling of the first wait.
pub const BASE: Duration = Duration::from_millis(500);

/// Counts the failures since the last success.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub fn next(&mut self, random: &mut impl Rng) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        random.random_range(Duration::ZERO..=ceiling)
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    fn ceiling(self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        BASE.saturating_mul(factor).min(MAX_RECONNECT_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_begins_anew_after_a_success() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        let mut ceilings = Vec::new();
        for _ in 0..100 {
            ceilings.push(backoff.ceiling().as_millis());
            backoff.next(&mut random);
        }
        assert_eq!(
            ceilings[..7],
            [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]
        );
        assert_eq!(ceilings[99], 15_000);

        backoff.reset();
        assert_eq!(backoff.ceiling(), BASE);
    }

    #[test]
    fn waits_spread_evenly_between_nothing_and_the_ceiling() {
        let mut random = SmallRng::seed_from_u64(2);
        let waits: Vec<Duration> = (0..10_000)
            .map(|_| Backoff { failures: 9 }.next(&mut random))
            .collect();

        assert!(waits.iter().all(|it| *it <= MAX_RECONNECT_WAIT));
        for quarter in 0..4 {
            let (from, to) = (
                MAX_RECONNECT_WAIT / 4 * quarter,
                MAX_RECONNECT_WAIT / 4 * (quarter + 1),
            );
            let share = waits.iter().filter(|it| (from..to).contains(it)).count();
            assert!(
                (2_300..2_700).contains(&share),
                "{share} of 10,000 within {from:?} to {to:?}"
            );
        }
    }
}
