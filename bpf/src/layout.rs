//! `layout.h`, byte for byte.
//!
//! Both sides assert the sizes, so that a field added on one side alone does not compile.

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

/// `struct threshold_key`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct ThresholdKey {
    /// The map.
    pub map_id: u32,
    /// The probe.
    pub instance: u32,
    /// bpf(2) command.
    pub command: u32,
}

/// `struct outlier_counts`: of a probe, by its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct OutlierCounts {
    /// Told through the ring buffer.
    pub told: u64,
    /// More than may be told in a slice.
    pub held_back: u64,
    /// The ring buffer had no room.
    pub ring_full: u64,
    /// The last slice in which any was told.
    pub slice: u32,
    /// How many, in that.
    pub in_slice: u32,
}

/// `struct outlier`: one slow operation. Times by `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// When it began.
    pub begin_ns: u64,
    /// Entry to exit.
    pub kernel_window_ns: u64,
    /// Entry until back in user mode.
    pub until_user_ns: u64,
    /// Of that switched out.
    pub off_cpu_ns: u64,
    /// Of that ready to run.
    pub run_delay_ns: u64,
    /// How long the one ran at a stretch, meanwhile, who did so longest; 0: it was not seen.
    pub instead_ns: u64,
    /// The memory controller's cgroup; 0: there is none.
    pub cgroup_id: u64,
    /// The map.
    pub map_id: u32,
    /// The probe.
    pub instance: u32,
    /// Bytes of the map's keys.
    pub key_size: u32,
    /// Elements that a batch moved.
    pub entries: u32,
    /// The process, in the agent's pid namespace.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// Switches that the task asked for.
    pub voluntary_switches: u32,
    /// Switches that it did not.
    pub involuntary_switches: u32,
    /// Moves to another CPU.
    pub migrations: u32,
    /// Page faults without I/O.
    pub minor_faults: u32,
    /// Page faults with it.
    pub major_faults: u32,
    /// Who ran instead; 0: nobody, or a process outside the agent's pid namespace.
    pub instead_pid: u32,
    /// CPU at the entry.
    pub cpu: u16,
    /// CPU when it was back in user mode.
    pub cpu_after: u16,
    /// The caller's number, or [`OTHER_CALLERS`].
    pub caller: u16,
    /// bpf(2) command.
    pub command_number: u8,
    /// How the call ended, as `enum outcome` numbers it.
    pub outcome: u8,
    /// The thread's command.
    pub command: Vec<u8>,
    /// That of the thread that ran instead.
    pub instead_command: Vec<u8>,
}

impl Outlier {
    /// Size in the kernel.
    pub const BYTES: usize = 144;

    /// From the bytes of a record.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let wide = |at| number(bytes, at, u64::from_ne_bytes);
        let word = |at| number(bytes, at, u32::from_ne_bytes);
        let half = |at| number(bytes, at, u16::from_ne_bytes);
        Self {
            begin_ns: wide(0),
            kernel_window_ns: wide(8),
            until_user_ns: wide(16),
            off_cpu_ns: wide(24),
            run_delay_ns: wide(32),
            instead_ns: wide(40),
            cgroup_id: wide(48),
            map_id: word(56),
            instance: word(60),
            key_size: word(64),
            entries: word(68),
            pid: word(72),
            tid: word(76),
            voluntary_switches: word(80),
            involuntary_switches: word(84),
            migrations: word(88),
            minor_faults: word(92),
            major_faults: word(96),
            instead_pid: word(100),
            cpu: half(104),
            cpu_after: half(106),
            caller: half(108),
            command_number: bytes[110],
            outcome: bytes[111],
            command: text(&bytes[112..128]),
            instead_command: text(&bytes[128..144]),
        }
    }
}

/// `struct operation`: one operation that was handed over. Times by `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationRecord {
    /// When it began.
    pub begin_ns: u64,
    /// Entry to exit.
    pub kernel_window_ns: u64,
    /// Entry until back in user mode.
    pub until_user_ns: u64,
    /// The map.
    pub map_id: u32,
    /// The probe.
    pub instance: u32,
    /// The process, in the agent's pid namespace.
    pub pid: u32,
    /// CPU at the entry.
    pub cpu: u16,
    /// bpf(2) command.
    pub command: u8,
    /// How the call ended, as `enum outcome` numbers it.
    pub outcome: u8,
}

impl OperationRecord {
    /// Size in the kernel.
    pub const BYTES: usize = 40;

    /// From the bytes of a record.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let wide = |at| number(bytes, at, u64::from_ne_bytes);
        let word = |at| number(bytes, at, u32::from_ne_bytes);
        Self {
            begin_ns: wide(0),
            kernel_window_ns: wide(8),
            until_user_ns: wide(16),
            map_id: word(24),
            instance: word(28),
            pid: word(32),
            cpu: number(bytes, 36, u16::from_ne_bytes),
            command: bytes[38],
            outcome: bytes[39],
        }
    }
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
    /// The caller's number, or [`OTHER_CALLERS`].
    pub caller: u16,
    /// bpf(2) command.
    pub command: u8,
    /// How the call ended, as `enum outcome` numbers it.
    pub outcome: u8,
    /// Which 64 buckets.
    pub block: u8,
}

impl BlockKey {
    /// Size of a key in the kernel, with its unused last byte.
    pub const BYTES: usize = 16;

