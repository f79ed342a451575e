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

/// One tier. Instructions per call.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    tier: String,
    /// What a read takes more.
    per_read: f64,
    /// What an unrelated system call takes more.
    per_unrelated: f64,
    /// A read without the agent.
    alone: f64,
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

Instructions that a virtual machine with kernel {} executes per call. They do not depend on how fast or how busy the
machine is, and so they tell of tiers that the kernel above refuses. Time also depends on what is cached.

| Tier | a read alone | added per read | added per unrelated call |
|---|---|---|---|
",
        figures.kernel
    );
    let mut aims = Vec::new();
    for Row {
        tier,
        per_read,
        per_unrelated,
        alone,
    } in &figures.rows
    {
        writeln!(
            text,
            "| {tier} | {alone:.0} | {per_read:.0} | {per_unrelated:.0} |"
        )?;
        if tier == "Fentry" {
            aims.push(Aim {
                what: "added per unrelated call, tier Fentry".to_owned(),
                aimed: "0".to_owned(),
                measured: format!("{per_unrelated:.0} instructions"),
                // Of millions of calls some are hit by an interrupt.
                met: yes_or_no(per_unrelated.abs() < 0.5),
            });
        }
    }
    Ok((text, aims))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_become_a_table_and_an_aim() {
        let json = r#"{"kernel": "6.12", "rows": [
            {"tier": "Fentry", "perRead": 866.0, "perUnrelated": 0.0, "alone": 1234.0},
            {"tier": "TpBtf", "perRead": 1100.0, "perUnrelated": 71.0, "alone": 1234.0}]}"#;
        let (text, aims) = section(&serde_json::from_str(json).unwrap()).unwrap();

        assert!(text.contains("| Fentry | 1234 | 866 | 0 |"), "{text}");
        assert_eq!(aims.len(), 1);
        assert_eq!(aims[0].met, "yes");
    }

    #[test]
    fn without_the_file_there_is_no_section() {
        assert!(include(Path::new("/nonexistent")).unwrap().is_none());
    }
}
