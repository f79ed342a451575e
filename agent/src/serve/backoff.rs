//! How long to wait before the next attempt.
//!
//! Full jitter: uniformly random between nothing and a ceiling. After a restart of the operator the agents of a large
//! cluster so come back spread over the whole time, and not in waves.
//!
//! The ceiling stays at [`HASTY_WAIT`] for the first [`HASTE`], in which a new leader is to be expected: it takes over 7 s
//! after the old one has died at the latest, and has its agents within 10 s. Whatever takes longer is an outage, and the
//! ceiling doubles up to [`MAX_RECONNECT_WAIT`].

use std::time::{Duration, Instant};

use maplatency_proto::MAX_RECONNECT_WAIT;
use rand::Rng;

/// Ceiling of the first wait.
pub const BASE: Duration = Duration::from_millis(500);
/// Ceiling while a new leader is to be expected.
pub const HASTY_WAIT: Duration = Duration::from_secs(1);
/// For how long that is, from the first failure on.
pub const HASTE: Duration = Duration::from_secs(20);

/// Remembers the failures since the last success.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    since: Option<Instant>,
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            since: None,
            ceiling: BASE,
        }
    }
}

impl Backoff {
    /// The wait after one more failure.
    pub fn next(&mut self, now: Instant, random: &mut impl Rng) -> Duration {
        let since = *self.since.get_or_insert(now);
        let is_hasty = now.saturating_duration_since(since) < HASTE;
        let most = if is_hasty {
            HASTY_WAIT
        } else {
            MAX_RECONNECT_WAIT
        };
        let ceiling = self.ceiling.min(most);
        self.ceiling = (ceiling * 2).min(most);
        random.random_range(Duration::ZERO..=ceiling)
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    /// The ceiling of each wait, where failures come so far apart.
    fn ceilings(milliseconds: u64, number: usize) -> Vec<u128> {
        let (mut random, mut backoff) = (SmallRng::seed_from_u64(1), Backoff::default());
        let begin = Instant::now();
        let times = (0..).step_by(usize::try_from(milliseconds).unwrap());
        times
            .take(number)
            .map(|at| {
                let mut longest = Duration::ZERO;
                let now = begin + Duration::from_millis(at);
                for _ in 0..200 {
                    longest = longest.max({ backoff }.next(now, &mut random));
                }
                backoff.next(now, &mut random);
                longest.as_millis().next_multiple_of(500)
            })
            .collect()
    }

    #[test]
    fn while_a_new_leader_is_to_be_expected_no_wait_is_longer_than_a_second() {
        let waits = ceilings(500, 40);
        assert_eq!(waits[..3], [500, 1_000, 1_000]);
        assert!(waits.iter().all(|it| *it <= 1_000), "{waits:?}");
    }

    #[test]
    fn in_an_outage_the_ceiling_doubles_up_to_the_cap() {
        let waits = ceilings(10_000, 9);
        assert_eq!(waits[..2], [500, 1_000]);
        assert_eq!(waits[2..6], [1_000, 2_000, 4_000, 8_000]);
        assert_eq!(waits[6..], [15_000, 15_000, 15_000]);
    }

    #[test]
    fn a_success_makes_the_next_failure_the_first() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        let begin = Instant::now();
        for second in 0..100 {
            backoff.next(begin + Duration::from_secs(second), &mut random);
        }
        backoff.reset();
        let wait = backoff.next(begin + Duration::from_secs(100), &mut random);
        assert!(wait <= BASE, "{wait:?}");
    }

    #[test]
    fn waits_spread_evenly_between_nothing_and_the_ceiling() {
        let mut random = SmallRng::seed_from_u64(2);
        let now = Instant::now();
        let late = Backoff {
            since: Some(now),
            ceiling: MAX_RECONNECT_WAIT,
        };
        let waits: Vec<Duration> = (0..10_000)
            .map(|_| { late }.next(now + HASTE, &mut random))
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
