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

mod cpus;
mod error;
mod test_run;
mod uapi;

use std::ffi::{CString, c_long};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::{fs, io};

use uapi::{
    BatchAttr, CreateAttr, ElementAttr, INFO_SIZE, IdAttr, InfoAttr, OBJ_NAME_LEN, PinAttr, RDONLY,
    RawInfo, bpf, bpf_fd,
};

pub use cpus::{parse_cpu_list, possible_cpus};
pub use error::{Buffer, ElementCommand, Error};
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

/// The kernel's description of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// Its id, unique on this kernel until the next boot.
    pub id: u32,
    /// Its type.
    pub map_type: MapType,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value, for a per-CPU map those of one CPU.
    pub value_size: u32,
    /// How many entries it may hold.
    pub max_entries: u32,
    /// The flags that it was created with.
    pub flags: u32,
    /// Its name, at most [`MAX_NAME_LEN`] bytes; may be empty.
    pub name: String,
}

/// What a batch read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many entries at the start of the buffers are filled.
    pub count: usize,
    /// Whether the map has entries after these.
    pub more: bool,
}

/// Where a batch read stands in its map. Made by [`Map::batch_cursor`].
#[derive(Clone, Debug)]
pub struct BatchCursor {
    /// Opaque to user space: a bucket number for a hash, the last key for others.
    position: Box<[u8]>,
    key_size: usize,
    started: bool,
}

impl BatchCursor {
    /// Goes back to the start of the map.
    pub fn rewind(&mut self) {
        self.started = false;
    }
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

