//! The cost of a call as text.

use std::fmt::{self, Write as _};

use maplatency_bpf::Tier;

use super::{Case, Figures, Row, SHORTEST};
use crate::page::{Aim, yes_or_no};
use crate::stats::{median, spread};
use crate::tool::BPFTRACE;

/// Per read against bpftrace, in the tier that most kernels take and in the best.
const AIM_TRACEPOINT: f64 = 0.55;
const AIM_BEST: f64 = 0.40;
/// Nanoseconds on any other system call in the tier `Tracepoint`.
const AIM_UNRELATED: f64 = 30.0;

impl Figures {
    pub(super) fn write(&self, text: &mut String) -> fmt::Result {
        write!(
            text,
            "## What a call takes longer

A program looks up keys of a hash in a loop, on one CPU or on two at once. Every tool is compared with no tool in the
same round, one right after the other, in {} rounds. Given are medians over the rounds, and in brackets the smallest and
the largest. *Added* is what a call takes longer while the tool measures; for getppid(2) that is the price that every
other system call on the host pays.

The bpftrace script does what such a script can: entry and exit of bpf(2), a histogram per command. It does not know the
map, and not when the caller was back in user mode.
",
            self.rounds
        )?;
        for case in self.cases() {
            self.table(text, case)?;
        }
        self.sampling(text)?;
        if !self.absent.is_empty() {
            writeln!(text, "\n### Not measured\n")?;
            for it in &self.absent {
                writeln!(text, "- {it}")?;
            }
        }
        Ok(())
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::new();
        for row in &self.rows {
            if !cases.contains(&row.case) {
                cases.push(row.case);
            }
        }
        cases
    }

    fn row(&self, case: Case, tool: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|it| it.case == case && it.tool == tool)
    }

    /// What a tool adds to a read against what bpftrace adds.
    fn ratio(&self, row: &Row) -> Option<f64> {
        let bpftrace = self.row(row.case, BPFTRACE)?;
        Some(median(&row.added_to_read) / median(&bpftrace.added_to_read))
    }

    fn table(&self, text: &mut String, case: Case) -> fmt::Result {
        let rows: Vec<&Row> = self.rows.iter().filter(|it| it.case == case).collect();
        let read: Vec<f64> = rows.iter().flat_map(|it| it.read.clone()).collect();
        writeln!(
            text,
            "
### {case}

A lookup alone: {} ns

| Tool | added per lookup, ns | added per getppid(2), ns | per lookup against bpftrace |
|---|---|---|---|",
            spread(&read, 0)
        )?;
        for row in &rows {
            let ratio = self.ratio(row);
            let ratio = ratio.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"));
            let read = spread(&row.added_to_read, 0);
            let unrelated = spread(&row.added_to_unrelated, 0);
            writeln!(text, "| {} | {read} | {unrelated} | {ratio} |", row.tool)?;
        }
        Ok(())
    }

    fn sampling(&self, text: &mut String) -> fmt::Result {
        for tier in Tier::ALL {
            let name = format!("maplatency, tier {tier}");
            let full = self.row(SHORTEST, &name);
            let sampled = self.row(SHORTEST, &format!("{name}, 1 in 1024"));
            if let Some((full, sampled)) = full.zip(sampled) {
                let (full, sampled) = (median(&full.added_to_read), median(&sampled.added_to_read));
                writeln!(
                    text,
                    "
An operation that sampling leaves out costs its caller about {:.0} ns in the tier {tier}, {:.0} % of one that is counted:
what is added at 1 in 1,024, less the share of those that are counted.",
                    skipped(full, sampled, 1024.0),
                    100.0 * skipped(full, sampled, 1024.0) / full,
                )?;
            }
        }
        Ok(())
    }

    pub(super) fn aimed_at(&self) -> Vec<Aim> {
        let mut aims = Vec::new();
        let tiers: Vec<String> = Tier::ALL
            .iter()
            .map(|it| format!("maplatency, tier {it}"))
            .filter(|it| self.rows.iter().any(|row| row.tool == *it))
            .collect();
        let tracepoint = format!("maplatency, tier {}", Tier::Tracepoint);
        if let Some(aim) = self.ratios(
            "added per read, tier Tracepoint",
            &tracepoint,
            AIM_TRACEPOINT,
        ) {
            aims.push(aim);
        }
        let middle = |tool: &String| median(&self.ratios_of(tool));
        let best = tiers.iter().min_by(|a, b| middle(a).total_cmp(&middle(b)));
        if let Some(best) = best {
            let tier = best.trim_start_matches("maplatency, ");
            let what = format!("added per read, best {tier}");
            aims.extend(self.ratios(&what, best, AIM_BEST));
        }
        aims.extend(self.unrelated(&tracepoint));
        aims
    }

    fn ratios_of(&self, tool: &str) -> Vec<f64> {
        let rows = self.rows.iter().filter(|it| it.tool == tool);
        rows.filter_map(|it| self.ratio(it)).collect()
    }

    fn ratios(&self, what: &str, tool: &str, aim: f64) -> Option<Aim> {
        let ratios = self.ratios_of(tool);
        let met = ratios.iter().filter(|it| **it <= aim).count();
        (!ratios.is_empty()).then(|| Aim {
            what: what.to_owned(),
            aimed: format!("≤ {aim:.2} × bpftrace"),
            measured: format!("{} ×", spread(&ratios, 2)),
            met: in_cases(met, ratios.len()),
        })
    }

    fn unrelated(&self, tool: &str) -> Option<Aim> {
        let of = |tool: &str| -> Vec<f64> {
            let rows = self.rows.iter().filter(|it| it.tool == tool);
            rows.map(|it| median(&it.added_to_unrelated)).collect()
        };
        let (ours, floor) = (of(tool), of(BPFTRACE));
        (!ours.is_empty()).then(|| Aim {
            what: "added per unrelated call, tier Tracepoint".to_owned(),
            aimed: format!("≤ {AIM_UNRELATED:.0} ns, as far as the machine allows"),
            measured: format!(
                "{} ns; the bpftrace script {} ns",
                spread(&ours, 0),
                spread(&floor, 0)
            ),
            met: yes_or_no(median(&ours) <= AIM_UNRELATED),
        })
    }
}

