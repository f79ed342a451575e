//! The compiled programs, embedded: one object per tier.

use std::fmt;

use aya::include_bytes_aligned;

/// The hooks by which bpf(2) is timed. Every tier counts the same operations; they differ in what they cost and in
/// which kernels take them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Entry and exit of the function behind bpf(2). Nothing runs on other system calls.
    Fentry,
    /// The tracepoints of bpf(2).
    Tracepoint,
    /// The raw tracepoints of all system calls.
    TpBtf,
}

static FENTRY: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fentry.bpf.o"));
static TRACEPOINT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracepoint.bpf.o"));
static TP_BTF: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tp_btf.bpf.o"));

impl Tier {
    /// Every tier, the one to prefer first.
    pub const ALL: [Self; 3] = [Self::Fentry, Self::Tracepoint, Self::TpBtf];

    /// Its name in status and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "Fentry",
            Self::Tracepoint => "Tracepoint",
            Self::TpBtf => "TpBtf",
        }
    }

    /// Its programs: `enter_bpf`, `exit_bpf`, `on_switch`, `identify`, `take_role`, and `list_holders`, which is an iterator
    /// over open files.
    pub const fn object(self) -> &'static [u8] {
        match self {
            Self::Fentry => FENTRY,
            Self::Tracepoint => TRACEPOINT,
            Self::TpBtf => TP_BTF,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