    /// From the bytes of a key.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self {
            map_id: number(&bytes, 0, u32::from_ne_bytes),
            instance: number(&bytes, 4, u32::from_ne_bytes),
            cpu: number(&bytes, 8, u16::from_ne_bytes),
            caller: number(&bytes, 10, u16::from_ne_bytes),
            command: bytes[12],
            outcome: bytes[13],
            block: bytes[14],
        }
    }

    /// The bytes of a key.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..4].copy_from_slice(&self.map_id.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.instance.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.cpu.to_ne_bytes());
        bytes[10..12].copy_from_slice(&self.caller.to_ne_bytes());
        bytes[12] = self.command;
        bytes[13] = self.outcome;
        bytes[14] = self.block;
        bytes
    }
}

/// `struct span`: when the operations of one slice began and ended that were counted in a block, by `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    /// The first one's begin.
    pub first_begin_ns: u64,
    /// The last one's end.
    pub last_end_ns: u64,
}

/// `struct block`: 64 buckets of both latencies. Counts wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Block {
    /// Entry to exit.
    pub kernel_window: [u32; BLOCK_BUCKETS],
    /// Entry until back in user mode.
    pub until_user: [u32; BLOCK_BUCKETS],
    /// Elements that batches moved. Of operations that are counted in `until_user` here, as is all below.
    pub entries: u64,
    /// Of two slices; the lowest bit of a slice's number tells which.
    pub spans: [Span; 2],
    /// Whose spans those are.
    pub slices: [u32; 2],
    /// Operations that ended on another CPU.
    pub moved: u32,
    /// Operations that should have been handed over and were not.
    pub missed: u32,
}

impl Block {
    /// An empty one.
    pub const EMPTY: Self = Self {
        kernel_window: [0; BLOCK_BUCKETS],
        until_user: [0; BLOCK_BUCKETS],
        entries: 0,
        spans: [Span {
            first_begin_ns: 0,
            last_end_ns: 0,
        }; 2],
        slices: [0; 2],
        moved: 0,
        missed: 0,
    };

    /// From the bytes of a value.
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        let wide = |at| number(bytes, at, u64::from_ne_bytes);
        let word = |at| number(bytes, at, u32::from_ne_bytes);
        let span = |at| Span {
            first_begin_ns: wide(at),
            last_end_ns: wide(at + 8),
        };
        Self {
            kernel_window: std::array::from_fn(|it| word(4 * it)),
            until_user: std::array::from_fn(|it| word(256 + 4 * it)),
            entries: wide(512),
            spans: [span(520), span(536)],
            slices: [word(552), word(556)],
            moved: word(560),
            missed: word(564),
        }
    }

    /// When something was counted here in a slice.
    pub fn span(&self, slice: u32) -> Option<Span> {
        let at = usize::from(slice & 1 == 1);
        (self.slices[at] == slice).then_some(self.spans[at])
    }
}

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
const _: () = assert!(BlockKey::BYTES == 16, "layout.h asserts the same size");
const _: () = assert!(size_of::<Block>() == 568, "layout.h asserts the same size");
const _: () = assert!(
    size_of::<CallerKey>() == 24,
    "layout.h asserts the same size"
);
const _: () = assert!(Holder::BYTES == 408, "24 bytes and the names");
const _: () = assert!(Caller::BYTES == 424, "layout.h asserts the same size");
const _: () = assert!(
    size_of::<ThresholdKey>() == 12,
    "layout.h asserts the same size"
);
const _: () = assert!(
    size_of::<OutlierCounts>() == 32,
    "layout.h asserts the same size"
);
const _: () = assert!(Outlier::BYTES == 144, "layout.h asserts the same size");
const _: () = assert!(
    OperationRecord::BYTES == 40,
    "layout.h asserts the same size"
);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_bytes() {
        let key = BlockKey {
            map_id: 0x0102_0304,
            instance: INSTANCE_READER | 7,
            cpu: 300,
            caller: 1000,
            command: 24,
            outcome: 8,
            block: 29,
        };
        assert_eq!(BlockKey::from_bytes(key.to_bytes()), key);
    }

    #[test]
    fn the_fields_of_a_block_lie_where_the_kernel_side_has_them() {
        let mut bytes = [0u8; 568];
        for (at, byte) in (0u8..=u8::MAX).cycle().zip(&mut bytes) {
            *byte = at;
        }
        let block = Block::from_bytes(&bytes);
        // What the compiler laid out is the C layout: all fields are as wide as their offsets are even.
        let byte = |at: usize| u8::try_from(at % 256).unwrap();
        let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|it| byte(at + it)));
        let wide = |at: usize| u64::from_ne_bytes(std::array::from_fn(|it| byte(at + it)));
        assert_eq!(block.kernel_window[1], word(4));
        assert_eq!(block.until_user[0], word(256));
        assert_eq!(block.entries, wide(std::mem::offset_of!(Block, entries)));
        let spans = std::mem::offset_of!(Block, spans);
        assert_eq!(block.spans[0].first_begin_ns, wide(spans));
        assert_eq!(block.spans[1].last_end_ns, wide(spans + 24));
        let slices = std::mem::offset_of!(Block, slices);
        assert_eq!(block.slices, [word(slices), word(slices + 4)]);
        assert_eq!(block.moved, word(std::mem::offset_of!(Block, moved)));
        assert_eq!(block.missed, word(std::mem::offset_of!(Block, missed)));
    }

    #[test]
    fn a_span_is_told_of_its_own_slice_only() {
        let span = Span {
            first_begin_ns: 1,
            last_end_ns: 2,
        };
        let mut block = Block::EMPTY;
        block.slices = [8, 7];
        block.spans[1] = span;
        assert_eq!(block.span(7), Some(span));
        assert_eq!((block.span(9), block.span(6)), (None, None));
    }

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
