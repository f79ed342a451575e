//! `BPF_PROG_TEST_RUN` of a raw tracepoint program: runs it in the calling thread, as the calling thread.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::uapi::{Attr, bpf, command};

/// The `test` part of `union bpf_attr`.
#[derive(Default)]
#[repr(C)]
struct TestRunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}
impl Attr for TestRunAttr {}
const _: () = assert!(
    size_of::<TestRunAttr>() == 80,
    "ends with batch_size and padding"
);

/// Runs a raw tracepoint program with one argument and gives its return value. Kernel 5.10 or newer.
pub fn run_raw_tracepoint(program: BorrowedFd<'_>, argument: u64) -> io::Result<u32> {
    let arguments = [argument];
    let mut attr = TestRunAttr {
        prog_fd: u32::try_from(program.as_raw_fd()).expect("an open descriptor is not negative"),
        ctx_in: arguments.as_ptr() as u64,
        ctx_size_in: 8,
        ..TestRunAttr::default()
    };
    // SAFETY: the kernel reads `ctx_size_in` bytes of `arguments`, which outlives the call, and
    // writes to `attr` alone.
    unsafe { bpf(command::PROG_TEST_RUN, &mut attr) }?;
    Ok(attr.retval)
}
