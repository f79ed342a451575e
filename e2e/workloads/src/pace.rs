//! The schedule of a paced reader.

use crate::clock::{MILLISECOND, SECOND};

/// How far behind its schedule a reader may be and still catch up, unless a period is longer.
pub(crate) const CATCH_UP: u64 = MILLISECOND;

/// An absolute schedule: read `n` is due at `origin + n / rate`, however long the reads take.
///
/// A reader that is up to [`CATCH_UP`] behind reads on without waiting until it has caught up.
/// What lies further back would only be a burst that no real program makes, so the whole backlog
/// is skipped, and counted.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    due: u64,
    rate: u64,
    /// The part of the last nanosecond, in units of `1 / rate`, that `due` leaves out.
    remainder: u64,
    catch_up: u64,
    skipped: u64,
}

impl Pacer {
    /// A schedule of `rate` reads per second that begins at `origin`. The rate is not zero.
    pub(crate) fn new(origin: u64, rate: u64) -> Self {
        Self {
            due: origin,
            rate,
            remainder: 0,
            catch_up: CATCH_UP.max(SECOND / rate),
            skipped: 0,
        }
    }

    /// When the next read is due.
    #[inline]
    pub(crate) fn due(&self) -> u64 {
        self.due
    }

    /// How many reads were skipped so far.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Turns to the next read after one that ended at `now`.
    #[inline]
    pub(crate) fn advance(&mut self, now: u64) {
        self.step();
        if now > self.due + self.catch_up {
            self.skip_to(now);
        }
    }

    #[inline]
    fn step(&mut self) {
        self.due += SECOND / self.rate;
        self.remainder += SECOND % self.rate;
        if self.remainder >= self.rate {
            self.remainder -= self.rate;
            self.due += 1;
        }
    }

    /// Skips every read that is due before `now`.
    #[cold]
    pub(crate) fn skip_to(&mut self, now: u64) {
        while self.due < now {
            self.step();
            self.skipped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_does_not_divide_a_second_loses_no_time() {
        let mut pacer = Pacer::new(1_000, 30_000);

        for _ in 0..30_000 {
            pacer.advance(0);
        }

        assert_eq!(pacer.due(), 1_000 + SECOND);
        assert_eq!(pacer.skipped(), 0);
    }

    #[test]
    fn slow_reads_do_not_shift_the_schedule() {
        let mut pacer = Pacer::new(0, 50_000);

        pacer.advance(700_000);

        assert_eq!((pacer.due(), pacer.skipped()), (20_000, 0));
    }

    #[test]
    fn a_long_stall_is_skipped_and_not_made_up_for_in_a_burst() {
        let mut pacer = Pacer::new(0, 50_000);

        pacer.advance(4_000_010);

        assert_eq!(pacer.due(), 4_020_000, "the next slot of the same schedule");
        assert_eq!(pacer.skipped(), 200);
    }

    #[test]
    fn a_slow_schedule_may_be_one_period_behind() {
        let mut pacer = Pacer::new(0, 10);

        pacer.advance(150_000_000);
        assert_eq!((pacer.due(), pacer.skipped()), (100_000_000, 0));

        pacer.advance(550_000_000);
        assert_eq!((pacer.due(), pacer.skipped()), (600_000_000, 4));
    }
}
