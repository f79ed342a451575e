//! The comparison as text.

use std::fmt::{self, Write as _};

use super::{Figures, Load, PERCENTILES, Reader, Row};
use crate::stats::{median, signed_spread, spread};

impl Figures {
    pub(super) fn write(&self, text: &mut String) -> fmt::Result {
        write!(
            text,
            "## Until user, against the caller's own clock

`maplatency-workload` times each of its reads, and its exact percentiles are the truth. Between its clock and the hooks lie
two halves of reading the clock, and the way into and out of the kernel up to the hooks. No hook can see these, so they are
taken as a constant: by how much the caller's median is above that of the probes, of a quiet reader of short values at the
beginning of each round.

A difference is that of the probes' percentile and the constant to the caller's percentile, as a share of the latter: the
median of {} rounds, and in brackets the smallest and the largest. The aim is 1 %. The buckets of the histogram alone make
up to 0.79 %. The rank is that of the caller's percentile among the probes' figures: where values rise steeply from rank to
rank, as beside hogs (threads that keep the reader's CPU busy in bursts) from P99 on, a large difference may be a small one of ranks.
",
            self.rounds
        )?;
        text.push_str("\n| Tier | the constant, ns |\n|---|---|\n");
        for it in &self.tiers {
            writeln!(text, "| {} | {} |", it.tier, spread(&it.constant, 0))?;
        }
        text.push_str(
            "
| Tier | Reader | | | caller, µs | difference, % | difference, ns | rank |
|---|---|---|---|---|---|---|---|
",
        );
        for row in &self.rows {
            self.differences(text, row)?;
        }
        self.explain(text)?;
        self.kernel_window(text)?;
        if !self.absent.is_empty() {
            text.push_str("\n### Not measured\n\n");
            for it in &self.absent {
                writeln!(text, "- {it}")?;
            }
        }
        Ok(())
    }

    fn differences(&self, text: &mut String, row: &Row) -> fmt::Result {
        let constants = self.tiers.iter().find(|it| it.tier == row.tier);
        let constants = constants
            .map(|it| it.constant.as_slice())
            .unwrap_or_default();
        for (index, (name, _)) in PERCENTILES.iter().enumerate() {
            let (caller, probes) = (&row.caller[index], &row.until_user[index]);
            let by = differences(caller, probes, constants);
            let shares: Vec<f64> = by
                .iter()
                .zip(caller)
                .map(|(by, of)| 100.0 * by / of)
                .collect();
            writeln!(
                text,
                "| {} | {} | {} | {name}{} | {:.2} | {} | {} | {:.2} |",
                row.tier,
                row.reader.as_str(),
                row.load.as_str(),
                if row.is_comparable(index) { "" } else { " \\*" },
                median(caller) / 1e3,
                signed_spread(&shares, 2),
                signed_spread(&by, 0),
                median(&row.rank[index]),
            )?;
        }
        Ok(())
    }

    fn explain(&self, text: &mut String) -> fmt::Result {
        let bare = |reader| {
            let row = self.unmeasured.iter().find(|it| it.reader == reader);
            row.map(|it| median(&it.bare_call))
        };
        let cold = bare(Reader::Long).zip(bare(Reader::Short));
        let cold = cold.map_or("longer".to_owned(), |(cold, warm)| {
            format!("{:+.0} ns", cold - warm)
        });
        writeln!(
            text,
            "
\\* P99 and P99.9 of short reads alone, and P90 and above of them beside hogs, are interrupts and switches that hit a read or
the way to it. That way is a large part of so short a read, so the caller meets such events more often than the probes can: at
the same rank it has another event, and the difference tells how events are spread and not how well they are timed. Long
reads lie mostly inside the hooks, so theirs tell.

The constant is measured on short reads and used for long ones, of which each copies 64 KiB and leaves the caches empty of what
the way back to the caller and its clock need: a bare system call alone took {cold} after such a copy in this run. So long
reads come out too short by that, and by the same of the hooks' way out, which is after their last reading of the clock.

{} reads were compared. The probes' counts differed from the callers' by {}, and {} operations were lost.",
            self.reads, self.miscounted, self.lost
        )
    }

    /// No caller knows how long it was in the kernel, so that is held to bounds.
    fn kernel_window(&self, text: &mut String) -> fmt::Result {
        text.push_str(
            "
## Kernel window, against reads that nothing measures

No caller can time the inside of a system call. What it can time is the same read while nothing is measured. Of that, the
kernel window should hold all but the bare way into and out of the kernel and the reading of the clock. So its median has to
lie above the unmeasured read less a bare system call (getppid(2), by the same clock). What it is above that is what measuring
itself puts between the two inner readings of the clock: how the kernel gets out of the hook at the entry and into the one at
the exit, and half of each reading. No hook can leave that out. Reader alone; medians in ns, and differences of the same
round.

| Tier | Reader | unmeasured read | less a bare call | kernel window, P50 | above that bound | against the unmeasured read |
|---|---|---|---|---|---|---|
",
        );
        for row in self.rows.iter().filter(|it| it.load == Load::Alone) {
            let Some(free) = self.unmeasured.iter().find(|it| it.reader == row.reader) else {
                continue;
            };
            let window = &row.kernel_window[0];
            let both = free.caller.iter().zip(&free.bare_call);
            let low: Vec<f64> = both.map(|(read, call)| read - call).collect();
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                row.tier,
                row.reader.as_str(),
                spread(&free.caller, 0),
                spread(&low, 0),
                spread(window, 0),
                signed_spread(&differences(&low, window, &[]), 0),
                signed_spread(&differences(&free.caller, window, &[]), 0),
            )?;
        }
        Ok(())
    }
}

