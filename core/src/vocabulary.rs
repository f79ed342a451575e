//! The words of the field: which operation, on which map, timed how.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one bpf(2) call does to a map.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Operation {
    /// `BPF_MAP_LOOKUP_ELEM`.
    Lookup,
    /// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`.
    LookupAndDelete,
    /// `BPF_MAP_LOOKUP_BATCH`.
    LookupBatch,
    /// `BPF_MAP_LOOKUP_AND_DELETE_BATCH`.
    LookupAndDeleteBatch,
    /// `BPF_MAP_GET_NEXT_KEY`.
    GetNextKey,
    /// `BPF_MAP_UPDATE_ELEM`.
    Update,
    /// `BPF_MAP_UPDATE_BATCH`.
    UpdateBatch,
    /// `BPF_MAP_DELETE_ELEM`.
    Delete,
    /// `BPF_MAP_DELETE_BATCH`.
    DeleteBatch,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 9] = [
        Self::Lookup,
        Self::LookupAndDelete,
        Self::LookupBatch,
        Self::LookupAndDeleteBatch,
        Self::GetNextKey,
        Self::Update,
        Self::UpdateBatch,
        Self::Delete,
        Self::DeleteBatch,
    ];

    /// The first argument of bpf(2), as `include/uapi/linux/bpf.h` numbers it.
    pub const fn command(self) -> u32 {
        match self {
            Self::Lookup => 1,
            Self::Update => 2,
            Self::Delete => 3,
            Self::GetNextKey => 4,
            Self::LookupAndDelete => 21,
            Self::LookupBatch => 24,
            Self::LookupAndDeleteBatch => 25,
            Self::UpdateBatch => 26,
            Self::DeleteBatch => 27,
        }
    }

    /// The operation of a bpf(2) command, if it is one on a map's elements.
    pub fn from_command(command: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.command() == command)
    }

    /// Whether it gives values or keys to user space.
    pub const fn is_read(self) -> bool {
        match self {
            Self::Lookup
            | Self::LookupAndDelete
            | Self::LookupBatch
            | Self::LookupAndDeleteBatch
            | Self::GetNextKey => true,
            Self::Update | Self::UpdateBatch | Self::Delete | Self::DeleteBatch => false,
        }
    }

    /// Whether one call moves many elements.
    pub const fn is_batch(self) -> bool {
        matches!(
            self,
            Self::LookupBatch | Self::LookupAndDeleteBatch | Self::UpdateBatch | Self::DeleteBatch
        )
    }

    /// The name as users write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lookup => "Lookup",
            Self::LookupAndDelete => "LookupAndDelete",
            Self::LookupBatch => "LookupBatch",
            Self::LookupAndDeleteBatch => "LookupAndDeleteBatch",
            Self::GetNextKey => "GetNextKey",
            Self::Update => "Update",
            Self::UpdateBatch => "UpdateBatch",
            Self::Delete => "Delete",
            Self::DeleteBatch => "DeleteBatch",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a call of bpf(2) ended.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Outcome {
    /// It did what it was called for. For a lookup: a hit.
    Success,
    /// `ENOENT`. For a lookup or a deletion: a miss. For `GetNextKey` and batches also the end of the map.
    NotFound,
    /// `E2BIG` and `ENOSPC`: the map has no room, or a batch has none for what is in one bucket of the map.
    Full,
    /// `EEXIST`: there was an element where none was to be.
    Exists,
    /// `EAGAIN`, `EBUSY` and `EINTR`.
    Busy,
    /// `ENOMEM`.
    NoMemory,
    /// `EINVAL`, `EFAULT`, `EOPNOTSUPP` and the kernel's own `ENOTSUPP`: not with this map or these arguments.
    Invalid,
    /// `EPERM` and `EACCES`.
    Denied,
    /// Any other error.
    OtherError,
}

impl Outcome {
    /// Every outcome, in the order of `enum outcome` in `bpf/src/layout.h`.
    pub const ALL: [Self; 9] = [
        Self::Success,
        Self::NotFound,
        Self::Full,
        Self::Exists,
        Self::Busy,
        Self::NoMemory,
        Self::Invalid,
        Self::Denied,
        Self::OtherError,
    ];

    /// The kernel side's number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The outcome that the kernel side numbers so.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The name as users read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::NotFound => "NotFound",
            Self::Full => "Full",
            Self::Exists => "Exists",
            Self::Busy => "Busy",
            Self::NoMemory => "NoMemory",
            Self::Invalid => "Invalid",
            Self::Denied => "Denied",
            Self::OtherError => "OtherError",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a latency begins and ends. The three are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Latency {
    /// From the entry of bpf(2) to its exit. Does not see the scheduler on the way back to user space.
    KernelWindow,
    /// From the entry of bpf(2) until the task runs in user mode again.
    UntilUser,
    /// One read by the agent's own pinned reader, as that reader's clock saw it.
    Active,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KernelWindow => "kernel window",
            Self::UntilUser => "until user",
            Self::Active => "active",
        })
    }
}

