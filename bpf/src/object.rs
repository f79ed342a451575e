//! The compiled programs, embedded.

use aya::include_bytes_aligned;

/// The tracepoint tier: programs `enter_bpf`, `exit_bpf`, `on_switch`, `identify`, `take_role`.
pub static TRACEPOINT_OBJECT: &[u8] =
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracepoint.bpf.o"));
