//! Signals, and what it still says when one comes.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{BINARY, NOTHING_MATCHES, agent, file, may_load_probes, stderr, stdout};

/// Within this time the agent ends when it is told to, however slow the machine.
const END: Duration = Duration::from_secs(2);

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
