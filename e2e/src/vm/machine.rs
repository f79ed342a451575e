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
/// Times that a machine is started if QEMU breaks it.
const ATTEMPTS: usize = 3;
/// What a kernel says that QEMU broke: while it changes its own code, as it does when a tracepoint is attached, QEMU
/// may run the breakpoint of the change on another CPU when the change is over already. Or a CPU runs into it for ever.
const BROKEN: [&str; 2] = ["int3: 0000 [#1]", "Kernel panic - not syncing: softlockup"];
/// Twice so many seconds without a switch of tasks are a panic. A busy host alone holds a machine up for some.
const WATCHDOG: u32 = 50;

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

    /// Runs it to its end, and again if QEMU broke it.
    pub fn run(&self) -> Result<Ended> {
        for _ in 1..ATTEMPTS {
            let ended = self.once()?;
            let console = fs::read(self.console()).context("could not read the console")?;
            let console = String::from_utf8_lossy(&console);
            if BROKEN.iter().all(|it| !console.contains(it)) {
                return Ok(ended);
            }
            println!("QEMU broke the kernel's change of its own code; once more");
        }
        self.once()
    }

    fn once(&self) -> Result<Ended> {
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
            .args([
                "-machine",
                "q35",
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max",
            ])
            .args(["-smp", "2", "-m", "2G"])
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
                "console=ttyS0 panic=-1 oops=panic softlockup_panic=1 watchdog_thresh={WATCHDOG} preempt={}",
                self.preempt
            ));
        command
    }
}
