//! What the main thread waits for: signals, standard input, and the end of the reader.

use std::io::{self, BufRead, StdinLock};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGINT and SIGTERM as something to wait for, so that no handler interrupts a timed read.
#[derive(Debug)]
pub(crate) struct Control {
    signals: SignalFd,
}

/// What came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// SIGINT or SIGTERM.
    Signal,
    /// The descriptor has data, or its other end is closed.
    Ready,
}

impl Control {
    /// Blocks both signals, in this thread and in all that it starts from now on.
    pub(crate) fn new() -> Result<Self> {
        let set = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        set.thread_block().context("could not block signals")?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)
            .context("could not open a descriptor for signals")?;
        Ok(Self { signals })
    }

    /// Waits for a signal or for `other`.
    pub(crate) fn wait(&self, other: BorrowedFd<'_>) -> Result<Event> {
        let mut fds = [self.signals.as_fd(), other].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => (),
                Err(error) => return Err(error).context("could not wait for an event"),
                Ok(_) if fds[0].any().unwrap_or(true) => {
                    // Taking the signal off the queue lets the next wait work.
                    self.signals
                        .read_signal()
                        .context("could not read a signal")?;
                    return Ok(Event::Signal);
                }
                Ok(_) => return Ok(Event::Ready),
            }
        }
    }

    /// Waits for a newline on standard input.
    pub(crate) fn wait_for_newline(&self, stdin: &mut StdinLock<'_>) -> Result<()> {
        while self.wait(io::stdin().as_fd())? == Event::Ready {
            let bytes = stdin.fill_buf().context("could not read stdin")?;
            if bytes.is_empty() {
                bail!("stdin was closed before the newline that starts the reads");
            }
            let newline = bytes.iter().position(|&byte| byte == b'\n');
            let used = newline.map_or(bytes.len(), |position| position + 1);
            stdin.consume(used);
            if newline.is_some() {
                return Ok(());
            }
        }
        bail!("stopped by a signal before the first read");
    }

    /// Waits until standard input is closed, or for a signal.
    pub(crate) fn wait_for_close(&self, stdin: &mut StdinLock<'_>) -> Result<()> {
        while self.wait(io::stdin().as_fd())? == Event::Ready {
            let unread = stdin.fill_buf().context("could not read stdin")?.len();
            if unread == 0 {
                break;
            }
            stdin.consume(unread);
        }
        Ok(())
    }
}
