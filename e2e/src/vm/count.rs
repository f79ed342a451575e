//! How many instructions measuring adds to a read, in every tier of hooks.
//!
//! Not every kernel takes every tier, so `make bench` may find none to time. In a machine whose time goes by instructions
//! ([`Pace::Instructions`]) the same benchmark counts them: its nanoseconds are instructions.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::image::{self, Contents};
use super::kernels::Cache;
use super::machine::{Machine, Pace};
use super::plan::Preempt;
use super::{Build, Programs};

/// What to do.
#[derive(Debug)]
pub struct Count {
    /// How long the machine may run.
    pub limit: Duration,
    /// Where logs go.
    pub logs: PathBuf,
    /// Where the figures go.
    pub json: PathBuf,
}

/// What the benchmark wrote, as far as it is of use here.
#[derive(Debug, Deserialize)]
struct Benchmark {
    cost: Part,
}

#[derive(Debug, Deserialize)]
struct Part {
    figures: Figures,
}

#[derive(Debug, Deserialize)]
struct Figures {
    absent: Vec<String>,
    rows: Vec<Measured>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    tool: String,
    read: Vec<f64>,
    added_to_read: Vec<f64>,
    added_to_unrelated: Vec<f64>,
}

/// The figures.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Instructions {
    kernel: String,
    preempt: String,
    /// Tools that could not run, and why.
    absent: Vec<String>,
    rows: Vec<Row>,
}

/// Instructions under one tool.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    tool: String,
    /// Of a lookup that hits, without any tool.
    alone: f64,
    /// What the tool adds to it.
    added_to_read: f64,
    /// What it adds to getppid(2).
    added_to_unrelated: f64,
}

impl Count {
    /// Runs the machine and writes the figures. Whether all was well.
    pub fn run(&self) -> Result<bool> {
        let logs = super::folder(&self.logs)?;
        let cache = Cache::of_user()?;
        let mut kernels = cache.newest()?.into_iter();
        let kernel = kernels
            .rfind(|it| !it.is_realtime())
            .context("there is no kernel")?;
        let initramfs = logs.join("initramfs-count");
        write_image(&initramfs)?;
        let machine = Machine {
            kernel: &cache.get(&kernel)?,
            initramfs: &initramfs,
            preempt: Preempt::None,
            logs: &logs.join(format!("{}-count", kernel.release)),
            limit: self.limit,
            pace: Pace::Instructions,
        };
        println!(
            "{} counts instructions; its console: {}",
            kernel.release,
            machine.console().display()
        );
        let ended = machine.run()?;
        let Some(figures) = figures(&ended.said, &kernel.release)? else {
            println!(
                "no figures after {} s; its console: {}",
                ended.took.as_secs(),
                machine.console().display()
            );
            return Ok(false);
        };
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        fs::write(&self.json, text)
            .with_context(|| format!("could not write {}", self.json.display()))?;
        println!(
            "wrote {} after {} s",
            self.json.display(),
            ended.took.as_secs()
        );
        Ok(true)
    }
}

fn write_image(to: &std::path::Path) -> Result<()> {
    // As `make bench` builds them.
    let packages = &[
        "maplatency-agent",
        "maplatency-workload",
        "maplatency-bench",
    ];
    let built = Programs::build(Build::Release(packages))?;
    let programs = packages
        .iter()
        .map(|it| built.binary(it))
        .collect::<Result<Vec<_>>>()?;
    let variables: Vec<String> = ["agent", "workload", "bench"]
        .iter()
        .zip(&programs)
        .map(|(name, program)| format!("{name}='{}'\n", program.display()))
        .collect();
    let settings = variables.concat();
    let contents = Contents {
        job: include_str!("count.sh"),
        settings,
        programs: programs.into_iter().chain(bpftrace()).collect(),
        files: vec![],
    };
    image::write(&contents, to)
}

/// The tool to compare with, where it is installed.
fn bpftrace() -> Option<PathBuf> {
    let found =
        super::output_of(std::process::Command::new("sh").args(["-c", "command -v bpftrace"]));
    Some(PathBuf::from(found.ok()?.trim()))
}

/// `None` if the machine told none.
fn figures(said: &str, kernel: &str) -> Result<Option<Instructions>> {
    let json: String = said
        .lines()
        .filter_map(|it| it.trim_end().strip_prefix("vm: json "))
        .collect();
    if json.is_empty() {
        return Ok(None);
    }
    let benchmark: Benchmark = serde_json::from_str(&json).context("the benchmark's figures")?;
    let Figures { absent, rows } = benchmark.cost.figures;
    let rows = rows.into_iter().map(|it| {
        let (Some(alone), Some(added_to_read), Some(added_to_unrelated)) = (
            it.read.first().copied(),
            it.added_to_read.first().copied(),
            it.added_to_unrelated.first().copied(),
        ) else {
            bail!("{} has no figures", it.tool);
        };
        Ok(Row {
            tool: it.tool,
            alone,
            added_to_read,
            added_to_unrelated,
        })
    });
    Ok(Some(Instructions {
        kernel: kernel.to_owned(),
        preempt: Preempt::None.to_string(),
        absent,
        rows: rows.collect::<Result<_>>()?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_taken_from_the_lines_of_the_benchmark_alone() {
        let said = "vm: kernel 6.12\r\nvm: json {\"cost\": {\"figures\": {\"absent\": [], \"rows\": [\r\nvm: json {\"tool\": \"x\", \"read\": [900.0],\r\n\
            vm: json \"addedToRead\": [500.0], \"addedToUnrelated\": [0.5]}]}}}\r\nvm: done\r\n";
        let figures = figures(said, "6.12").unwrap().unwrap();
        assert_eq!(
            figures.rows,
            [Row {
                tool: "x".to_owned(),
                alone: 900.0,
                added_to_read: 500.0,
                added_to_unrelated: 0.5
            }]
        );
    }

    #[test]
    fn a_machine_that_told_nothing_has_no_figures() {
        assert_eq!(
            figures("vm: kernel 6.12\nvm: done\n", "6.12").unwrap(),
            None
        );
        assert!(figures("vm: json {\"rows\": [\n", "6.12").is_err());
    }
}
