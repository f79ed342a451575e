//! A safe wrapper over the map commands of bpf(2).
//!
//! Every command is one `union bpf_attr` on the stack and one system call, because callers time
//! their reads: nothing allocates, loops or looks anything up between a caller's clock and the
//! kernel. What makes the wrapper safe is that a [`Map`] knows the sizes of its key and its value
//! as the kernel copies them, and refuses a buffer of any other length.
//!
//! User space reads a per-CPU map as a whole: a value is `round_up(value_size, 8)` bytes for each
//! *possible* CPU, whatever CPU the caller runs on. [`Map::value_size`] is that user-visible size.
#![allow(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper; every block states why it is sound"
)]

mod batches;
mod cpus;
mod elements;
mod error;
mod ids;
mod info;
mod test_run;
mod uapi;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::{fs, io};

use uapi::{CreateAttr, IdAttr, OBJ_NAME_LEN, PinAttr, RDONLY, bpf, bpf_fd};

pub use batches::{Batch, BatchCursor};
pub use cpus::{parse_cpu_list, possible_cpus};
pub use error::{Buffer, ElementCommand, Error};
pub use ids::{link_ids, map_ids, program_ids};
pub use info::{MapInfo, map_info};
pub use test_run::run_raw_tracepoint;
pub use uapi::{MAX_NAME_LEN, MapType, NO_PREALLOC, UpdateFlags, command};

/// The outcome of a map command.
pub type Result<T> = std::result::Result<T, Error>;

/// What a new map shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec<'a> {
    /// At most [`MAX_NAME_LEN`] letters, digits, `_` and `.`; may be empty.
    pub name: &'a str,
    /// Its type.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value, for a per-CPU map those of one CPU.
    pub value_size: u32,
    /// How many entries it may hold.
    pub max_entries: u32,
    /// Such as [`NO_PREALLOC`].
    pub flags: u32,
}

/// An open map.
///
/// ```no_run
/// use maplatency_bpf::sys::{Map, MapSpec, MapType, UpdateFlags};
///
/// let map = Map::create(&MapSpec {
///     name: "demo",
///     map_type: MapType::PERCPU_HASH,
///     key_size: 8,
///     value_size: 8,
///     max_entries: 60_000,
///     flags: 0,
/// })?;
/// let mut value = vec![0; map.value_size()];
/// map.update(&7_u64.to_ne_bytes(), &value, UpdateFlags::Any)?;
/// assert!(map.lookup(&7_u64.to_ne_bytes(), &mut value)?);
/// # Ok::<(), maplatency_bpf::sys::Error>(())
/// ```
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    key_size: usize,
    value_size: usize,
}

impl Map {
    /// Creates a map. Needs `CAP_BPF`, and before 5.11 a large enough `RLIMIT_MEMLOCK`.
    pub fn create(spec: &MapSpec<'_>) -> Result<Self> {
        Self::create_of(spec, 0)
    }

    /// Creates a map of maps that are all like `inner`, which is not put into it.
    ///
    /// Errors and minimum kernel as [`Self::create`]; maps of maps since Linux 4.12.
    pub fn create_outer(spec: &MapSpec<'_>, inner: &Self) -> Result<Self> {
        Self::create_of(spec, inner.kernel_fd())
    }

    fn create_of(spec: &MapSpec<'_>, inner_map_fd: u32) -> Result<Self> {
        let MapSpec {
            name,
            map_type,
            key_size,
            value_size,
            max_entries,
            flags,
        } = *spec;
        let map_name = object_name(name)?;
        let value_size_in_user = user_value_size(map_type, value_size)?;
        let mut attr = CreateAttr {
            map_type: map_type.0,
            key_size,
            value_size,
            max_entries,
            map_flags: flags,
            inner_map_fd,
            numa_node: 0,
            map_name,
        };
        // SAFETY: the attribute holds no address, and the command returns a new descriptor.
        let fd =
            unsafe { bpf_fd(command::MAP_CREATE, &mut attr) }.map_err(|source| Error::Create {
                name: name.to_owned(),
                source,
            })?;
        Ok(Self {
            fd,
            key_size: key_size as usize,
            value_size: value_size_in_user,
        })
    }

