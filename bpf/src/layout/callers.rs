//! Processes: those that call, and those that hold maps open.

use super::{CGROUP_LEVELS, CGROUP_NAME, number, text};

/// `struct caller_key`: a process between two calls of execve(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct CallerKey {
    /// When the process began.
    pub start_ns: u64,
    /// How often a program was begun in it.
    pub exec_id: u64,
    /// Its id in the kernel's own numbering.
    pub tgid: u32,
    /// Not used.
    pub unused: u32,
}

/// `struct caller`: who that is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller {
    /// When the process began, by `CLOCK_BOOTTIME`.
    pub start_ns: u64,
    /// The memory controller's cgroup, as kernfs numbers it; 0: there is none.
    pub cgroup_id: u64,
    /// In the agent's pid namespace.
    pub pid: u32,
    /// The command of its main thread.
    pub command: Vec<u8>,
    /// Names of its cgroup and of those above; none at the root.
    pub cgroup: Vec<Vec<u8>>,
}

/// `struct holder` with the names that follow it: a process that holds a map open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The map.
    pub map_id: u32,
    /// The process, in the agent's pid namespace.
    pub pid: u32,
    /// The command of its main thread.
    pub command: Vec<u8>,
    /// Names of its cgroup and of those above; none at the root.
    pub cgroup: Vec<Vec<u8>>,
}

impl Holder {
    /// Size of a record.
    pub const BYTES: usize = 24 + CGROUP_LEVELS * CGROUP_NAME;

    /// From the bytes of a record.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self {
            map_id: number(bytes, 0, u32::from_ne_bytes),
            pid: number(bytes, 4, u32::from_ne_bytes),
            command: text(&bytes[8..24]),
            cgroup: names(&bytes[24..]),
        }
    }
}

impl Caller {
    /// Size in the kernel.
    pub const BYTES: usize = 40 + CGROUP_LEVELS * CGROUP_NAME;

    /// From the bytes of a value.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        Self {
            start_ns: number(bytes, 0, u64::from_ne_bytes),
            cgroup_id: number(bytes, 8, u64::from_ne_bytes),
            pid: number(bytes, 16, u32::from_ne_bytes),
            command: text(&bytes[24..40]),
            cgroup: names(&bytes[40..]),
        }
    }
}

/// Names of cgroups, up to the root's.
fn names(bytes: &[u8]) -> Vec<Vec<u8>> {
    let names = bytes.chunks_exact(CGROUP_NAME).map(text);
    names.take_while(|it| !it.is_empty()).collect()
}

const _: () = assert!(
    size_of::<CallerKey>() == 24,
    "layout.h asserts the same size"
);
const _: () = assert!(Holder::BYTES == 408, "24 bytes and the names");
const _: () = assert!(Caller::BYTES == 424, "layout.h asserts the same size");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_read_up_to_the_root_of_its_cgroups() {
        let mut bytes = [0u8; Caller::BYTES];
        bytes[16..20].copy_from_slice(&77u32.to_ne_bytes());
        bytes[24..28].copy_from_slice(b"curl");
        bytes[40..43].copy_from_slice(b"box");
        bytes[136..139].copy_from_slice(b"pod");
        let caller = Caller::from_bytes(&bytes);
        assert_eq!((caller.pid, caller.command.as_slice()), (77, &b"curl"[..]));
        assert_eq!(caller.cgroup, [b"box".to_vec(), b"pod".to_vec()]);
    }
}
