//! What of `linux/bpf.h` the map commands need, and the system call itself.

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Commands of bpf(2), `enum bpf_cmd` of `linux/bpf.h`.
pub mod command {
    /// Creates a map.
    pub const MAP_CREATE: u32 = 0;
    /// Reads one value.
    pub const MAP_LOOKUP_ELEM: u32 = 1;
    /// Writes one value.
    pub const MAP_UPDATE_ELEM: u32 = 2;
    /// Removes one entry.
    pub const MAP_DELETE_ELEM: u32 = 3;
    /// Steps from one key to the next.
    pub const MAP_GET_NEXT_KEY: u32 = 4;
    /// Pins an object at a path in a bpffs.
    pub const OBJ_PIN: u32 = 6;
    /// Opens a pinned object.
    pub const OBJ_GET: u32 = 7;
    /// `BPF_PROG_TEST_RUN`.
    pub const PROG_TEST_RUN: u32 = 10;
    /// `BPF_PROG_GET_NEXT_ID`.
    pub const PROG_GET_NEXT_ID: u32 = 11;
    /// Steps from one map id to the next.
    pub const MAP_GET_NEXT_ID: u32 = 12;
    /// Opens a map by its id.
    pub const MAP_GET_FD_BY_ID: u32 = 14;
    /// Describes the object behind a file descriptor.
    pub const OBJ_GET_INFO_BY_FD: u32 = 15;
    /// Reads one value and removes its entry.
    pub const MAP_LOOKUP_AND_DELETE_ELEM: u32 = 21;
    /// Reads many entries, since 5.6.
    pub const MAP_LOOKUP_BATCH: u32 = 24;
    /// Reads and removes many entries, since 5.6.
    pub const MAP_LOOKUP_AND_DELETE_BATCH: u32 = 25;
    /// Writes many entries, since 5.6.
    pub const MAP_UPDATE_BATCH: u32 = 26;
    /// Removes many entries, since 5.6.
    pub const MAP_DELETE_BATCH: u32 = 27;
    /// `BPF_LINK_GET_NEXT_ID`.
    pub const LINK_GET_NEXT_ID: u32 = 31;
}

/// A map type, `enum bpf_map_type` of `linux/bpf.h`. The kernel may know more than are named here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct MapType(pub u32);

impl MapType {
    /// `BPF_MAP_TYPE_HASH`.
    pub const HASH: Self = Self(1);
    /// `BPF_MAP_TYPE_ARRAY`.
    pub const ARRAY: Self = Self(2);
    /// `BPF_MAP_TYPE_PROG_ARRAY`.
    pub const PROG_ARRAY: Self = Self(3);
    /// `BPF_MAP_TYPE_PERF_EVENT_ARRAY`.
    pub const PERF_EVENT_ARRAY: Self = Self(4);
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    pub const PERCPU_HASH: Self = Self(5);
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    pub const PERCPU_ARRAY: Self = Self(6);
    /// `BPF_MAP_TYPE_STACK_TRACE`.
    pub const STACK_TRACE: Self = Self(7);
    /// `BPF_MAP_TYPE_LRU_HASH`.
    pub const LRU_HASH: Self = Self(9);
    /// `BPF_MAP_TYPE_LRU_PERCPU_HASH`.
    pub const LRU_PERCPU_HASH: Self = Self(10);
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    pub const LPM_TRIE: Self = Self(11);
    /// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
    pub const ARRAY_OF_MAPS: Self = Self(12);
    /// `BPF_MAP_TYPE_HASH_OF_MAPS`.
    pub const HASH_OF_MAPS: Self = Self(13);
    /// `BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE`.
    pub const PERCPU_CGROUP_STORAGE: Self = Self(21);
    /// `BPF_MAP_TYPE_QUEUE`.
    pub const QUEUE: Self = Self(22);
    /// `BPF_MAP_TYPE_STACK`.
    pub const STACK: Self = Self(23);
    /// `BPF_MAP_TYPE_RINGBUF`.
    pub const RINGBUF: Self = Self(27);
    /// `BPF_MAP_TYPE_TASK_STORAGE`.
    pub const TASK_STORAGE: Self = Self(29);

    /// Whether user space reads and writes the values of all possible CPUs at once.
    pub fn is_per_cpu(self) -> bool {
        matches!(
            self,
            Self::PERCPU_HASH
                | Self::PERCPU_ARRAY
                | Self::LRU_PERCPU_HASH
                | Self::PERCPU_CGROUP_STORAGE
        )
    }
}

