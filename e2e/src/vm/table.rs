//! The table of results in the documentation, between two comments. The runs write it and nobody else.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::kernels::Kernel;
use super::plan::Preempt;

const BEGIN: &str = "<!-- make vm-test writes this table -->";
const END: &str = "<!-- end of the table of make vm-test -->";
const HEAD: &str = "| Kernel | Preemption | Tier | Result |\n|---|---|---|---|\n";

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which kernel.
    pub kernel: Kernel,
    /// How it preempted.
    pub preempt: Preempt,
    /// The agent's tier.
    pub tier: String,
    /// What came out.
    pub result: String,
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let cells: Vec<_> = line
            .trim()
            .trim_matches('|')
            .split(" | ")
            .map(str::trim)
            .collect();
        let [release, preempt, tier, result] = cells[..] else {
            return None;
        };
        Some(Self {
            kernel: Kernel {
                release: release.to_owned(),
            },
            preempt: preempt.parse().ok()?,
            tier: tier.to_owned(),
            result: result.to_owned(),
        })
    }

    /// Whether it is the newer result of the same run; a series has one row, whatever its release.
    fn replaces(&self, other: &Self) -> bool {
        self.kernel.series() == other.kernel.series()
            && self.preempt == other.preempt
            && self.tier == other.tier
    }

    fn line(&self) -> String {
        let Self {
            kernel,
            preempt,
            tier,
            result,
        } = self;
        // A bar would end the cell.
        let result = result.replace('|', "/");
        format!("| {} | {preempt} | {tier} | {result} |\n", kernel.release)
    }
}

/// Writes new rows into a document. Rows of other runs stay, unless these are `all` that there are.
pub fn write(document: &Path, rows: &[Row], all: bool) -> Result<()> {
    let text = fs::read_to_string(document)
        .with_context(|| format!("could not read {}", document.display()))?;
    let text = replaced(&text, rows, all)
        .with_context(|| format!("{} has no lines {BEGIN} and {END}", document.display()))?;
    fs::write(document, text).with_context(|| format!("could not write {}", document.display()))
}

fn replaced(text: &str, new: &[Row], all: bool) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (table, after) = rest.split_once(END)?;
    let mut rows: Vec<Row> = if all {
        Vec::new()
    } else {
        table.lines().filter_map(Row::parse).collect()
    };
    rows.retain(|old| !new.iter().any(|it| it.replaces(old)));
    rows.extend_from_slice(new);
    rows.sort_by_key(|it| (it.kernel.version(), it.preempt, it.tier.clone()));
    let lines: String = rows.iter().map(Row::line).collect();
    Some(format!("{before}{BEGIN}\n{HEAD}{lines}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(release: &str, preempt: Preempt, result: &str) -> Row {
        Row {
            kernel: Kernel {
                release: release.to_owned(),
            },
            preempt,
            tier: "Tracepoint".to_owned(),
            result: result.to_owned(),
        }
    }

    #[test]
    fn a_run_replaces_its_own_row_and_leaves_the_others() {
        let empty = format!("before\n{BEGIN}\n{END}\nafter\n");
        let first = [
            row("6.12.1+deb12-cloud-amd64", Preempt::Full, "2 passed"),
            row("6.1.0-9-cloud-amd64", Preempt::None, "2 passed"),
        ];
        let newer = [row(
            "6.12.2+deb12-cloud-amd64",
            Preempt::Full,
            "1 passed; a | b",
        )];

        let text = replaced(&empty, &first, false).unwrap();
        let text = replaced(&text, &newer, false).unwrap();

        assert_eq!(
            text,
            format!(
                "before\n{BEGIN}\n{HEAD}| 6.1.0-9-cloud-amd64 | none | Tracepoint | 2 passed |\n\
                 | 6.12.2+deb12-cloud-amd64 | full | Tracepoint | 1 passed; a / b |\n{END}\nafter\n"
            )
        );
        assert_eq!(
            replaced(&text, &newer, true)
                .unwrap()
                .matches("Tracepoint")
                .count(),
            1
        );
    }

    #[test]
    fn a_document_without_a_place_for_the_table_is_left_alone() {
        assert_eq!(replaced("nothing", &[], true), None);
    }
}
