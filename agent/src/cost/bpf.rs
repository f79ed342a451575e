//! Memory and run time of the agent's BPF objects, as the kernel tells them in `/proc/self/fdinfo`.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use aya::sys::{Stats, enable_stats};
use maplatency_core::cost::BpfRunTime;
use tracing::debug;

use crate::clock;
use crate::error::chain;

/// Whether run times are counted all the time, for everybody.
const ALWAYS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Memory that the kernel accounts to these maps or programs, in bytes.
///
/// From 6.4 on a map tells what it has allocated. Before, it tells entries × (key + value), as if it were full.
/// Programs tell the pages of their instructions, without the translated code.
pub(super) fn memory(objects: &[OwnedFd]) -> Option<u64> {
    objects
        .iter()
        .map(|it| field(&fdinfo(it)?, "memlock"))
        .sum()
}

/// Run times of programs. The kernel counts them only while somebody asks it to.
#[derive(Default)]
pub(super) struct RunTimes {
    /// The newest sums, if the kernel was counting then for everybody.
    running: Option<Sums>,
}

/// A span under way.
pub(super) struct Span {
    before: Sums,
    /// The kernel counts as long as this is open. `None`: it does anyway.
    counting: Option<OwnedFd>,
}

/// What programs have run since they were loaded.
#[derive(Clone, Copy)]
struct Sums {
    at: u64,
    nanoseconds: u64,
    runs: u64,
}

impl RunTimes {
    /// Begins a span. `None` if the kernel counts nothing. Kernel 5.8 or newer, and `CAP_SYS_ADMIN`.
    pub(super) fn begin(&mut self, programs: &[OwnedFd]) -> Option<Span> {
        if fs::read_to_string(ALWAYS).is_ok_and(|it| it.trim() == "1") {
            let now = Sums::read(programs)?;
            // Since the last look, which tells more than a span.
            let before = self.running.unwrap_or(now);
            return Some(Span {
                before,
                counting: None,
            });
        }
        self.running = None;
        let counting = enable_stats(Stats::RunTime)
            .inspect_err(|it| debug!(error = chain(it), "The kernel does not count run times"))
            .ok()?;
        Some(Span {
            before: Sums::read(programs)?,
            counting: Some(counting),
        })
    }

    /// Ends it.
    pub(super) fn end(&mut self, span: Option<Span>, programs: &[OwnedFd]) -> Option<BpfRunTime> {
        let Span { before, counting } = span?;
        let now = Sums::read(programs)?;
        if counting.is_none() {
            self.running = Some(now);
        }
        now.since(before)
    }
}

impl Sums {
    fn read(programs: &[OwnedFd]) -> Option<Self> {
        let at = clock::monotonic_nanoseconds();
        let texts: Option<Vec<String>> = programs.iter().map(fdinfo).collect();
        Self::of(at, &texts?)
    }

    fn of(at: u64, texts: &[String]) -> Option<Self> {
        if texts.is_empty() {
            return None;
        }
        let sum = |name| texts.iter().map(|it| field(it, name)).sum::<Option<u64>>();
        Some(Self {
            at,
            nanoseconds: sum("run_time_ns")?,
            runs: sum("run_cnt")?,
        })
    }

    fn since(self, before: Self) -> Option<BpfRunTime> {
        Some(BpfRunTime {
            span_nanoseconds: self.at.checked_sub(before.at).filter(|it| *it > 0)?,
            run_nanoseconds: self.nanoseconds.checked_sub(before.nanoseconds)?,
            runs: self.runs.checked_sub(before.runs)?,
        })
    }
}

fn fdinfo(object: &OwnedFd) -> Option<String> {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd())).ok()
}

fn field(fdinfo: &str, name: &str) -> Option<u64> {
    let value = fdinfo
        .lines()
        .find_map(|it| it.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 6.18.
    const MAP: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t2079\nmap_type:\t1\nkey_size:\t4\n\
        value_size:\t8\nmax_entries:\t1024\nmap_flags:\t0x0\nmap_extra:\t0x0\nmemlock:\t82176\nmap_id:\t31\n\
        frozen:\t0\n";
    /// Of 6.18.
    const PROGRAM: &str = "pos:\t0\nflags:\t02000000\nmnt_id:\t17\nino:\t2079\nprog_type:\t26\nprog_jited:\t1\n\
        prog_tag:\ta1b2c3d4e5f60718\nmemlock:\t8192\nprog_id:\t62\nrun_time_ns:\t123456\nrun_cnt:\t321\n\
        recursion_misses:\t0\nverified_insns:\t1507\n";

    #[test]
    fn fields_are_found_by_their_whole_name() {
        assert_eq!(field(MAP, "memlock"), Some(82_176));
        assert_eq!(field(PROGRAM, "memlock"), Some(8_192));
        assert_eq!(field(PROGRAM, "run_time_ns"), Some(123_456));
        assert_eq!(field(PROGRAM, "run_time"), None);
        assert_eq!(field("memlock:\tmuch\n", "memlock"), None);
    }

    #[test]
    fn a_program_without_run_times_makes_the_sum_unknown() {
        let with = PROGRAM.to_owned();
        // Kernels before 5.1.
        let without = PROGRAM.replace("run_cnt", "other");
        let sums = Sums::of(5, &[with.clone(), with.clone()]).unwrap();
        assert_eq!((sums.nanoseconds, sums.runs), (246_912, 642));
        assert!(Sums::of(5, &[with, without]).is_none());
        assert!(
            Sums::of(5, &[]).is_none(),
            "no program is not a sum of none"
        );
    }

    #[test]
    fn a_run_time_is_that_of_the_span() {
        let before = Sums {
            at: 1_000,
            nanoseconds: 100,
            runs: 2,
        };
        let after = Sums {
            at: 5_000,
            nanoseconds: 700,
            runs: 5,
        };
        let expected = BpfRunTime {
            span_nanoseconds: 4_000,
            run_nanoseconds: 600,
            runs: 3,
        };
        assert_eq!(after.since(before), Some(expected));
        assert_eq!(before.since(after), None);
        assert_eq!(after.since(after), None, "a span has a length");
    }

    #[test]
    fn what_is_no_bpf_object_has_no_memory() {
        let file = fs::File::open("/dev/null").unwrap();
        assert_eq!(memory(&[file.into()]), None);
    }
}
