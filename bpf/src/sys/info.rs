//! What the kernel says of a map.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::uapi::{INFO_SIZE, InfoAttr, MapType, RawInfo, bpf, command};
use super::{Error, Result};

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
