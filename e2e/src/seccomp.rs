//! A kernel that refuses a command of bpf(2), for one thread and those that it starts.

use anyhow::{Result, ensure};

/// What the kernel can be made to refuse.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// `BPF_PROG_LOAD`.
    ProgLoad = 5,
    /// `BPF_ITER_CREATE`.
    IterCreate = 33,
}

/// Lets the kernel answer a command with EPERM to the calling thread and to those that it starts, for ever.
pub fn refuse(command: Refused) -> Result<()> {
    // Offsets in struct seccomp_data: the system call's number, and the lower half of its first argument.
    const NUMBER: u32 = 0;
    const COMMAND: u32 = if cfg!(target_endian = "little") {
        16
    } else {
        20
    };
    let load = |at| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at);
    let answer = |it| statement(libc::BPF_RET | libc::BPF_K, it);
    let call = u32::try_from(libc::SYS_bpf)?;
    let mut filter = [
        load(NUMBER),
        unless(call, 3),
        load(COMMAND),
        unless(command as u32, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len())?,
        filter: filter.as_mut_ptr(),
    };
    #[allow(unsafe_code, reason = "the C library has no safe wrapper")]
    // SAFETY: the kernel reads the program and its `len` instructions, and both live through the call.
    let failed = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::c_ulong::from(libc::SECCOMP_MODE_FILTER),
            &raw const program,
        )
    };
    let error = std::io::Error::last_os_error();
    ensure!(failed == 0, "could not filter system calls: {error}");
    Ok(())
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).expect("an instruction has 16 bits"),
        jt: 0,
        jf: 0,
        k,
    }
}

/// Skips so many instructions unless what was loaded is `value`.
fn unless(value: u32, skipped: u8) -> libc::sock_filter {
    libc::sock_filter {
        jf: skipped,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value)
    }
}
