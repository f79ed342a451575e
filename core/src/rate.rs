//! How often something may happen: so many at once, and then one per so much time.

use std::time::{Duration, Instant};

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which one more is allowed.
    pub each: Duration,
    /// How many are allowed at once, after a rest.
    pub burst: u32,
}

/// What of a [`Rate`] is used up. Begins full.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes `cost` out, if there is as much. What costs more than the burst never passes.
    pub fn take(&mut self, rate: Rate, cost: u32, now: Instant) -> bool {
        let from = self.full_at.map_or(now, |it| it.max(now));
        let Some(full_at) = rate
            .each
            .checked_mul(cost)
            .and_then(|it| from.checked_add(it))
        else {
            return false;
        };
        let fits = full_at.duration_since(now) <= rate.each.saturating_mul(rate.burst);
        if fits {
            self.full_at = Some(full_at);
        }
        fits
    }

    /// Whether nothing is used up, so that a new one would be the same.
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|it| it <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        each: Duration::from_millis(100),
        burst: 5,
    };

    #[test]
    fn a_burst_passes_and_then_one_per_time() {
        let (mut bucket, begin) = (Bucket::default(), Instant::now());
        let passed = (0..100).filter(|_| bucket.take(RATE, 1, begin)).count();
        assert_eq!(passed, 5);

        let later = begin + Duration::from_millis(200);
        let passed = (0..100).filter(|_| bucket.take(RATE, 1, later)).count();
        assert_eq!(passed, 2);
    }

    #[test]
    fn what_is_refused_costs_nothing_and_a_rest_fills_up_to_the_burst_alone() {
        let (mut bucket, begin) = (Bucket::default(), Instant::now());
        assert!(!bucket.take(RATE, 6, begin), "more than the burst");
        assert!(!bucket.take(RATE, u32::MAX, begin));
        assert!(bucket.is_full(begin));
        assert!(bucket.take(RATE, 5, begin));
        assert!(!bucket.is_full(begin));

        let much_later = begin + Duration::from_hours(1);
        assert!(bucket.is_full(much_later));
        let passed = (0..100)
            .filter(|_| bucket.take(RATE, 1, much_later))
            .count();
        assert_eq!(passed, 5);
    }
}
