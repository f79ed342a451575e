//! Why a map command failed.

use std::io;

use super::cpus::POSSIBLE_CPUS;

/// Why a map command failed. [`Error::errno`] tells the kernel's own reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel did not create the map. `EPERM` means that `CAP_BPF` is missing.
    #[error("could not create the map {name}")]
    Create {
        /// The map's name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel keeps 15 bytes of letters, digits, `_` and `.` as a map's name.
    #[error("{name:?} is no map name: at most 15 letters, digits, '_' or '.'")]
    Name {
        /// The name that was refused.
        name: String,
    },
    /// No map with this id, or no right to open it (`EPERM`: `CAP_SYS_ADMIN` is missing).
    #[error("could not open the map with id {id}")]
    Open {
        /// The map's id.
        id: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No map at this path, or no right to open it.
    #[error("could not open what is pinned at {path}")]
    OpenPin {
        /// The path.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel did not pin the map. `EPERM`: the path is in no bpffs.
    #[error("could not pin a map at {path}")]
    Pin {
        /// The path.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel did not describe the map.
    #[error("could not read the description of a map")]
    Info {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a command on an entry.
    #[error("could not {command}")]
    Element {
        /// What was attempted.
        command: ElementCommand,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a command on many entries.
    #[error("could not {command} after {done} entries")]
    Batch {
        /// What was attempted.
        command: ElementCommand,
        /// Entries that were read or written all the same.
        done: u32,
        /// The kernel's answer. `ENOSPC` from a hash: one of its buckets holds more entries than
        /// the buffers.
        source: io::Error,
    },
    /// A buffer is not as long as the map's key or value.
    #[error("the {buffer} buffer holds {actual} bytes, the map needs {expected}")]
    BufferLength {
        /// Which buffer.
        buffer: Buffer,
        /// What the map needs. For a batch, what the key buffer's length asks for.
        expected: usize,
        /// What the caller passed.
        actual: usize,
    },
    /// A cursor was made for another map.
    #[error("the cursor was made for keys of {actual} bytes, the map has {expected}")]
    ForeignCursor {
        /// The key size of this map.
        expected: usize,
        /// The key size of the cursor's map.
        actual: usize,
    },
    /// Without the number of possible CPUs the size of a per-CPU value is unknown.
    #[error("could not read the possible CPUs from {POSSIBLE_CPUS}")]
    PossibleCpus {
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's error number, such as `libc::EPERM`, where the kernel was asked at all.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Create { source, .. }
            | Self::Open { source, .. }
            | Self::OpenPin { source, .. }
            | Self::Pin { source, .. }
            | Self::Info { source }
            | Self::Element { source, .. }
            | Self::Batch { source, .. }
            | Self::PossibleCpus { source } => source.raw_os_error(),
            Self::Name { .. } | Self::BufferLength { .. } | Self::ForeignCursor { .. } => None,
        }
    }
}

/// What was attempted on an entry, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementCommand {
    /// `BPF_MAP_LOOKUP_ELEM`.
    Lookup,
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`.
    LookupAndDelete,
    /// `BPF_MAP_UPDATE_ELEM`.
    Update,
    /// `BPF_MAP_DELETE_ELEM`.
    Delete,
    /// `BPF_MAP_GET_NEXT_KEY`.
    NextKey,
    /// `BPF_MAP_LOOKUP_BATCH`.
    LookupBatch,
    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`.
    LookupAndDeleteBatch,
    /// `BPF_MAP_UPDATE_BATCH`.
    UpdateBatch,
    /// `BPF_MAP_DELETE_BATCH`.
    DeleteBatch,
}

impl std::fmt::Display for ElementCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lookup => "read a map entry",
            Self::LookupAndDelete => "read and delete a map entry",
            Self::Update => "write a map entry",
            Self::Delete => "delete a map entry",
            Self::NextKey => "step to the next key of a map",
            Self::LookupBatch => "read a batch of map entries",
            Self::LookupAndDeleteBatch => "read and delete a batch of map entries",
            Self::UpdateBatch => "write a batch of map entries",
            Self::DeleteBatch => "delete a batch of map entries",
        })
    }
}

/// Which buffer of a call, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// The key or keys.
    Key,
    /// The value or values.
    Value,
}

impl std::fmt::Display for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
        })
    }
}
