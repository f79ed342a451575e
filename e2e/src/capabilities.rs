//! Processes and threads that lack capabilities of root.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, ensure};
use nix::errno::Errno;

/// What agents may need, with the kernel's numbers (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// `CAP_DAC_READ_SEARCH`.
    DacReadSearch = 2,
    /// `CAP_SYS_PTRACE`.
    SysPtrace = 19,
    /// `CAP_SYS_ADMIN`.
    SysAdmin = 21,
    /// `CAP_PERFMON`.
    Perfmon = 38,
    /// `CAP_BPF`.
    Bpf = 39,
}

impl Capability {
    const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// No kernel has more yet.
const CAPABILITIES: u32 = 64;

/// Lets the process have these capabilities and no others, as a container runtime does: root gets at exec what the
/// bounding set holds.
#[allow(
    unsafe_code,
    reason = "only code between fork and exec can change the child alone, and `pre_exec` is unsafe"
)]
pub fn keep(command: &mut Command, kept: &[Capability]) {
    let kept = kept.iter().fold(0, |all, it| all | it.bit());
    let hook = move || {
        for number in 0..CAPABILITIES {
            if kept >> number & 1 == 0 {
                // SAFETY: prctl with this option takes a number and touches no memory.
                let answer = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
                let error = Errno::last();
                // This kernel has fewer.
                if answer != 0 && error != Errno::EINVAL {
                    return Err(io::Error::from(error));
                }
            }
        }
        Ok(())
    };
    // SAFETY: the hook runs in a forked copy of a process with many threads, where only async-signal-safe calls are
    // sound. It makes system calls, and its errors are plain error numbers, so it neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Runs `work` on a thread that has these capabilities and no others.
pub fn with_only<T: Send>(kept: &[Capability], work: impl FnOnce() -> T + Send) -> Result<T> {
    let kept = kept.iter().fold(0, |all, it| all | it.bit());
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            set(kept)?;
            Ok(work())
        });
        thread
            .join()
            .expect("the work panics only with a failed test")
    })
}

/// `struct __user_cap_header_struct` and `struct __user_cap_data_struct` of the same header.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn set(capabilities: u64) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let half = |it: u64| {
        let it = u32::try_from(it & u64::from(u32::MAX)).expect("it is masked");
        Data {
            effective: it,
            permitted: it,
            inheritable: 0,
        }
    };
    let data = [half(capabilities), half(capabilities >> 32)];
    #[allow(
        unsafe_code,
        reason = "the C library has no wrapper of this system call"
    )]
    // SAFETY: the kernel reads a header of version 3 and the two halves that this version has; both live through the
    // call, and pid 0 is the calling thread.
    let answer = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    let error = io::Error::last_os_error();
    ensure!(answer == 0, "could not drop capabilities: {error}");
    Ok(())
}