fn in_cases(met: usize, of: usize) -> String {
    if met == 0 || met == of {
        return yes_or_no(met == of);
    }
    format!("in {met} of {of} cases")
}

/// What an operation costs that is left out, where one in so many is counted.
fn skipped(full: f64, sampled: f64, one_in: f64) -> f64 {
    (sampled - full / one_in) * one_in / (one_in - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tool: &str, value_size: u32, added_to_read: f64) -> Row {
        Row {
            tool: tool.to_owned(),
            case: Case {
                value_size,
                cpus: 1,
            },
            read: vec![1000.0],
            added_to_read: vec![added_to_read],
            added_to_unrelated: vec![90.0],
        }
    }

    fn figures() -> Figures {
        Figures {
            rounds: 1,
            absent: vec!["tier Fentry refused: EPERM at load".to_owned()],
            rows: vec![
                row("maplatency, tier Tracepoint", 8, 500.0),
                row("maplatency, tier TpBtf", 8, 390.0),
                row(BPFTRACE, 8, 1000.0),
                row("maplatency, tier Tracepoint", 512, 600.0),
                row("maplatency, tier TpBtf", 512, 420.0),
                row(BPFTRACE, 512, 1000.0),
                row("maplatency, tier Tracepoint, 1 in 1024", 8, 100.0),
            ],
        }
    }

    #[test]
    fn an_aim_that_is_met_in_some_cases_says_in_how_many() {
        let aims = figures().aimed_at();

        assert_eq!(aims[0].met, "in 1 of 2 cases");
        assert_eq!(aims[0].measured, "0.55 (0.50 to 0.60) ×");
        assert_eq!(aims[1].what, "added per read, best tier TpBtf");
        assert_eq!(aims[1].met, "in 1 of 2 cases");
    }

    #[test]
    fn the_aim_on_unrelated_calls_shows_the_floor_beside_it() {
        let aims = figures().aimed_at();

        assert_eq!(aims[2].met, "**no**");
        assert!(
            aims[2]
                .measured
                .ends_with("the bpftrace script 90 (90 to 90) ns"),
            "{}",
            aims[2].measured
        );
    }

    #[test]
    fn a_case_has_one_table_however_its_rows_come() {
        let mut text = String::new();
        figures().write(&mut text).unwrap();

        assert_eq!(text.matches("### values of 8 bytes").count(), 1, "{text}");
        assert!(
            text.contains("| maplatency, tier TpBtf | 420 (420 to 420) |"),
            "{text}"
        );
    }

    #[test]
    fn what_is_left_out_costs_what_remains_without_those_that_are_counted() {
        // 15 of 16 cost 100 and one costs 500.
        let sampled = (15.0 * 100.0 + 500.0) / 16.0;
        assert!((skipped(500.0, sampled, 16.0) - 100.0).abs() < 1e-9);
    }
}
