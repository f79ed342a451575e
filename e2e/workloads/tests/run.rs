//! The program against the running kernel. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use maplatency_bpf::sys::{Map, parse_cpu_list};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_maplatency-workload");
const MILLISECOND: u64 = 1_000_000;

/// Nobody that runs these tests has the leisure to watch them longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs that measure would disturb each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A CPU that these tests may run on.
fn cpu() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .unwrap();
    parse_cpu_list(list).unwrap()[0].to_string()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["--output", "json", "--reader-cpu", &cpu()])
        .args(args);
    command
}

/// Runs to the end and hands back the result line.
fn result(args: &[&str]) -> Value {
    let output = command(args).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["event"], "ready");
    assert_eq!(lines[1]["event"], "result");
    lines[1].clone()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A run that is talked to while it lasts.
struct Run {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Run {
    fn start(args: &[&str]) -> Self {
        let mut child = command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn begin(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// CPU time of the thread with this name, if there is one.
    fn cpu_time(&self, thread: &str) -> Option<Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        tasks.flatten().find_map(|task| {
            let comm = fs::read_to_string(task.path().join("comm")).ok()?;
            let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let nanoseconds = schedstat.split(' ').next()?.parse().ok()?;
            (comm.trim_end() == thread).then_some(Duration::from_nanos(nanoseconds))
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // A failed test leaves nothing running; after a good one there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_record_holds_every_read_and_the_result_is_what_it_comes_to() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("record");

    let result = result(&[
        "--rate",
        "0",
        "--reads",
        "20000",
        "--no-refresh",
        "--record",
        file.to_str().unwrap(),
    ]);

    let bytes = fs::read(file).unwrap();
    let mut latencies: Vec<u64> = bytes
        .chunks(8)
        .map(|it| u64::from_le_bytes(it.try_into().unwrap()))
        .collect();
    latencies.sort_unstable();
    assert_eq!(latencies.len(), 20_000);
    assert_eq!(number(&result["reads"]), 20_000);
    assert_eq!(number(&result["misses"]) + number(&result["errors"]), 0);
    assert_eq!(number(&result["unrecordedReads"]), 0);
    for (name, rank) in [
        ("minNanoseconds", 1),
        ("p50Nanoseconds", 10_000),
        ("p90Nanoseconds", 18_000),
        ("p99Nanoseconds", 19_800),
        ("p999Nanoseconds", 19_980),
        ("p9999Nanoseconds", 19_998),
        ("maxNanoseconds", 20_000),
    ] {
        assert_eq!(number(&result[name]), latencies[rank - 1], "{name}");
    }
}

#[test]
fn a_reader_with_nothing_beside_it_has_a_p99_of_microseconds() {
    let _alone = alone();

    let result = result(&["--rate", "0", "--for", "1s", "--no-refresh"]);

    assert!(
        number(&result["p99Nanoseconds"]) < MILLISECOND / 10,
        "{result}"
    );
    assert_eq!(result["refresher"], Value::Null);
    assert_eq!(result["cpuSeen"].as_array().unwrap().len(), 1);
}

#[test]
fn a_refresh_on_the_readers_cpu_makes_reads_of_milliseconds() {
    let _alone = alone();

    let result = result(&["--rate", "0", "--for", "2s", "--refresh-period", "500ms"]);

    assert!(number(&result["maxNanoseconds"]) > MILLISECOND, "{result}");
    let lost = number(&result["slow"]["lostNanoseconds"]);
    assert!(lost > 10 * MILLISECOND, "{result}");
    let refresher = &result["refresher"];
    assert!(number(&refresher["refreshes"]) >= 1, "{result}");
    let first = number(&refresher["list"][0]["startNanoseconds"]);
    assert!(first >= 500 * MILLISECOND, "{result}");
    assert!(
        number(&result["p50Nanoseconds"]) < MILLISECOND / 10,
        "half of all reads do not meet a refresh: {result}"
    );
}

#[test]
fn hogs_on_the_readers_cpu_take_it_away_from_the_reader() {
    let _alone = alone();

    let result = result(&["--rate", "0", "--for", "1s", "--no-refresh", "--hogs", "2"]);

    assert!(number(&result["maxNanoseconds"]) > MILLISECOND, "{result}");
    assert!(number(&result["involuntarySwitches"]) > 0, "{result}");
}

#[test]
fn a_paced_reader_makes_or_counts_every_read_of_its_schedule() {
    let _alone = alone();

    let result = result(&["--rate", "2000", "--for", "1s", "--no-refresh"]);

    let skipped = number(&result["lateStarts"]["skippedReads"]);
    assert_eq!(number(&result["reads"]) + skipped, 2_000, "{result}");
}

#[test]
fn the_map_is_there_before_the_first_read_and_until_stdin_closes() {
    let _alone = alone();
    let mut run = Run::start(&["--reads", "100", "--wait-for-start", "--hold"]);

    let ready = run.line();
    let id = u32::try_from(number(&ready["mapId"])).unwrap();
    assert_eq!(ready["mapName"], "demo_conntrack");
    assert_eq!(number(&ready["pid"]), u64::from(run.child.id()));
    assert_eq!(
        Map::from_id(id).unwrap().info().unwrap().name,
        "demo_conntrack"
    );
    for thread in ["demo-reader", "demo-refresher"] {
        assert!(run.cpu_time(thread).is_some(), "{thread} is not there");
    }

    run.begin();
    assert_eq!(number(&run.line()["reads"]), 100);
    assert!(Map::from_id(id).is_ok(), "the map is gone before its time");

    drop(run.stdin.take());
    assert!(run.child.wait().unwrap().success());
    // The kernel frees a map some time after the last descriptor is closed.
    wait_until("the map is gone", || Map::from_id(id).is_err());
}

#[test]
fn sigterm_ends_an_endless_run_with_its_result() {
    let _alone = alone();
    let mut run = Run::start(&["--wait-for-start"]);
    run.line();

    run.begin();
    wait_until("the reader reads", || {
        run.cpu_time("demo-reader") > Some(Duration::from_millis(20))
    });
    kill(Pid::from_raw(run.child.id().cast_signed()), Signal::SIGTERM).unwrap();

    assert!(number(&run.line()["reads"]) > 0);
    assert!(run.child.wait().unwrap().success());
}

#[test]
fn who_may_not_create_maps_is_told_what_is_missing() {
    let _alone = alone();
    // The build folder may be closed to other users, so they get a copy.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join("workload");
    fs::copy(PROGRAM, &copy).unwrap();

    let output = as_nobody(&copy);

    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("needs CAP_BPF (root)"), "{message}");
    assert!(
        message.contains("could not create the map demo_conntrack"),
        "{message}"
    );
}

fn as_nobody(program: &Path) -> Output {
    Command::new(program)
        .args(["--reads", "1", "--reader-cpu", &cpu()])
        .uid(65_534)
        .gid(65_534)
        .current_dir("/")
        .output()
        .unwrap()
}

#[test]
fn a_cpu_that_is_not_there_is_refused_with_its_option_and_the_alternatives() {
    let output = command(&["--refresher-cpu", "1023"]).output().unwrap();

    let message = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        message.contains("--refresher-cpu: CPU 1023 is not online"),
        "{message}"
    );
    assert!(message.contains("allowed on CPU"), "{message}");
}
