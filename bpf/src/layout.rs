//! `layout.h`, byte for byte.
//!
//! Both sides assert the sizes, so that a field added on one side alone does not compile.

/// Probes that can run at once.
pub const MAX_PROBES: usize = 32;
/// Patterns of commands, per probe and list.
pub const MAX_GLOBS: usize = 8;
/// Blocks that there is room for.
pub const MAX_BLOCKS: u32 = 8192;
/// Buckets in a block.
pub const BLOCK_BUCKETS: usize = 64;
/// Set in [`BlockKey::instance`] for reads by the agent's own readers.
pub const INSTANCE_READER: u32 = 0x8000_0000;

/// What a thread of the agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// Nothing that is recorded.
    Nobody = 0,
    /// Reads on a schedule; recorded apart from callers.
    Reader = 1,
    /// Checks that the hooks fire.
    Check = 2,
}

/// Why an operation that was seen is not in a histogram, in the order of `enum loss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// No task storage at the entry: out of memory, or the task is exiting.
    Storage = 0,
    /// The page with the caller's attributes was not resident at the exit.
    Attributes = 1,
    /// No memory or no room for another block of buckets.
    Blocks = 2,
    /// The task died before it was back in user mode.
    Died = 3,
    /// A call began while the last one of the same task was still open: a hook did not run in between.
    Hook = 4,
}

impl Loss {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Storage,
        Self::Attributes,
        Self::Blocks,
        Self::Died,
        Self::Hook,
    ];

    /// The name in status and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Storage => "TaskStorage",
            Self::Attributes => "AttributesNotResident",
            Self::Blocks => "HistogramFull",
            Self::Died => "TaskDied",
            Self::Hook => "HookMissed",
        }
    }
}

/// `struct config`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Address of the file operations of maps, learnt from a map of the agent's own.
    pub map_file_operations: u64,
    /// Calls seen of a thread with [`Role::Check`].
    pub checked_calls: u64,
    /// Switches seen of such a thread.
    pub checked_switches: u64,
    /// The agent's process in the kernel's numbering.
    pub own_tgid: u32,
    /// bpf(2) commands that any probe wants, a bit each.
    pub commands: u32,
    /// Probes that select callers, a bit each.
    pub filtered_probes: u32,
    /// Changes with every change of what is wanted, and when blocks are let go: what tasks remember ends with it.
    pub generation: u32,
}

/// `struct target`, by map id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Target {
    /// Probes that want the map, a bit each.
    pub probes: u32,
}

/// `struct probe`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Probe {
    /// Operations that began earlier, by `CLOCK_MONOTONIC`, are not its own.
    pub since_ns: u64,
    /// Never given twice.
    pub instance: u32,
    /// bpf(2) commands, a bit each.
    pub commands: u32,
    /// Patterns to include; none: everyone.
    pub includes: u32,
    /// Patterns to leave out.
    pub excludes: u32,
}

/// `struct glob`: the automaton of one pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Glob {
    /// For every byte the positions that accept it.
    pub accepts: [u32; 256],
    /// Positions at which any run of bytes may be skipped.
    pub skips: u32,
    /// The accepting position.
    pub accepting: u32,
}

/// `struct block_key`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct BlockKey {
    /// The map.
    pub map_id: u32,
    /// The probe, and [`INSTANCE_READER`].
    pub instance: u32,
    /// CPU at the entry.
    pub cpu: u16,
    /// bpf(2) command.
    pub command: u8,
    /// Which 64 buckets.
    pub block: u8,
}

impl BlockKey {
    /// From the bytes of a key.
    pub fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            map_id: word(0),
            instance: word(4),
            cpu: u16::from_ne_bytes([bytes[8], bytes[9]]),
            command: bytes[10],
            block: bytes[11],
        }
    }

    /// The bytes of a key.
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[0..4].copy_from_slice(&self.map_id.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.instance.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.cpu.to_ne_bytes());
        bytes[10] = self.command;
        bytes[11] = self.block;
        bytes
    }
}

/// `struct block`: 64 buckets of both latencies. Counts wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Block {
    /// Entry to exit.
    pub kernel_window: [u32; BLOCK_BUCKETS],
    /// Entry until back in user mode.
    pub until_user: [u32; BLOCK_BUCKETS],
}

impl Block {
    /// An empty one.
    pub const EMPTY: Self = Self {
        kernel_window: [0; BLOCK_BUCKETS],
        until_user: [0; BLOCK_BUCKETS],
    };

    /// From the bytes of a value.
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        let mut block = Self::EMPTY;
        let words = bytes
            .chunks_exact(4)
            .map(|it| u32::from_ne_bytes([it[0], it[1], it[2], it[3]]));
        let counts = block
            .kernel_window
            .iter_mut()
            .chain(block.until_user.iter_mut());
        for (count, word) in counts.zip(words) {
            *count = word;
        }
        block
    }
}

const _: () = assert!(size_of::<Config>() == 40, "layout.h asserts the same size");
const _: () = assert!(size_of::<Target>() == 4, "layout.h asserts the same size");
const _: () = assert!(size_of::<Probe>() == 24, "layout.h asserts the same size");
const _: () = assert!(size_of::<Glob>() == 1032, "layout.h asserts the same size");
const _: () = assert!(
    size_of::<BlockKey>() == 12,
    "layout.h asserts the same size"
);
const _: () = assert!(size_of::<Block>() == 512, "layout.h asserts the same size");

#[cfg(feature = "aya")]
#[allow(unsafe_code, reason = "aya's marker for plain data is an unsafe trait")]
mod pod {
    use super::{Config, Glob, Probe, Target};

    // SAFETY: `repr(C)`, integers only, and the sizes asserted above leave no padding.
    unsafe impl aya::Pod for Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Target {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Probe {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Glob {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_bytes() {
        let key = BlockKey {
            map_id: 0x0102_0304,
            instance: INSTANCE_READER | 7,
            cpu: 300,
            command: 24,
            block: 29,
        };
        assert_eq!(BlockKey::from_bytes(key.to_bytes()), key);
    }

    #[test]
    fn the_second_half_of_a_block_is_until_user() {
        let mut bytes = [0u8; 512];
        bytes[4..8].copy_from_slice(&5u32.to_ne_bytes());
        bytes[256..260].copy_from_slice(&9u32.to_ne_bytes());
        let block = Block::from_bytes(&bytes);
        assert_eq!((block.kernel_window[1], block.until_user[0]), (5, 9));
    }
}
