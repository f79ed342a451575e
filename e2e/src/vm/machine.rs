//! One virtual machine: QEMU, without KVM, with two CPUs and a time limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::process::Daemon;

use super::plan::Preempt;

const PAUSE: Duration = Duration::from_millis(200);
/// How time goes by in a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As on this host, while QEMU executes what it can.
    Host,
    /// A nanosecond for every instruction, and none while all CPUs wait. So times in the machine are instructions, and
    /// do not depend on this host.
    Instructions,
}

/// What a machine is made of.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The kernel's image.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// How its kernel preempts.
    pub preempt: Preempt,
    /// Where its logs go.
    pub logs: &'a Path,
    /// How long it may run.
    pub limit: Duration,
    /// How time goes by in it.
    pub pace: Pace,
}

/// How a machine ended.
#[derive(Debug)]
pub struct Ended {
    /// What it said on its second serial port.
    pub said: String,
    /// From the start until it said its first word.
    pub boot: Duration,
    /// From the start to the end.
    pub took: Duration,
    /// It was ended because its time was over.
    pub hung: bool,
}

impl Machine<'_> {
    /// The console, with all that the kernel and the tests wrote.
    pub fn console(&self) -> PathBuf {
        self.logs.join("console.log")
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<Ended> {
        fs::create_dir_all(self.logs)
            .with_context(|| format!("could not make {}", self.logs.display()))?;
        let said = self.logs.join("said.log");
        let own = self.logs.join("qemu.log");
        for log in [&self.console(), &said, &own] {
            fs::write(log, "").with_context(|| format!("could not write {}", log.display()))?;
        }
        let begin = Instant::now();
        let mut boot = None;
        let mut qemu = Daemon::spawn("the machine", self.command(&said), &own)?;
        let hung = loop {
            if boot.is_none() && fs::metadata(&said).is_ok_and(|it| it.len() > 0) {
                boot = Some(begin.elapsed());
            }
            if qemu.exited()?.is_some() {
                break false;
            }
            if begin.elapsed() > self.limit {
                qemu.kill()?;
                break true;
            }
            thread::sleep(PAUSE);
        };
        let said = fs::read(&said).context("could not read what the machine said")?;
        Ok(Ended {
            said: String::from_utf8_lossy(&said).into_owned(),
            boot: boot.unwrap_or_default(),
            took: begin.elapsed(),
            hung,
        })
    }

    fn command(&self, said: &Path) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-monitor", "none"])
            .args(["-machine", "q35", "-cpu", "max"])
            // In one thread for both CPUs. In several, QEMU breaks a kernel that changes its own code, as it does when
            // a tracepoint is attached: a CPU runs into a breakpoint that is gone already, or for ever.
            .args(["-accel", "tcg,thread=single"])
            .args(["-smp", "2", "-m", "2G"])
            .args(match self.pace {
                Pace::Host => &[][..],
                Pace::Instructions => &["-icount", "shift=0,sleep=off"],
            })
            .arg("-serial")
            .arg(format!("file:{}", self.console().display()))
            .arg("-serial")
            .arg(format!("file:{}", said.display()))
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            // A panic ends the machine, since it may not reboot.
            .arg("-append")
            .arg(format!(
                "console=ttyS0 panic=-1 oops=panic{}",
                self.preempt()
            ));
        command
    }

    fn preempt(&self) -> String {
        match self.preempt {
            Preempt::Realtime => String::new(),
            chosen => format!(" preempt={chosen}"),
        }
    }
}
