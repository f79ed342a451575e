//! A tool at work: a child process that says when it is ready, and is ended by SIGINT.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(30);

/// Where a tool says that it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    Output,
    Log,
    Nothing,
}

/// A tool at work.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// What it said after it was ready, on each of two streams.
    rest: Receiver<(Stream, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Output,
    Log,
}

/// What a tool said from when it was ready.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) output: String,
    pub(crate) log: String,
}

impl Running {
    pub(crate) fn start(
        mut command: Command,
        input: Option<&str>,
        ready: &'static str,
        says: Says,
    ) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
            stdin.write_all(text.as_bytes())?;
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = stdout.zip(stderr).context("a pipe is missing")?;
        let (tell_rest, rest) = channel();
        let mut running = Self { child, rest };
        let (told, heard) = channel();
        let listen = |which: Stream, stream: Box<dyn std::io::Read + Send>, waits: bool| {
            let told = told.clone();
            let tell_rest = tell_rest.clone();
            thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while waits && stream.read_line(&mut line).is_ok_and(|it| it > 0) {
                    if line.contains(ready) {
                        // Fails when nobody waits any more.
                        let _ = told.send(());
                        break;
                    }
                    line.clear();
                }
                // Whatever it says later is not to block it.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest);
                // Fails when it was dropped and not stopped.
                let _ = tell_rest.send((which, String::from_utf8_lossy(&rest).into_owned()));
            });
        };
        listen(Stream::Output, Box::new(stdout), says == Says::Output);
        listen(Stream::Log, Box::new(stderr), says == Says::Log);
        if says == Says::Nothing {
            return Ok(running);
        }
        match heard.recv_timeout(PATIENCE) {
            Ok(()) => Ok(running),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let ended = running.child.try_wait()?;
                bail!("{name} was not ready in time (ended: {ended:?})")
            }
        }
    }

    pub(crate) fn pid(&self) -> anyhow::Result<Pid> {
        let id = i32::try_from(self.child.id()).context("a process id is no i32")?;
        Ok(Pid::from_raw(id))
    }

    /// Ends it; it has to have been at work until then. Gives what it said.
    pub(crate) fn stop(mut self) -> anyhow::Result<Said> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it had ended already: {status}");
        }
        kill(self.pid()?, Signal::SIGINT)?;
        self.child.wait()?;
        // Both streams end with it.
        let mut said = Said::default();
        for _ in 0..2 {
            match self.rest.recv()? {
                (Stream::Output, text) => said.output = text,
                (Stream::Log, text) => said.log = text,
            }
        }
        Ok(said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
