//! Instructions per call, counted in virtual machines, from a file that is made elsewhere.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use crate::page::{Aim, yes_or_no};

/// Beside the JSON file of the page.
const FILE: &str = "instructions.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instructions {
    kernel: String,
    rows: Vec<Row>,
}

/// One tool. Instructions per call.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    tool: String,
    /// A read without the tool.
    alone: f64,
    /// What the tool adds to it.
    added_to_read: f64,
    /// What it adds to an unrelated system call.
    added_to_unrelated: f64,
}

/// The section, where the file exists.
pub(crate) fn include(beside: &Path) -> anyhow::Result<Option<(String, Vec<Aim>)>> {
    let path = beside.join(FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("could not read {}", path.display()))?,
    };
    let figures = serde_json::from_str(&text)
        .with_context(|| format!("{} is not as it should be", path.display()))?;
    Ok(Some(section(&figures)?))
}

fn section(figures: &Instructions) -> anyhow::Result<(String, Vec<Aim>)> {
    let mut text = format!(
        "## Instructions, counted by QEMU

Written by `make vm-count`: instructions that a virtual machine with kernel {} executes per call, on one CPU, with values of
8 bytes. They do not depend on how fast or how busy a machine is, and so they tell of tiers that the kernel above refuses.
Time also depends on what is cached.

| Tool | a lookup alone | added per lookup | added per getppid(2) | per lookup against bpftrace |
|---|---|---|---|---|
",
        figures.kernel
    );
    let bpftrace = figures
        .rows
        .iter()
        .find(|it| it.tool.starts_with("bpftrace"));
    let ratio = |row: &Row| bpftrace.map(|it| row.added_to_read / it.added_to_read);
    for row in &figures.rows {
        let Row {
            tool,
            alone,
            added_to_read,
            added_to_unrelated,
        } = row;
        let ratio = ratio(row).map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"));
        writeln!(
            text,
            "| {tool} | {alone:.0} | {added_to_read:.0} | {:.0} | {ratio} |",
            // Without the sign of a zero.
            added_to_unrelated.round() + 0.0
        )?;
    }
    let fentry = figures.rows.iter().find(|it| it.tool.ends_with("Fentry"));
    let aims = fentry.map(|it| aims(it, ratio(it))).unwrap_or_default();
    Ok((text, aims))
}

fn aims(fentry: &Row, against_bpftrace: Option<f64>) -> Vec<Aim> {
    let read = against_bpftrace.map(|it| Aim {
        what: "added per read, tier Fentry".to_owned(),
        aimed: "≤ 0.40 × bpftrace".to_owned(),
        measured: format!("{it:.2} × in instructions"),
        met: yes_or_no(it <= 0.40),
    });
    let unrelated = Aim {
        what: "added per unrelated call, tier Fentry".to_owned(),
        aimed: "0".to_owned(),
        measured: format!(
            "{:.0} instructions",
            fentry.added_to_unrelated.round() + 0.0
        ),
        // Of millions of calls some are hit by an interrupt.
        met: yes_or_no(fentry.added_to_unrelated.abs() < 0.5),
    };
    read.into_iter().chain([unrelated]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_become_a_table_and_an_aim() {
        let json = r#"{"kernel": "6.12", "rows": [
            {"tool": "maplatency, tier Fentry", "addedToRead": 866.0, "addedToUnrelated": -0.1, "alone": 1234.0},
            {"tool": "bpftrace script", "addedToRead": 1732.0, "addedToUnrelated": 71.0, "alone": 1234.0}]}"#;
        let (text, aims) = section(&serde_json::from_str(json).unwrap()).unwrap();

        let row = "| maplatency, tier Fentry | 1234 | 866 | 0 | 0.50 |";
        assert!(text.contains(row), "{text}");
        let met: Vec<_> = aims.iter().map(|it| it.met.as_str()).collect();
        assert_eq!(met, ["**no**", "yes"]);
    }

    #[test]
    fn without_the_file_there_is_no_section() {
        assert!(include(Path::new("/nonexistent")).unwrap().is_none());
    }
}
