//! What there is in this kernel.

use std::io;

use super::uapi::{IdAttr, bpf, command};

/// The ids of all maps of this kernel, rising. Needs `CAP_SYS_ADMIN`. Kernel 4.13 or newer.
///
/// A map that is created or freed meanwhile may be in or out.
pub fn map_ids() -> io::Result<Vec<u32>> {
    ids(command::MAP_GET_NEXT_ID)
}

/// The ids of all BPF programs of this kernel, as [`map_ids`].
pub fn program_ids() -> io::Result<Vec<u32>> {
    ids(command::PROG_GET_NEXT_ID)
}

/// The ids of all BPF links of this kernel, as [`map_ids`]. Kernel 5.8 or newer.
pub fn link_ids() -> io::Result<Vec<u32>> {
    ids(command::LINK_GET_NEXT_ID)
}

fn ids(next: u32) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    let mut attr = IdAttr {
        id: 0,
        next_id: 0,
        open_flags: 0,
    };
    loop {
        // SAFETY: the kernel writes `next_id` of `attr` and nothing else.
        match unsafe { bpf(next, &mut attr) } {
            Ok(_) => {
                ids.push(attr.next_id);
                attr.id = attr.next_id;
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(ids),
            Err(error) => return Err(error),
        }
    }
}
