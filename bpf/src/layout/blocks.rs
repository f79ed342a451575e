//! Blocks of buckets.

use super::{BLOCK_BUCKETS, number};

/// `struct block_key`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct BlockKey {
    /// The map.
    pub map_id: u32,
    /// The probe, and [`INSTANCE_READER`](super::INSTANCE_READER).
    pub instance: u32,
    /// CPU at the entry.
    pub cpu: u16,
    /// The caller's number, or [`OTHER_CALLERS`](super::OTHER_CALLERS).
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

const _: () = assert!(BlockKey::BYTES == 16, "layout.h asserts the same size");
const _: () = assert!(size_of::<Block>() == 568, "layout.h asserts the same size");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::INSTANCE_READER;

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
}
