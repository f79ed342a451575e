//! Regular times among others: a comb whose teeth fit.
//!
//! On a busy machine others come between spikes that come at regular times, so the times between neighbours tell nothing. A
//! comb begins at one time and goes back by a period, again and again from where the last one was. It is told if nearly all
//! of its teeth meet a time, and if so many would hardly do so by chance.

/// A tooth meets a time that is no further from it than the period divided by this.
const TOLERANCE: u64 = 32;
/// Times that a comb meets at least.
const LEAST: usize = 5;
/// Teeth in a row that meet nothing; beyond, the comb ends before them.
const MISSED: u64 = 3;
/// Combs begin at one of so many newest times,
const NEWEST: usize = 16;
/// and their period is the distance to one of so many times before it.
const BEFORE: usize = 6;
/// How probable it may be that some comb of times by chance is told.
const CHANCE: f64 = 1e-3;

/// Those of the times, which rise, that a comb meets, and its period. Of several combs the one that meets most.
pub(super) fn regular_among(times: &[u64]) -> Option<(Vec<u64>, u64)> {
    let anchors = (0..times.len()).rev().take(NEWEST);
    let combs = anchors.flat_map(|at| {
        let before = (0..at).rev().take(BEFORE);
        before.filter_map(move |it| Comb::of(&times[..=at], times[at] - times[it]))
    });
    let best = combs
        .filter(|it| it.is_told(times))
        .max_by_key(|it| (it.met.len(), std::cmp::Reverse(it.teeth)))?;
    let Comb { mut met, teeth, .. } = best;
    met.reverse();
    let whole = met.last()?.checked_sub(*met.first()?)?;
    Some((met, whole / (teeth - 1).max(1)))
}

/// A comb, from its newest tooth on.
#[derive(Debug)]
struct Comb {
    period: u64,
    /// The times that it meets.
    met: Vec<u64>,
    /// From the newest time that it meets to the oldest.
    teeth: u64,
}

impl Comb {
    /// From the last of the times back.
    fn of(times: &[u64], period: u64) -> Option<Self> {
        let mut newest = *times.last()?;
        let mut comb = Self {
            period,
            met: vec![newest],
            teeth: 1,
        };
        let mut steps = 1;
        while period > 0 && steps <= MISSED + 1 {
            let Some(tooth) = newest.checked_sub(period * steps) else {
                break;
            };
            match nearest(times, tooth).filter(|it| it.abs_diff(tooth) <= period / TOLERANCE) {
                Some(time) => {
                    comb.met.push(time);
                    comb.teeth += steps;
                    newest = time;
                    steps = 1;
                }
                None => steps += 1,
            }
        }
        Some(comb)
    }

    fn is_told(&self, times: &[u64]) -> bool {
        let met = self.met.len() as u64;
        self.met.len() >= LEAST && met * 5 >= self.teeth * 4 && self.chance(times) < CHANCE
    }

    /// About how probable it is that one of the combs that were tried meets as many of times that fell by chance.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of times within minutes, and an estimate"
    )]
    fn chance(&self, times: &[u64]) -> f64 {
        let (Some(first), Some(last)) = (times.first(), times.last()) else {
            return 1.0;
        };
        let within = 2.0 * (self.period / TOLERANCE) as f64 * times.len() as f64;
        // That one tooth meets a time.
        let one = within / (last - first).max(1) as f64;
        // Two of them made the comb.
        let free = self.teeth.saturating_sub(2);
        let met = (self.met.len() as u64).saturating_sub(2);
        let ways: f64 = (met..free)
            .map(|it| (it + 1) as f64 / (it - met + 1) as f64)
            .product();
        let tried = (NEWEST.min(times.len()) * BEFORE) as f64;
        tried * ways * one.min(1.0).powi(i32::try_from(met).unwrap_or(i32::MAX))
    }
}

/// The time that is nearest. The times rise.
fn nearest(times: &[u64], to: u64) -> Option<u64> {
    let after = times.partition_point(|it| *it < to);
    let around = &times[after.saturating_sub(1)..times.len().min(after + 1)];
    around.iter().copied().min_by_key(|it| it.abs_diff(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn milliseconds(times: &[u64]) -> Vec<u64> {
        times.iter().map(|it| it * MILLISECOND).collect()
    }

    /// When spikes of at least 10 ms began on a machine with a cluster of nodes, where a map was rewritten every 4 s.
    const RECORDED: [u64; 23] = [
        3, 1_082, 5_019, 8_147, 9_013, 13_013, 15_371, 17_013, 20_024, 21_013, 25_019, 29_013,
        30_919, 31_011, 33_013, 37_013, 40_007, 41_019, 45_019, 46_571, 49_013, 53_013, 57_027,
    ];

    const REWRITES: [u64; 14] = [
        5_019, 9_013, 13_013, 17_013, 21_013, 25_019, 29_013, 33_013, 37_013, 41_019, 45_019,
        49_013, 53_013, 57_027,
    ];

    #[test]
    fn a_rewrite_every_four_seconds_is_found_among_the_spikes_of_others() {
        let times = milliseconds(&RECORDED);
        let (regular, period) = regular_among(&times).unwrap();
        assert!(
            period.abs_diff(4_000 * MILLISECOND) < 5 * MILLISECOND,
            "{period}"
        );
        let regular: Vec<u64> = regular.iter().map(|it| it / MILLISECOND).collect();
        // What began a second earlier hid the first one.
        assert_eq!(regular, [&[1_082], &REWRITES[..]].concat());
    }

    /// A generator of Lehmer's kind, as good as is needed here.
    fn random(state: &mut u64) -> u64 {
        *state = *state * 48_271 % 0x7fff_ffff;
        *state
    }

    #[test]
    fn times_by_chance_are_hardly_ever_regular() {
        let mut state = 7;
        let mut told = 0;
        for round in 0..4_000 {
            let mut times: Vec<u64> = (0..5 + round % 40)
                .map(|_| random(&mut state) % 60_000)
                .collect();
            times.sort_unstable();
            times.dedup();
            told += u32::from(regular_among(&milliseconds(&times)).is_some());
        }
        assert!(told <= 8, "{told} of 4000");
    }

    #[test]
    fn some_that_are_missing_and_some_drift_do_not_matter() {
        let mut times = Vec::new();
        let mut at = 500;
        for number in 0..30_u64 {
            // Each comes a second after the end of the last one, which takes a while.
            at += 1_000 + number % 3 * 10;
            if number % 7 != 3 {
                times.push(at);
            }
            if number % 4 == 0 {
                times.push(at + 333 + number * 7 % 200);
            }
        }
        let times = milliseconds(&times);
        let (regular, period) = regular_among(&times).unwrap();
        assert!(
            period.abs_diff(1_010 * MILLISECOND) < 5 * MILLISECOND,
            "{period}"
        );
        assert!(regular.len() >= 25, "{}", regular.len());
    }

    #[test]
    fn few_or_none_have_no_period() {
        assert_eq!(regular_among(&[]), None);
        assert_eq!(regular_among(&[5]), None);
        assert_eq!(
            regular_among(&milliseconds(&[0, 4_000, 8_000, 12_000])),
            None
        );
        assert_eq!(regular_among(&[7; 9]), None);
    }
}
