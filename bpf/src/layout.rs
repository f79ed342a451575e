//! `layout.h`, byte for byte.
//!
//! Both sides assert the sizes, so that a field added on one side alone does not compile.

mod blocks;
mod callers;
mod single;

pub use blocks::{Block, BlockKey, Span};
pub use callers::{Caller, CallerKey, Holder};
pub use single::{OperationRecord, Outlier, OutlierCounts, ThresholdKey};

/// Probes that can run at once.
pub const MAX_PROBES: usize = 32;
/// Patterns of commands, per probe and list.
pub const MAX_GLOBS: usize = 8;
/// Blocks that there is room for.
pub const MAX_BLOCKS: u32 = 8192;
/// How many of them only [`OTHER_CALLERS`] may begin.
pub const RESERVED_BLOCKS: u32 = 1024;
/// Callers that can be told apart at once, [`OTHER_CALLERS`] included.
pub const MAX_CALLERS: u32 = 1024;
/// The number of all callers that have none of their own.
pub const OTHER_CALLERS: u16 = 0;
/// Levels of a caller's cgroup that are told, from its own upwards.
pub const CGROUP_LEVELS: usize = 4;
/// Room for the name of each, with the zero that ends it.
pub const CGROUP_NAME: usize = 96;
/// Bytes of the ring buffer of single operations.
pub const OPERATION_BYTES: u32 = 4 * 1024 * 1024;
/// Maps and operations that can have a threshold of their own.
pub const MAX_THRESHOLDS: usize = 1024;
/// Matched maps, of all probes together.
pub const MAX_TARGETS: usize = 16_384;
/// Maps not listed yet of which operations are counted.
pub const MAX_NEWCOMERS: u32 = 1024;
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
    /// The caller is in a pid namespace that the agent does not see into.
    Namespace = 5,
    /// The caller's descriptor no longer stood for a map at the exit.
    Closed = 6,
}

impl Loss {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Storage,
        Self::Attributes,
        Self::Blocks,
        Self::Died,
        Self::Hook,
        Self::Namespace,
        Self::Closed,
    ];

    /// The name in status and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Storage => "TaskStorage",
            Self::Attributes => "AttributesNotResident",
            Self::Blocks => "HistogramFull",
            Self::Died => "TaskDied",
            Self::Hook => "HookMissed",
            Self::Namespace => "OutsidePidNamespace",
            Self::Closed => "MapClosed",
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
    /// The agent's own pid namespace, by address.
    pub pid_namespace: u64,
    /// How deep it lies.
    pub pid_level: u32,
    /// Rises with every drain: when something was counted is told apart by it.
    pub slice: u32,
    /// The agent's process in the kernel's numbering.
    pub own_tgid: u32,
    /// bpf(2) commands that any probe wants, a bit each.
    pub commands: u32,
    /// Probes that select callers, a bit each.
    pub filtered_probes: u32,
    /// Changes with every change of what is wanted, and when blocks are let go: what tasks remember ends with it.
    pub generation: u32,
    /// Changes when callers lose their numbers.
    pub callers_generation: u32,
    /// Probes that want outliers, a bit each.
    pub outlier_probes: u32,
    /// The highest id of a map that user space knows of; those above are newcomers.
    pub newest_map: u32,
    /// Probes that select maps by what a newcomer tells of itself, a bit each.
    pub newcomer_probes: u32,
    /// One operation in so many is looked at, a power of two: the smallest that any probe asks for.
    pub sampling: u32,
    /// Not 0: callers get no numbers.
    pub coarser_callers: u32,
    /// How many slow operations may be told one by one.
    pub outliers_per_second: u32,
    /// Not 0: single operations are not handed over, but counted as missed.
    pub hold_back: u32,
}

/// `struct target`, by map id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Target {
    /// Probes that want the map, a bit each.
    pub probes: u32,
}

/// `struct newcomer`, by map id: a map that had operations before user space listed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Newcomer {
    /// Its type, by the kernel's number.
    pub map_type: u32,
    /// Its name, up to the first zero.
    pub name: [u8; 16],
}

impl Newcomer {
    /// Its name.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&text(&self.name)).into_owned()
    }
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
    /// From how long on an operation is an outlier, where no threshold says otherwise; 0: none is.
    pub outlier_ns: u64,
    /// How many of them may be told in a slice.
    pub outliers_per_slice: u32,
    /// One operation in so many counts, for all of them; a power of two.
    pub sampling: u32,
    /// Not 0: every operation that is counted is handed over, too.
    pub hands_over: u32,
    /// Not used.
    pub unused: u32,
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

/// The bytes before the first zero.
fn text(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().take_while(|it| *it != 0).collect()
}

fn number<const N: usize, T>(bytes: &[u8], at: usize, convert: impl Fn([u8; N]) -> T) -> T {
    convert(std::array::from_fn(|it| bytes[at + it]))
}

const _: () = assert!(size_of::<Config>() == 88, "layout.h asserts the same size");
const _: () = assert!(size_of::<Target>() == 4, "layout.h asserts the same size");
const _: () = assert!(
    size_of::<Newcomer>() == 20,
    "layout.h asserts the same size"
);
const _: () = assert!(size_of::<Probe>() == 48, "layout.h asserts the same size");
const _: () = assert!(size_of::<Glob>() == 1032, "layout.h asserts the same size");

#[cfg(feature = "aya")]
#[allow(unsafe_code, reason = "aya's marker for plain data is an unsafe trait")]
mod pod {
    use super::{CallerKey, Config, Glob, Newcomer, OutlierCounts, Probe, Target, ThresholdKey};

    // SAFETY: `repr(C)`, integers only, and the sizes asserted above leave no padding.
    unsafe impl aya::Pod for Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Target {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Newcomer {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Probe {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Glob {}
    // SAFETY: as above.
    unsafe impl aya::Pod for CallerKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ThresholdKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for OutlierCounts {}
}
