//! Single operations that are handed over: slow ones, and those for exact figures.

use super::{number, text};

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
    /// The caller's number, or [`OTHER_CALLERS`](super::OTHER_CALLERS).
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
