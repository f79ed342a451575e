//! Tracepoints are attached by a number that tracefs tells. Where nobody has mounted it, the thread that loads
//! the probes mounts it for itself alone: in a mount namespace of its own, which goes with the thread.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const TRACEFS: &str = "/sys/kernel/tracing";
const SAMPLE: &str = "events/syscalls/sys_enter_bpf/id";

/// Why there is no tracefs.
#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    /// It is not mounted and may not be.
    #[error(
        "tracefs is not mounted at {TRACEFS} and could not be mounted for this process; mount it, or run with CAP_SYS_ADMIN"
    )]
    Mount(#[source] nix::Error),
    /// It is there, but the kernel traces no system calls.
    #[error(
        "{TRACEFS}/{SAMPLE} does not exist; the kernel is built without CONFIG_FTRACE_SYSCALLS"
    )]
    NoSyscallEvents,
}

/// Makes sure that the calling thread finds tracefs.
pub(super) fn ensure() -> Result<(), TracefsError> {
    let mounted = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .any(|it| Path::new(it).join("events").exists());
    if !mounted {
        mount_privately().map_err(TracefsError::Mount)?;
    }
    let traced = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .any(|it| Path::new(it).join(SAMPLE).exists());
    if traced {
        Ok(())
    } else {
        Err(TracefsError::NoSyscallEvents)
    }
}

fn mount_privately() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Without this the mount would spread to the namespace that this one was copied from.
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )?;
    mount(
        Some("tracefs"),
        TRACEFS,
        Some("tracefs"),
        MsFlags::empty(),
        nothing,
    )?;
    tracing::debug!("Mounted tracefs for this thread alone");
    Ok(())
}
