//! The binary as its users meet it: what it refuses and with which words, and what it prints.
#![allow(
    clippy::unwrap_used,
    reason = "a helper that panics fails its test, which is what it is for"
)]

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use maplatency_core::MapLatencyProbe;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

const BINARY: &str = env!("CARGO_BIN_EXE_maplatency-agent");
/// Within this time the agent ends when it is told to, however slow the machine.
const END: Duration = Duration::from_secs(2);

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
fn a_bad_file_is_refused_with_the_field_and_what_to_write() {
    let head = "apiVersion: maplatency.dev/v1alpha1\nkind: MapLatencyProbe\n";
    let with = |rest: &str| format!("{head}{rest}");
    let cases = [
        (
            String::new(),
            "FILE: is empty; write a MapLatencyProbe, beginning with apiVersion: maplatency.dev/v1alpha1",
        ),
        (
            "# only a comment\n---\n".to_owned(),
            "FILE: is empty; write a MapLatencyProbe, beginning with apiVersion: maplatency.dev/v1alpha1",
        ),
        (
            "just text\n".to_owned(),
            "FILE: is no MapLatencyProbe; begin with apiVersion: maplatency.dev/v1alpha1 and kind: MapLatencyProbe",
        ),
        (
            format!("{NOTHING_MATCHES}---\n{NOTHING_MATCHES}"),
            "FILE: holds several documents; write one MapLatencyProbe per file",
        ),
        (
            "kind: MapLatencyProbe\n".to_owned(),
            "FILE: apiVersion: is missing; write apiVersion: maplatency.dev/v1alpha1",
        ),
        (
            "apiVersion: maplatency.dev/v1\nkind: MapLatencyProbe\n".to_owned(),
            "FILE: apiVersion: is \"maplatency.dev/v1\"; write maplatency.dev/v1alpha1",
        ),
        (
            "apiVersion: maplatency.dev/v1alpha1\nkind: Pod\n".to_owned(),
            "FILE: kind: is \"Pod\"; write MapLatencyProbe",
        ),
        (
            with("spec: {maps: [{ids: [1]}]}\n"),
            "FILE:1:1: metadata: is missing; write metadata: {name: conntrack}",
        ),
        (
            with("metadata: {}\nspec: {maps: [{ids: [1]}]}\n"),
            "FILE: metadata.name: is missing; write a name such as conntrack",
        ),
        (
            with("metadata: {name: My_Probe}\nspec: {maps: [{ids: [1]}]}\n"),
            "FILE: metadata.name: \"My_Probe\" is no name; write at most 253 lowercase letters, digits, '-' \
             and '.', such as conntrack",
        ),
        (
            with("metadata: {name: a}\n"),
            "FILE:1:1: spec: is missing; write spec: {maps: [{names: [\"demo_*\"]}]}",
        ),
        (
            with("metadata: {name: a}\nspec: {maps: [{ids: [1]}], windowsSeconds: 9}\n"),
            "FILE:4:28: spec.windowsSeconds: is no field; write one of nodeSelector, maps, operations, callers, \
             activeReads, outliers, aggregation, objectives, windowSeconds",
        ),
        (
            with("metadata: {name: a}\nspec:\n  maps:\n  - names: demo\n"),
            "FILE:6:12: spec.maps[0].names: is the text \"demo\"; write a list, such as [a, b]",
        ),
        (
            with("metadata: {name: a}\nspec: {maps: [{ids: [1]}], operations: [lookup]}\n"),
            "FILE:4:41: spec.operations[0]: \"lookup\" is unknown; write Lookup",
        ),
        (
            with(
                "metadata: {name: a}\nspec: {maps: [{}], windowSeconds: 5, activeReads: {cpus: 3-1}}\n",
            ),
            "FILE: spec.maps[0]: needs names, types, ids, pinPaths or heldBy; to match every map write names: [\"*\"]\n\
             FILE: spec.activeReads.cpus: \"3-1\" counts down; write 1-3 instead of 3-1\n\
             FILE: spec.windowSeconds: is 5; write a number from 10 to 600",
        ),
        (
            with("\tmetadata: {name: a}\n"),
            "FILE:3:1: is no valid YAML: found a tab character that violates indentation at line 3 column 1, while \
             scanning a plain scalar",
        ),
    ];
    assert_refused(&cases);
}

#[test]
fn numbers_namespaces_and_marks_of_editors_are_told_in_words_of_the_file() {
    let head = "apiVersion: maplatency.dev/v1alpha1\nkind: MapLatencyProbe\n";
    let with = |rest: &str| format!("{head}{rest}");
    assert_refused(&[
        (
            format!(
                "\u{feff}{}",
                with("metadata: {name: a, namespace: b}\nspec: {maps: [{ids: [1]}]}\n")
            ),
            "FILE:3:21: metadata.namespace: is no field here, as probes belong to no namespace; leave it out",
        ),
        (
            with(
                "metadata: {name: a}\nspec: {maps: [{ids: [1]}], windowSeconds: 99999999999999999999999}\n",
            ),
            "FILE:4:43: spec.windowSeconds: is 99999999999999999999999; write a number of fewer digits",
        ),
        (
            with("metadata: {name: a}\nspec: {maps: [{ids: [18446744073709551615]}]}\n"),
            "FILE:4:22: spec.maps[0].ids[0]: is 18446744073709551615; write a number of fewer digits",
        ),
    ]);
}

/// Runs the agent with each text as its file, and expects the message.
fn assert_refused(cases: &[(String, &str)]) {
    for (text, message) in cases {
        let file = file(text);
        let path = file.path().to_str().unwrap();
        let output = output(&["run", "-f", path]);
        assert_eq!(
            stderr(&output),
            format!("error: {}\n", message.replace("FILE", path)),
            "{text}"
        );
        assert_eq!(
            (output.status.code(), stdout(&output)),
            (Some(2), ""),
            "{text}"
        );
    }
}