/// By how much the probes and the constant, if there is one, are above the truth, round by round.
fn differences(truth: &[f64], probes: &[f64], constants: &[f64]) -> Vec<f64> {
    let constants = constants.iter().copied().chain(std::iter::repeat(0.0));
    truth
        .iter()
        .zip(probes)
        .zip(constants)
        .map(|((truth, probes), constant)| probes + constant - truth)
        .collect()
}

impl Row {
    /// Whether the same rank is the same event on both sides.
    fn is_comparable(&self, percentile: usize) -> bool {
        match (self.reader, self.load) {
            (Reader::Long, _) => true,
            (Reader::Short, Load::Alone) => percentile < 2,
            (Reader::Short, Load::Hogs) => percentile < 1,
        }
    }
}

impl Reader {
    fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short, 8 bytes",
            Self::Long => "long, 32 KiB",
        }
    }
}

impl Load {
    fn as_str(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Hogs => "beside hogs",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TierFigures, Unmeasured};
    use super::*;

    fn figures() -> Figures {
        let all = |value: f64| [0, 1, 2, 3].map(|_| vec![value, value]);
        Figures {
            rounds: 2,
            absent: vec![],
            tiers: vec![TierFigures {
                tier: "TpBtf".to_owned(),
                constant: vec![300.0, 500.0],
            }],
            rows: vec![Row {
                tier: "TpBtf".to_owned(),
                reader: Reader::Long,
                load: Load::Alone,
                caller: all(10_000.0),
                until_user: all(9_600.0),
                kernel_window: all(9_000.0),
                rank: all(99.0),
            }],
            unmeasured: vec![Unmeasured {
                reader: Reader::Long,
                caller: vec![9_100.0, 9_200.0],
                bare_call: vec![250.0, 250.0],
            }],
            reads: 7,
            miscounted: 0,
            lost: 0,
        }
    }

    #[test]
    fn each_round_is_compared_with_its_own_constant() {
        let mut text = String::new();
        figures().write(&mut text).unwrap();

        let row = "| P50 | 10.00 | +0.00 (-1.00 to +1.00) | +0 (-100 to +100) | 99.00 |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn the_kernel_window_is_held_to_bounds_of_the_same_round() {
        let mut text = String::new();
        figures().write(&mut text).unwrap();

        let row = "| +100 (+50 to +150) | -150 (-200 to -100) |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn percentiles_that_are_other_events_on_either_side_are_marked() {
        let mut figures = figures();
        figures.rows[0].reader = Reader::Short;
        let mut text = String::new();
        figures.write(&mut text).unwrap();

        assert!(text.contains("| P90 |"), "{text}");
        assert!(text.contains("| P99 \\* |"), "{text}");
    }
}