    /// Opens somebody's map by its id, for reading only: whoever finds a map by its id does not
    /// own it. Needs `CAP_SYS_ADMIN`.
    pub fn from_id(id: u32) -> Result<Self> {
        let mut attr = IdAttr {
            id,
            next_id: 0,
            open_flags: RDONLY,
        };
        // SAFETY: the attribute holds no address, and the command returns a new descriptor.
        let fd = unsafe { bpf_fd(command::MAP_GET_FD_BY_ID, &mut attr) }
            .map_err(|source| Error::Open { id, source })?;
        Self::from_fd(fd)
    }

    /// Opens what is pinned at a path, for reading only; `None` where that is no map. Needs `CAP_BPF`. Kernel 4.15 or
    /// newer.
    pub fn from_pin(path: &Path) -> Result<Option<Self>> {
        let failed = |source| Error::OpenPin {
            path: path.display().to_string(),
            source,
        };
        let name = c_path(path).map_err(failed)?;
        let mut attr = PinAttr {
            pathname: name.as_ptr().expose_provenance() as u64,
            bpf_fd: 0,
            file_flags: RDONLY,
        };
        // SAFETY: the kernel reads `name` up to its zero, and it lives through the call, which returns a descriptor.
        let fd = match unsafe { bpf_fd(command::OBJ_GET, &mut attr) } {
            Ok(fd) => fd,
            // A link cannot be opened for reading only.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        // Programs can.
        let kind = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(failed)?;
        if kind != Path::new("anon_inode:bpf-map") {
            return Ok(None);
        }
        Self::from_fd(fd).map(Some)
    }

    /// Pins the map at a path in a bpffs, where it stays until that is removed. Needs `CAP_BPF`. Kernel 4.4 or newer.
    pub fn pin(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::Pin {
            path: path.display().to_string(),
            source,
        };
        let name = c_path(path).map_err(failed)?;
        let mut attr = PinAttr {
            pathname: name.as_ptr().expose_provenance() as u64,
            bpf_fd: self.kernel_fd(),
            file_flags: 0,
        };
        // SAFETY: the kernel reads `name` up to its zero, and it lives through the call.
        unsafe { bpf(command::OBJ_PIN, &mut attr) }
            .map(drop)
            .map_err(failed)
    }

    /// Takes over the descriptor of a map.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let info = map_info(fd.as_fd())?;
        Ok(Self {
            fd,
            key_size: info.key_size as usize,
            value_size: user_value_size(info.map_type, info.value_size)?,
        })
    }

    /// Asks the kernel for the map's id.
    pub fn id(&self) -> Result<u32> {
        self.info().map(|info| info.id)
    }

    /// Asks the kernel for the map's description.
    pub fn info(&self) -> Result<MapInfo> {
        map_info(self.fd.as_fd())
    }

    /// Bytes of a key.
    pub fn key_size(&self) -> usize {
        self.key_size
    }

    /// Bytes of a value as user space reads it: for a per-CPU map, those of all possible CPUs.
    pub fn value_size(&self) -> usize {
        self.value_size
    }

    #[inline]
    fn kernel_fd(&self) -> u32 {
        self.fd.as_raw_fd().cast_unsigned()
    }
}

impl From<Map> for OwnedFd {
    fn from(map: Map) -> Self {
        map.fd
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The size that the kernel copies for one value, `bpf_map_value_size` of `kernel/bpf/syscall.c`.
fn user_value_size(map_type: MapType, value_size: u32) -> Result<usize> {
    if map_type.is_per_cpu() {
        Ok((value_size as usize).next_multiple_of(8) * possible_cpus()?)
    } else {
        Ok(value_size as usize)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

fn object_name(name: &str) -> Result<[u8; OBJ_NAME_LEN]> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    if name.len() > MAX_NAME_LEN || !name.bytes().all(allowed) {
        return Err(Error::Name {
            name: name.to_owned(),
        });
    }
    let mut bytes = [0; OBJ_NAME_LEN];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests;
