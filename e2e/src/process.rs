//! Child processes that tests start, watch and stop.
//!
//! Guarantees: a [`Daemon`] is gone when its value is dropped, and also when the test process dies
//! without dropping anything (a signal, an abort, `cargo test` killed in CI). Only processes
//! started here are ever signalled, by pid, and a pid is used only before it is reaped, so it
//! cannot have passed to another process.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{self, Signal},
    },
    unistd::{self, Pid},
};

/// Lines of a log that an error carries: enough for a panic or a usage message.
const TAIL: usize = 25;

/// A child process that runs beside the test, with its output in a file.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

/// How a [`Daemon`] ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// What the process left behind: its exit code, or the signal that ended it.
    pub status: ExitStatus,
    /// From the request to stop until the process was gone.
    pub took: Duration,
    /// It did not heed SIGTERM in time and was killed.
    pub forced: bool,
}

impl Daemon {
    /// Starts `command`, with no stdin, and with stdout and stderr appended to the file `log`.
    ///
    /// `name` is how errors call the process.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("could not open {}, the log of {name}", log.display()))?;
        let err = out
            .try_clone()
            .with_context(|| format!("could not share the log of {name}"))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        die_with_this_process(&mut command);
        let program = command.get_program().to_owned();
        let child = spawn_from_lasting_thread(command)
            .with_context(|| format!("could not start {name} ({})", program.display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that receives stdout and stderr.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// All that the process has written so far.
    pub fn output(&self) -> Result<String> {
        let bytes = fs::read(&self.log)
            .with_context(|| format!("could not read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines of [`Self::output`], for error messages.
    pub fn log_tail(&self) -> String {
        let output = match self.output() {
            Ok(output) if output.trim().is_empty() => return "(it wrote nothing)".to_owned(),
            Ok(output) => output,
            Err(error) => return format!("({error:#})"),
        };
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// The exit status, once the process has ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("could not ask for the state of {}", self.name))
    }

    /// Fails, with the end of the log, if the process has ended.
    pub fn ensure_alive(&mut self) -> Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended by itself ({status}); its log ends:\n{}",
                self.name,
                self.log_tail()
            ),
        }
    }

    /// Sends SIGTERM, waits for the end, and sends SIGKILL if that takes longer than `grace`.
    ///
    /// Blocks the calling thread. A process that has ended before is reported with no time taken.
    pub fn terminate(&mut self, grace: Duration) -> Result<Ended> {
        let begin = Instant::now();
        if self.exited()?.is_none() {
            self.signal(Signal::SIGTERM)?;
        }
        let on_time = self.wait_at_most(grace)?;
        let status = match on_time {
            Some(status) => status,
            None => self.kill()?,
        };
        Ok(Ended {
            status,
            took: begin.elapsed(),
            forced: on_time.is_none(),
        })
    }

    /// Sends SIGKILL and waits for the end. A process that has ended before is left as it is.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .with_context(|| format!("could not kill {}", self.name))
    }

    /// Stops the process where it is, until [`Self::resume`].
    pub fn suspend(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a suspended process go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// What Ctrl-C does.
    pub fn interrupt(&self) -> Result<()> {
        self.signal(Signal::SIGINT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).expect("pids are positive and fit an i32");
        match signal::kill(Pid::from_raw(pid), signal) {
            // It has ended but is not reaped, or ended since the last look.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => {
                Err(errno).with_context(|| format!("could not send {signal} to {}", self.name))
            }
        }
    }

    fn wait_at_most(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.exited()? {
                return Ok(Some(status));
            }
            if begin.elapsed() >= limit {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    /// Kills the process if it still runs. A test that cares how it ends calls
    /// [`Daemon::terminate`].
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

impl Ended {
    /// Fails unless the process ended by itself with exit code 0.
    pub fn ensure_clean(&self) -> Result<()> {
        let Self {
            status,
            took,
            forced,
        } = self;
        ensure!(!forced, "it ignored SIGTERM and was killed after {took:?}");
        if let Some(signal) = status.signal() {
            bail!("signal {signal} ended it after {took:?}");
        }
        ensure!(status.success(), "it ended with {status} after {took:?}");
        Ok(())
    }
}

/// Lets the kernel kill the child as soon as the thread that started it ends.
#[allow(
    unsafe_code,
    reason = "only code between fork and exec can ask for the signal, and `pre_exec` is unsafe"
)]
pub(crate) fn die_with_this_process(command: &mut Command) {
    let parent = unistd::getpid();
    let hook = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // A parent that died before the call above sends nothing any more.
        if unistd::getppid() == parent {
            Ok(())
        } else {
            Err(io::Error::from(Errno::ESRCH))
        }
    };
    // SAFETY: the hook runs in a forked copy of a process with many threads, where only
    // async-signal-safe calls are sound. It makes two system calls (prctl, getppid), and its errors
    // are plain error numbers, so it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(hook);
    }
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts `command` from a thread that lives as long as this process.
///
/// "Parent death" means the death of the *thread* that forked. Test threads and the threads of an
/// async runtime end while the process goes on, and would take their children with them.
fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in received {
                // The receiver is gone only if its thread was, and then nobody misses the child.
                _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    spawner
        .send((command, answer))
        .map_err(|_| anyhow!("the spawning thread has ended"))?;
    child
        .recv()
        .context("the spawning thread has ended")?
        .context("the system refused")
}

/// The path of a binary of this workspace, built with the same profile as the running test.
///
/// Cargo builds binaries of other packages only when asked to, so the error names the command.
pub fn workspace_binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("could not find the path of this test")?;
    // target/<profile>/deps/<test>-<hash>
    let profile = test
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .context("this test lies in no folder")?;
    let path = profile.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let flags = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => String::new(),
        Some(profile) => format!(" --profile {profile}"),
    };
    bail!(
        "{} is missing; `cargo build --workspace --locked{flags}` makes it",
        path.display()
    )
}