/// What an update may do, the flags of `BPF_MAP_UPDATE_ELEM`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u64)]
pub enum UpdateFlags {
    /// Insert or overwrite, `BPF_ANY`.
    #[default]
    Any = 0,
    /// Insert only; fails with `EEXIST`, `BPF_NOEXIST`.
    NoExist = 1,
    /// Overwrite only; fails with `ENOENT`, `BPF_EXIST`.
    Exist = 2,
}

/// `BPF_F_NO_PREALLOC`: allocate the entries of a hash one by one, on insertion.
pub const NO_PREALLOC: u32 = 1 << 0;

/// The longest name that the kernel keeps of a map, in bytes.
pub const MAX_NAME_LEN: usize = OBJ_NAME_LEN - 1;

/// `BPF_F_RDONLY`: this file descriptor may not change the map.
pub(super) const RDONLY: u32 = 1 << 3;

/// `BPF_OBJ_NAME_LEN`, with the byte that ends the string.
pub(super) const OBJ_NAME_LEN: usize = 16;

/// bpf(2) itself. The kernel takes a prefix of `union bpf_attr` and assumes zeros after it.
///
/// # Safety
///
/// The addresses in `attr` must point to memory that `command` may read or write as far as the
/// map's sizes tell the kernel to, and nothing else may access what it writes until it returns.
#[inline]
pub(super) unsafe fn bpf<A: Attr>(command: u32, attr: &mut A) -> io::Result<c_long> {
    // SAFETY: `attr` is as long as the length says; the rest is the caller's promise.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            c_long::from(command),
            &raw mut *attr,
            size_of::<A>(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

/// [`bpf`] for a command that returns a new descriptor, which the kernel opens close-on-exec.
///
/// # Safety
///
/// As for [`bpf`]; besides, `command` must return a descriptor.
pub(super) unsafe fn bpf_fd<A: Attr>(command: u32, attr: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let answer = unsafe { bpf(command, attr) }?;
    let fd: RawFd = c_int::try_from(answer).expect("a descriptor is an int");
    // SAFETY: the kernel has just opened it for this call, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A prefix of `union bpf_attr` without hidden padding: what the kernel gets is all initialised.
pub(super) trait Attr {}

#[repr(C)]
pub(super) struct CreateAttr {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) inner_map_fd: u32,
    pub(super) numa_node: u32,
    pub(super) map_name: [u8; OBJ_NAME_LEN],
}
impl Attr for CreateAttr {}
const _: () = assert!(size_of::<CreateAttr>() == 44, "ends with map_name");

#[repr(C)]
pub(super) struct ElementAttr {
    pub(super) map_fd: u32,
    pub(super) padding: u32,
    pub(super) key: u64,
    /// Of `BPF_MAP_GET_NEXT_KEY` the address of the next key.
    pub(super) value: u64,
    pub(super) flags: u64,
}
impl Attr for ElementAttr {}
const _: () = assert!(size_of::<ElementAttr>() == 32, "ends with flags");

#[repr(C)]
pub(super) struct BatchAttr {
    pub(super) in_batch: u64,
    pub(super) out_batch: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) count: u32,
    pub(super) map_fd: u32,
    pub(super) elem_flags: u64,
    pub(super) flags: u64,
}
impl Attr for BatchAttr {}
const _: () = assert!(size_of::<BatchAttr>() == 56, "ends with flags");

#[repr(C)]
pub(super) struct IdAttr {
    pub(super) id: u32,
    pub(super) next_id: u32,
    pub(super) open_flags: u32,
}
impl Attr for IdAttr {}
const _: () = assert!(size_of::<IdAttr>() == 12, "ends with open_flags");

#[repr(C)]
pub(super) struct PinAttr {
    pub(super) pathname: u64,
    pub(super) bpf_fd: u32,
    pub(super) file_flags: u32,
}
impl Attr for PinAttr {}
const _: () = assert!(size_of::<PinAttr>() == 16, "ends with file_flags");

#[repr(C)]
pub(super) struct InfoAttr {
    pub(super) bpf_fd: u32,
    pub(super) info_len: u32,
    pub(super) info: u64,
}
impl Attr for InfoAttr {}
const _: () = assert!(size_of::<InfoAttr>() == 16, "ends with info");

/// The first fields of `struct bpf_map_info`; the kernel cuts its answer to this length.
#[derive(Default)]
#[repr(C)]
pub(super) struct RawInfo {
    pub(super) map_type: u32,
    pub(super) id: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) name: [u8; OBJ_NAME_LEN],
}
pub(super) const INFO_SIZE: u32 = 40;
const _: () = assert!(size_of::<RawInfo>() == INFO_SIZE as usize, "ends with name");
