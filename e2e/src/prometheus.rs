//! promtool and a real Prometheus, as Debian has them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::cluster::free_port;
use crate::http::get;
use crate::process::Daemon;
use crate::workspace;

/// The folder with both programs; the error says why there is none on this machine.
pub fn folder() -> Result<PathBuf> {
    let script = workspace().join("scripts/prometheus.sh");
    let output = Command::new(script).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

/// Lets `promtool check metrics` look at what a program exports; fails with what it says.
pub async fn check(folder: &Path, text: &str) -> Result<()> {
    let mut promtool = tokio::process::Command::new(folder.join("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = promtool.stdin.take().context("no standard input")?;
    input.write_all(text.as_bytes()).await?;
    drop(input);
    let output = promtool.wait_with_output().await?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success() && said.trim().is_empty(), "{said}");
    Ok(())
}

/// A Prometheus that takes native histograms, from one program every second.
#[derive(Debug)]
pub struct Prometheus {
    daemon: Daemon,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it.
    pub fn start(folder: &Path, target: SocketAddr) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let config = data.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "{{global: {{scrape_interval: 1s}}, scrape_configs: [{{job_name: test, static_configs: [{{targets: \
                 ['{target}']}}]}}]}}"
            ),
        )?;
        let address = free_port()?;
        let path = |it: &Path| it.display().to_string();
        let mut command = Command::new(folder.join("prometheus"));
        command
            .arg(format!("--config.file={}", path(&config)))
            .arg(format!(
                "--storage.tsdb.path={}",
                path(&data.path().join("data"))
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=native-histograms");
        Ok(Self {
            daemon: Daemon::spawn("Prometheus", command, &data.path().join("log"))?,
            address,
            _data: data,
        })
    }

    /// The values of an instant query, each with its labels.
    pub async fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let encoded: String = query
            .bytes()
            .map(|it| match it {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(it).to_string(),
                it => format!("%{it:02X}"),
            })
            .collect();
        let path = format!("/api/v1/query?query={encoded}");
        let answer = get(self.address, &path, "").await;
        let answer = answer.with_context(|| self.daemon.log_tail())?.text();
        let answer: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        let samples = answer.pointer("/data/result").and_then(Value::as_array);
        let samples = samples
            .with_context(|| format!("{query}: {answer}"))?
            .iter();
        let samples = samples.map(|it| {
            let value = it.pointer("/value/1").and_then(Value::as_str);
            let value = value.with_context(|| format!("{query}: {answer}"))?;
            Ok((it["metric"].clone(), value.parse()?))
        });
        samples.collect()
    }
}