#[test]
fn a_file_of_operations_is_refused_where_none_are_kept_or_it_cannot_be_written() {
    let probe = |strategy: &str| {
        file(&format!(
            "apiVersion: maplatency.dev/v1alpha1\nkind: MapLatencyProbe\nmetadata: {{name: a}}\n\
             spec: {{maps: [{{ids: [1]}}], aggregation: {{strategy: {strategy}}}}}\n"
        ))
    };
    let (counts, direct) = (probe("SlidingWindow"), probe("Direct"));
    let run = |file: &tempfile::NamedTempFile, operations: &str| {
        let path = file.path().to_str().unwrap();
        output(&["run", "-f", path, "--operations", operations])
    };

    let refused = run(&counts, "/dev/null");
    let message = format!(
        "error: {}: spec.aggregation.strategy: is not Direct, without which single operations are not kept, as \
         --operations needs them; write strategy: Direct, or leave --operations out\n",
        counts.path().display()
    );
    assert_eq!(
        (refused.status.code(), stderr(&refused)),
        (Some(2), &*message)
    );

    let failed = run(&direct, "/nowhere/operations.csv");
    let message = "error: could not write operations to /nowhere/operations.csv: No such file or directory (os error 2)\n";
    assert_eq!((failed.status.code(), stderr(&failed)), (Some(1), message));
    let before = std::fs::read(direct.path()).unwrap();
    let same = run(&direct, direct.path().to_str().unwrap());
    let message = format!(
        "error: {}: is the file of --operations, too, which would empty it; write another path there\n",
        direct.path().display()
    );
    assert_eq!((same.status.code(), stderr(&same)), (Some(2), &*message));
    assert_eq!(std::fs::read(direct.path()).unwrap(), before);

    if may_load_probes(
        "a_file_of_operations_is_refused_where_none_are_kept_or_it_cannot_be_written",
    ) {
        let full = run(&direct, "/dev/full");
        let message = "error: could not write operations to /dev/full: No space left on device (os error 28)\n";
        assert_eq!((full.status.code(), stderr(&full)), (Some(1), message));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("probe.yaml");
    let cases = [
        (
            missing.to_str().unwrap(),
            "there is no such file; write the path of a file with a MapLatencyProbe, or - for standard input",
        ),
        (
            folder.path().to_str().unwrap(),
            "is a folder; write the path of a file in it",
        ),
        (
            "-",
            "is empty; write a MapLatencyProbe, beginning with apiVersion: maplatency.dev/v1alpha1",
        ),
    ];
    for (path, message) in cases {
        let output = output(&["run", "-f", path]);
        let name = if path == "-" { "standard input" } else { path };
        assert_eq!(stderr(&output), format!("error: {name}: {message}\n"));
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn a_file_without_end_is_refused() {
    let output = output(&["run", "-f", "/dev/zero"]);
    assert_eq!(
        stderr(&output),
        "error: /dev/zero: is larger than 1 MiB; write one MapLatencyProbe\n"
    );
    assert_eq!(output.status.code(), Some(2));
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

#[test]
fn a_signal_ends_it_in_time_with_the_outcome() {
    if !may_load_probes("a_signal_ends_it_in_time_with_the_outcome") {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let file = file(NOTHING_MATCHES);
        let mut running = Running::start(&["run", "-f", file.path().to_str().unwrap()]);
        running.wait_for("nothing on ");

        let (took, rest) = running.end(signal);

        assert!(took < END, "{signal} took {took:?}");
        assert!(rest.contains("kind: MapLatencyProbe"), "{rest}");
    }
}

#[test]
fn a_signal_before_anything_is_measured_is_no_success() {
    if !may_load_probes("a_signal_before_anything_is_measured_is_no_success") {
        return;
    }
    let file = file(NOTHING_MATCHES);
    let path = file.path().to_str().unwrap();
    let mut told = false;
    // From the moment on at which signals are watched; before it, one ends the process as such.
    for wait in 0..200 {
        let mut command = agent(&["run", "-f", path]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            // It measured already.
            assert!(stdout(&output).contains("kind: MapLatencyProbe"));
            break;
        }
        if output.status.code() == Some(1) {
            told = true;
            assert_eq!(stdout(&output), "");
            assert!(
                stderr(&output).contains("was told to end before anything was measured"),
                "{}",
                stderr(&output)
            );
            break;
        }
    }
    assert!(told, "no signal came between the two");
}

#[test]
fn under_nohup_it_outlives_the_terminal() {
    if !may_load_probes("under_nohup_it_outlives_the_terminal") {
        return;
    }
    let file = file(NOTHING_MATCHES);
    let mut command = Command::new("nohup");
    command.args([BINARY, "run", "-f", file.path().to_str().unwrap()]);
    let mut running = Running::spawn(command.stdin(Stdio::null()));
    running.wait_for("nothing on ");

    running.signal(Signal::SIGHUP);

    running.wait_for("nothing on ");
    running.end(Signal::SIGTERM);
}

/// An agent that runs beside the test, and is killed with it.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        Self::spawn(&mut agent(arguments))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    fn wait_for(&mut self, beginning: &str) {
        let mut line = String::new();
        while !line.starts_with(beginning) {
            line.clear();
            assert_ne!(
                self.stdout.read_line(&mut line).unwrap(),
                0,
                "ended before {beginning:?}"
            );
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Sends a signal; gives the time until the process is gone, and what it still printed.
    fn end(&mut self, signal: Signal) -> (Duration, String) {
        let began = Instant::now();
        self.signal(signal);
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.stdout, &mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        (began.elapsed(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already in a test that passes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
