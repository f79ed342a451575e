//! The binary as its users meet it: what it refuses and with which words, and what it prints.
#![allow(
    clippy::unwrap_used,
    reason = "a helper that panics fails its test, which is what it is for"
)]

mod ending;
mod files;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use maplatency_core::MapLatencyProbe;
use nix::unistd::geteuid;

const BINARY: &str = env!("CARGO_BIN_EXE_maplatency-agent");

fn agent(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    agent(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Whether this machine lets the agent load its probes; otherwise `test` is noted as not run.
fn may_load_probes(test: &str) -> bool {
    if geteuid().is_root() {
        return true;
    }
    let note = format!("agent cli, {test}: needs root");
    eprintln!("not run: {note}");
    if let Ok(path) = std::env::var("MAPLATENCY_NOT_RUN") {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(file, "{note}").unwrap();
    }
    false
}

/// A probe that matches no map of this or any other host.
const NOTHING_MATCHES: &str = "\
apiVersion: maplatency.dev/v1alpha1
kind: MapLatencyProbe
metadata: {name: nothing}
spec: {maps: [{names: [no_such_map_here]}]}
";

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn run(text: &str, arguments: &[&str]) -> Output {
    let file = file(text);
    let path = file.path().to_str().unwrap();
    output(&[&["run", "-f", path], arguments].concat())
}

#[test]
fn help_tells_what_it_needs_with_examples() {
    for (arguments, words) in [
        (
            &["--help"][..],
            &["CAP_SYS_ADMIN", "5.15", "BTF", "Examples:", "serve", "run"][..],
        ),
        (&["-h"], &["CAP_SYS_ADMIN", "Examples:"]),
        (
            &["run", "--help"],
            &[
                "--for",
                "Examples:",
                "Units:",
                "Exit codes:",
                "[default: table]",
            ],
        ),
        (
            &["serve", "--help"],
            &["--operator", "--node", "--insecure-plaintext", "Examples:"],
        ),
    ] {
        let output = output(arguments);
        assert!(output.status.success());
        for word in words {
            assert!(stdout(&output).contains(word), "{arguments:?} lacks {word}");
        }
    }
}

#[test]
fn plaintext_is_refused_without_its_flag_and_beyond_this_host() {
    for (arguments, advice) in [
        (
            &["http://127.0.0.1:1"][..],
            "write https://, or, for a trial",
        ),
        (
            &["http://10.0.0.1:1", "--insecure-plaintext"],
            "is not a loopback address; write https://",
        ),
        (
            &["https://127.0.0.1:1", "--insecure-plaintext"],
            "leave --insecure-plaintext out",
        ),
    ] {
        let output = output(&[&["serve", "--node", "a", "--operator"], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        for part in [advice, "Usage: maplatency-agent serve"] {
            assert!(stderr(&output).contains(part), "{}", stderr(&output));
        }
    }
}

#[test]
fn every_example_is_a_valid_probe() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "yaml") {
            continue;
        }
        let manifest = maplatency_agent::manifest::read(&path).unwrap_or_else(|it| panic!("{it}"));
        assert!(!manifest.spec.maps.is_empty());
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["all-fields", "minimal", "refresh-incident"]);
}

#[test]
fn a_cpu_that_does_not_exist_is_an_error() {
    let text = NOTHING_MATCHES.replace("spec: {", "spec: {activeReads: {cpus: '8191'}, ");
    let output = run(&text, &["--for", "1s"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    let message = "error: cannot make the active reads of spec.activeReads.cpus: CPU 8191 does not exist on this host";
    assert!(stderr(&output).starts_with(message), "{}", stderr(&output));
}

#[test]
fn without_a_match_the_document_says_what_was_looked_for() {
    if !may_load_probes("without_a_match_the_document_says_what_was_looked_for") {
        return;
    }
    let output = run(
        NOTHING_MATCHES,
        &["--for", "3s", "--output", "yaml", "--node", "node-a"],
    );

    assert!(output.status.success(), "{}", stderr(&output));
    let probe: MapLatencyProbe = serde_yaml::from_str(stdout(&output)).unwrap();
    assert_eq!(
        (probe.metadata.generation, probe.metadata.uid),
        (Some(1), None)
    );
    let status = probe.status.unwrap();
    assert_eq!(
        (status.observed_generation, status.matched_maps),
        (Some(1), 0)
    );
    let ready = status
        .conditions
        .iter()
        .find(|it| it.type_ == "Ready")
        .unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "NoMapMatches")
    );
    assert!(
        ready
            .message
            .starts_with("no map on node-a matches name no_such_map_here"),
        "{}",
        ready.message
    );
}

#[test]
fn json_is_the_same_resource() {
    if !may_load_probes("json_is_the_same_resource") {
        return;
    }
    let output = run(NOTHING_MATCHES, &["--for", "1s", "-o", "json"]);

    assert!(output.status.success(), "{}", stderr(&output));
    let probe: MapLatencyProbe = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(probe.metadata.name.as_deref(), Some("nothing"));
    assert_eq!(probe.status.unwrap().nodes.ready, 1);
}

#[test]
fn a_table_is_followed_by_the_resource() {
    if !may_load_probes("a_table_is_followed_by_the_resource") {
        return;
    }
    let output = run(NOTHING_MATCHES, &["--for", "1s"]);

    assert!(output.status.success(), "{}", stderr(&output));
    let (tables, document) = stdout(&output)
        .split_once("\n# The resource with its status")
        .unwrap();
    assert!(
        tables.contains("No map matches yet. Looked for name no_such_map_here"),
        "{tables}"
    );
    assert!(
        !tables.contains('\x1b'),
        "colours and cursor movements are for terminals"
    );
    let (_, document) = document.split_once('\n').unwrap();
    serde_yaml::from_str::<MapLatencyProbe>(document).unwrap();
}
