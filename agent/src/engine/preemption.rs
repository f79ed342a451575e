//! Whether the running kernel may skip tracepoints without telling.

use std::fs;

use nix::sys::utsname::uname;

/// The first release that counts the tracepoints of system calls that it skips, by program.
const TELLS: (u32, u32) = (6, 7);
/// What debugfs says, where it is mounted: every model, with the chosen one in brackets.
const SCHEDULER: &str = "/sys/kernel/debug/sched/preempt";

/// Whether tracepoints of system calls may be skipped here, and nobody learns how many.
///
/// The kernel runs none while a task was stopped on that CPU amid a write to a map or a batch (`bpf_prog_active`), which
/// happens where it preempts fully.
pub(super) fn skips_tracepoints_unnoticed() -> bool {
    let Ok(kernel) = uname() else {
        return false;
    };
    let release = kernel.release().to_string_lossy();
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    number_of(&release) < TELLS
        && preempts_fully(
            &kernel.version().to_string_lossy(),
            fs::read_to_string(SCHEDULER).ok().as_deref(),
            &command_line,
        )
}

/// Major and minor number of a release such as `6.1.0-56-cloud-amd64`.
fn number_of(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|it| it.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether tasks are preempted nearly everywhere, by what `uname -v`, debugfs and the kernel's command line say.
///
/// A kernel that can be told at boot, and was not, has a default of its own that none of them names; distributions choose
/// another than this one before 6.7.
fn preempts_fully(version: &str, scheduler: Option<&str>, command_line: &str) -> bool {
    let says = |word| version.split_whitespace().any(|it| it == word);
    if !says("PREEMPT_DYNAMIC") {
        return says("PREEMPT") || says("PREEMPT_RT");
    }
    if let Some(scheduler) = scheduler {
        return scheduler.contains("(full)");
    }
    let told = command_line
        .split_whitespace()
        .filter_map(|it| it.strip_prefix("preempt="))
        .next_back();
    told == Some("full")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DYNAMIC: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-1 (2026-09-30)";

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(number_of("6.1.0-56-cloud-amd64"), (6, 1));
        assert_eq!(number_of("6.12.117+deb12-rt-amd64"), (6, 12));
        assert!(number_of("6.10-rc1") > TELLS && number_of("5.15.0") < TELLS);
        assert_eq!(number_of(""), (0, 0));
    }

    #[test]
    fn a_kernel_that_can_be_told_does_as_it_was_told() {
        let none = Some("(none) voluntary full\n");
        let full = Some("none voluntary (full)\n");
        assert!(preempts_fully(DYNAMIC, full, ""));
        assert!(!preempts_fully(DYNAMIC, none, "preempt=full"));
        assert!(preempts_fully(
            DYNAMIC,
            None,
            "ro preempt=none preempt=full"
        ));
        assert!(!preempts_fully(DYNAMIC, None, "ro preempt=voluntary"));
        assert!(!preempts_fully(DYNAMIC, None, "ro quiet"));
    }

    #[test]
    fn others_say_it_in_their_version() {
        assert!(preempts_fully("#1 SMP PREEMPT Thu Nov 26", None, ""));
        assert!(preempts_fully("#1 SMP PREEMPT_RT Debian 6.1", None, ""));
        assert!(!preempts_fully("#1 SMP Debian 5.15", None, "preempt=full"));
    }
}