macro_rules! map_types {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// The type of a BPF map, named after the kernel's `BPF_MAP_TYPE_*`.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        pub enum MapType {
            $($(#[$doc])* $name,)*
        }

        impl MapType {
            /// Every type that has a name here.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The kernel's number.
            pub const fn number(self) -> u32 {
                match self { $(Self::$name => $number),* }
            }

            /// The name as users write it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }
    };
}

map_types! {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array = 2,
    /// `BPF_MAP_TYPE_PROG_ARRAY`.
    ProgArray = 3,
    /// `BPF_MAP_TYPE_PERF_EVENT_ARRAY`.
    PerfEventArray = 4,
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    PerCpuHash = 5,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpuArray = 6,
    /// `BPF_MAP_TYPE_STACK_TRACE`.
    StackTrace = 7,
    /// `BPF_MAP_TYPE_CGROUP_ARRAY`.
    CgroupArray = 8,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    LruHash = 9,
    /// `BPF_MAP_TYPE_LRU_PERCPU_HASH`.
    LruPerCpuHash = 10,
    /// `BPF_MAP_TYPE_LPM_TRIE`.
    LpmTrie = 11,
    /// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
    ArrayOfMaps = 12,
    /// `BPF_MAP_TYPE_HASH_OF_MAPS`.
    HashOfMaps = 13,
    /// `BPF_MAP_TYPE_DEVMAP`.
    DevMap = 14,
    /// `BPF_MAP_TYPE_SOCKMAP`.
    SockMap = 15,
    /// `BPF_MAP_TYPE_CPUMAP`.
    CpuMap = 16,
    /// `BPF_MAP_TYPE_XSKMAP`.
    XskMap = 17,
    /// `BPF_MAP_TYPE_SOCKHASH`.
    SockHash = 18,
    /// `BPF_MAP_TYPE_CGROUP_STORAGE`.
    CgroupStorageDeprecated = 19,
    /// `BPF_MAP_TYPE_REUSEPORT_SOCKARRAY`.
    ReuseportSockArray = 20,
    /// `BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE`.
    PerCpuCgroupStorage = 21,
    /// `BPF_MAP_TYPE_QUEUE`.
    Queue = 22,
    /// `BPF_MAP_TYPE_STACK`.
    Stack = 23,
    /// `BPF_MAP_TYPE_SK_STORAGE`.
    SkStorage = 24,
    /// `BPF_MAP_TYPE_DEVMAP_HASH`.
    DevMapHash = 25,
    /// `BPF_MAP_TYPE_STRUCT_OPS`.
    StructOps = 26,
    /// `BPF_MAP_TYPE_RINGBUF`.
    RingBuf = 27,
    /// `BPF_MAP_TYPE_INODE_STORAGE`.
    InodeStorage = 28,
    /// `BPF_MAP_TYPE_TASK_STORAGE`.
    TaskStorage = 29,
    /// `BPF_MAP_TYPE_BLOOM_FILTER`.
    BloomFilter = 30,
    /// `BPF_MAP_TYPE_USER_RINGBUF`.
    UserRingBuf = 31,
    /// `BPF_MAP_TYPE_CGRP_STORAGE`.
    CgroupStorage = 32,
    /// `BPF_MAP_TYPE_ARENA`.
    Arena = 33,
}

impl MapType {
    /// The type with the kernel's number, if it has a name here.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.number() == number)
    }
}

impl fmt::Display for MapType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One BPF map of one kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapIdentity {
    /// The kernel's id; unique until the next boot.
    pub id: u32,
    /// The name that the kernel keeps, at most 15 bytes; may be empty.
    pub name: String,
    /// The type; `None` for one that this version has no name for.
    pub map_type: Option<MapType>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_leads_back_to_its_operation() {
        for operation in Operation::ALL {
            assert_eq!(
                Operation::from_command(operation.command()),
                Some(operation)
            );
        }
        assert_eq!(Operation::from_command(5), None);
    }

    #[test]
    fn an_operation_is_written_as_it_is_serialized() {
        for operation in Operation::ALL {
            assert_eq!(serde_json::json!(operation), operation.as_str());
        }
    }

    #[test]
    fn map_types_are_numbered_without_a_gap() {
        let numbers: Vec<u32> = MapType::ALL.iter().map(|it| it.number()).collect();
        assert_eq!(numbers, (1..=33).collect::<Vec<_>>());
    }
}