    /// Reads the value of `key` into `value`; false, and `value` untouched, when there is none.
    #[inline]
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        self.check_key(key)?;
        check(Buffer::Value, self.value_size, value.len())?;
        let mut attr = self.element(address(key), address_mut(value), 0);
        // SAFETY: the kernel reads `key_size` bytes of the key and writes `value_size` bytes of
        // the value; both buffers were just found to be that long and live through the call.
        let answer = unsafe { bpf(command::MAP_LOOKUP_ELEM, &mut attr) };
        found(answer, ElementCommand::Lookup)
    }

    /// As [`Map::lookup`], and removes the entry. Queues and stacks since 4.20, hashes since 5.14.
    #[inline]
    pub fn lookup_and_delete(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        self.check_key(key)?;
        check(Buffer::Value, self.value_size, value.len())?;
        let mut attr = self.element(address(key), address_mut(value), 0);
        // SAFETY: as in `lookup`.
        let answer = unsafe { bpf(command::MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) };
        found(answer, ElementCommand::LookupAndDelete)
    }

    /// Writes the value of `key`, for a per-CPU map those of all possible CPUs.
    pub fn update(&self, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        self.check_key(key)?;
        check(Buffer::Value, self.value_size, value.len())?;
        let mut attr = self.element(address(key), address(value), flags as u64);
        // SAFETY: the kernel reads `key_size` and `value_size` bytes; both buffers were just found
        // to be that long and live through the call.
        let answer = unsafe { bpf(command::MAP_UPDATE_ELEM, &mut attr) };
        answer.map(drop).map_err(|source| Error::Element {
            command: ElementCommand::Update,
            source,
        })
    }

    /// Removes `key`; false when there was none.
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        self.check_key(key)?;
        let mut attr = self.element(address(key), 0, 0);
        // SAFETY: the kernel reads `key_size` bytes; the buffer was just found to be that long.
        let answer = unsafe { bpf(command::MAP_DELETE_ELEM, &mut attr) };
        found(answer, ElementCommand::Delete)
    }

    /// Writes the key after `key`, or the first one, into `next`; false when there is none.
    ///
    /// A hash whose `key` has vanished starts again from its first key.
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<bool> {
        if let Some(key) = key {
            self.check_key(key)?;
        }
        self.check_key(next)?;
        let mut attr = self.element(key.map_or(0, address), address_mut(next), 0);
        // SAFETY: the kernel reads `key_size` bytes of the key, unless it is null, and writes as
        // many to `next`; both buffers were just found to be that long.
        let answer = unsafe { bpf(command::MAP_GET_NEXT_KEY, &mut attr) };
        found(answer, ElementCommand::NextKey)
    }

    /// A cursor at the start of this map, for [`Map::lookup_batch`].
    pub fn batch_cursor(&self) -> BatchCursor {
        BatchCursor {
            // A hash keeps a 32-bit bucket number here even if its keys are shorter.
            position: vec![0; self.key_size.max(size_of::<u32>())].into_boxed_slice(),
            key_size: self.key_size,
            started: false,
        }
    }

    /// Reads as many entries as the buffers hold, from where `cursor` stands, and moves it on.
    /// Kernel 5.6 or newer.
    ///
    /// The last batch says so and may be empty; reading on needs [`BatchCursor::rewind`].
    #[inline]
    pub fn lookup_batch(
        &self,
        cursor: &mut BatchCursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> Result<Batch> {
        let command = (command::MAP_LOOKUP_BATCH, ElementCommand::LookupBatch);
        self.read_batch(command, cursor, keys, values)
    }

    /// As [`Map::lookup_batch`], and removes what it reads. Kernel 5.6 or newer.
    #[inline]
    pub fn lookup_and_delete_batch(
        &self,
        cursor: &mut BatchCursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> Result<Batch> {
        let command = (
            command::MAP_LOOKUP_AND_DELETE_BATCH,
            ElementCommand::LookupAndDeleteBatch,
        );
        self.read_batch(command, cursor, keys, values)
    }

    #[inline]
    fn read_batch(
        &self,
        (number, command): (u32, ElementCommand),
        cursor: &mut BatchCursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> Result<Batch> {
        let count = self.entries(keys.len(), values.len())?;
        if cursor.key_size != self.key_size {
            return Err(Error::ForeignCursor {
                expected: self.key_size,
                actual: cursor.key_size,
            });
        }
        let position = address_mut(&mut cursor.position);
        let mut attr = BatchAttr {
            in_batch: if cursor.started { position } else { 0 },
            out_batch: position,
            ..self.batch(address_mut(keys), address_mut(values), count)
        };
        // SAFETY: the kernel writes at most `count` keys and values, for which `entries` found
        // both buffers long enough, and a position of at most max(4, key_size) bytes, which is
        // what `batch_cursor` allocated. It reads the old position before it writes the new one.
        let answer = unsafe { bpf(number, &mut attr) };
        let more = found(answer, command).map_err(|error| match error {
            Error::Element { command, source } => Error::Batch {
                command,
                done: batch_progress(count, attr.count),
                source,
            },
            other => other,
        })?;
        // Of an empty batch the kernel writes no position.
        cursor.started |= count > 0;
        Ok(Batch {
            count: attr.count as usize,
            more,
        })
    }

    /// Writes many entries, as many as the buffers hold. Kernel 5.6 or newer.
    pub fn update_batch(&self, keys: &[u8], values: &[u8], flags: UpdateFlags) -> Result<()> {
        let count = self.entries(keys.len(), values.len())?;
        let mut attr = BatchAttr {
            elem_flags: flags as u64,
            ..self.batch(address(keys), address(values), count)
        };
        // SAFETY: the kernel reads at most `count` keys and values, for which `entries` found both
        // buffers long enough.
        let answer = unsafe { bpf(command::MAP_UPDATE_BATCH, &mut attr) };
        answer.map(drop).map_err(|source| Error::Batch {
            command: ElementCommand::UpdateBatch,
            done: batch_progress(count, attr.count),
            source,
        })
    }

    /// Removes many entries; false when the kernel met a key that was not there, and stopped. Kernel 5.6 or newer.
    pub fn delete_batch(&self, keys: &[u8]) -> Result<bool> {
        let count = keys.len().checked_div(self.key_size).unwrap_or(0);
        check(Buffer::Key, count * self.key_size, keys.len())?;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut attr = self.batch(address(keys), 0, count);
        // SAFETY: the kernel reads at most `count` keys, which is what the buffer was just found to hold.
        let answer = unsafe { bpf(command::MAP_DELETE_BATCH, &mut attr) };
        found(answer, ElementCommand::DeleteBatch)
    }

    #[inline]
    fn element(&self, key: u64, value: u64, flags: u64) -> ElementAttr {
        ElementAttr {
            map_fd: self.kernel_fd(),
            padding: 0,
            key,
            value,
            flags,
        }
    }

    #[inline]
    fn batch(&self, keys: u64, values: u64, count: u32) -> BatchAttr {
        BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count,
            map_fd: self.kernel_fd(),
            elem_flags: 0,
            flags: 0,
        }
    }

    #[inline]
    fn kernel_fd(&self) -> u32 {
        self.fd.as_raw_fd().cast_unsigned()
    }

    #[inline]
    fn check_key(&self, key: &[u8]) -> Result<()> {
        check(Buffer::Key, self.key_size, key.len())
    }

    /// How many entries fit into both buffers, which have to agree on it.
    fn entries(&self, keys: usize, values: usize) -> Result<u32> {
        let count = keys.checked_div(self.key_size).unwrap_or(0);
        check(Buffer::Key, count * self.key_size, keys)?;
        check(Buffer::Value, count.saturating_mul(self.value_size), values)?;
        // Longer buffers are sound, the kernel merely leaves their ends alone.
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
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

/// Describes the map behind `fd`. Of a descriptor that is no map it tells nothing of use.
pub fn map_info(fd: BorrowedFd<'_>) -> Result<MapInfo> {
    let mut raw = RawInfo::default();
    let mut attr = InfoAttr {
        bpf_fd: fd.as_raw_fd().cast_unsigned(),
        info_len: INFO_SIZE,
        info: (&raw mut raw).expose_provenance() as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes, the size of `raw`, any value of which is
    // valid. `raw` lives through the call and is not read before its end.
    unsafe { bpf(command::OBJ_GET_INFO_BY_FD, &mut attr) }
        .map_err(|source| Error::Info { source })?;
    let name = raw.name.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(MapInfo {
        id: raw.id,
        map_type: MapType(raw.map_type),
        key_size: raw.key_size,
        value_size: raw.value_size,
        max_entries: raw.max_entries,
        flags: raw.map_flags,
        name: String::from_utf8_lossy(name).into_owned(),
    })
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

#[inline]
fn check(buffer: Buffer, expected: usize, actual: usize) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::BufferLength {
        buffer,
        expected,
        actual,
    })
}

/// Tells "no such entry" from a failure.
#[inline]
fn found(answer: io::Result<c_long>, command: ElementCommand) -> Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(source) if source.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(source) => Err(Error::Element { command, source }),
    }
}

/// How many entries a failed batch dealt with. Where the kernel refuses before it begins it leaves
/// the number asked for, and a batch that reached that number would not have failed.
fn batch_progress(asked: u32, answered: u32) -> u32 {
    if answered == asked { 0 } else { answered }
}

/// The address of a buffer, null for an empty one: the kernel wants no key from a keyless map.
#[inline]
fn address(buffer: &[u8]) -> u64 {
    if buffer.is_empty() {
        return 0;
    }
    buffer.as_ptr().expose_provenance() as u64
}

/// Like [`address`], of a buffer that the kernel writes to.
#[inline]
fn address_mut(buffer: &mut [u8]) -> u64 {
    if buffer.is_empty() {
        return 0;
    }
    buffer.as_mut_ptr().expose_provenance() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map that no system call reaches: its descriptor is not a map, and checks come first.
    fn unreachable_map(key_size: usize, value_size: usize) -> Map {
        Map {
            fd: std::fs::File::open("/dev/null").unwrap().into(),
            key_size,
            value_size,
        }
    }

    fn buffer_error<T: std::fmt::Debug>(outcome: Result<T>) -> (Buffer, usize, usize) {
        match outcome {
            Err(Error::BufferLength {
                buffer,
                expected,
                actual,
            }) => (buffer, expected, actual),
            other => panic!("expected a refused buffer, got {other:?}"),
        }
    }

    #[test]
    fn a_per_cpu_value_is_rounded_up_and_repeated_for_every_possible_cpu() {
        let cpus = possible_cpus().unwrap();
        let size = |map_type, bytes| user_value_size(map_type, bytes).unwrap();

        assert_eq!(size(MapType::PERCPU_HASH, 4), 8 * cpus);
        assert_eq!(size(MapType::LRU_PERCPU_HASH, 8), 8 * cpus);
        assert_eq!(size(MapType::PERCPU_ARRAY, 9), 16 * cpus);
        assert_eq!(size(MapType::HASH, 9), 9);
    }

    #[test]
    fn a_buffer_of_another_length_never_reaches_the_kernel() {
        let map = unreachable_map(8, 16);

        let lookup = buffer_error(map.lookup(&[0; 7], &mut [0; 16]));
        let short_value = buffer_error(map.lookup(&[0; 8], &mut [0; 8]));
        let update = buffer_error(map.update(&[0; 8], &[0; 17], UpdateFlags::Any));
        let delete = buffer_error(map.delete(&[]));
        let next = buffer_error(map.next_key(None, &mut [0; 4]));
        let next_of = buffer_error(map.next_key(Some(&[0; 9]), &mut [0; 8]));

        assert_eq!(lookup, (Buffer::Key, 8, 7));
        assert_eq!(short_value, (Buffer::Value, 16, 8));
        assert_eq!(update, (Buffer::Value, 16, 17));
        assert_eq!(delete, (Buffer::Key, 8, 0));
        assert_eq!(next, (Buffer::Key, 8, 4));
        assert_eq!(next_of, (Buffer::Key, 8, 9));
    }

    #[test]
    fn the_buffers_of_a_batch_agree_on_the_number_of_entries() {
        let map = unreachable_map(8, 16);
        let mut cursor = map.batch_cursor();

        let torn_key = buffer_error(map.lookup_batch(&mut cursor, &mut [0; 20], &mut [0; 32]));
        let few_values = buffer_error(map.lookup_batch(&mut cursor, &mut [0; 24], &mut [0; 32]));
        let update = buffer_error(map.update_batch(&[0; 16], &[0; 48], UpdateFlags::Any));

        assert_eq!(torn_key, (Buffer::Key, 16, 20));
        assert_eq!(few_values, (Buffer::Value, 48, 32));
        assert_eq!(update, (Buffer::Value, 32, 48));
    }

    #[test]
    fn a_cursor_of_another_map_is_refused() {
        let mut cursor = unreachable_map(4, 16).batch_cursor();
        let map = unreachable_map(8, 16);

        let outcome = map.lookup_batch(&mut cursor, &mut [0; 8], &mut [0; 16]);

        assert!(matches!(outcome, Err(Error::ForeignCursor { .. })));
    }

    #[test]
    fn what_is_no_map_is_an_error_and_not_a_missing_entry() {
        let error = unreachable_map(8, 16)
            .lookup(&[0; 8], &mut [0; 16])
            .unwrap_err();

        assert!(error.errno().is_some());
    }

    #[test]
    fn names_that_the_kernel_would_refuse_are_refused_with_the_rule() {
        assert!(object_name("demo_conntrack").is_ok());
        assert!(object_name("fifteen.chars_1").is_ok());
        assert!(object_name("").is_ok());
        for name in ["sixteen_chars_16", "has space", "dash-ed", "ümlaut"] {
            assert!(
                matches!(object_name(name), Err(Error::Name { .. })),
                "{name:?}"
            );
        }
    }
}
