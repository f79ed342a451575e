//! Many entries at once.

use super::elements::{address, address_mut, check, found};
use super::uapi::{BatchAttr, UpdateFlags, bpf, command};
use super::{Buffer, ElementCommand, Error, Map, Result};

/// What a batch read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many entries at the start of the buffers are filled.
    pub count: usize,
    /// Whether the map has entries after these.
    pub more: bool,
}

/// Where a batch read stands in its map. Made by [`Map::batch_cursor`].
#[derive(Clone, Debug)]
pub struct BatchCursor {
    /// Opaque to user space: a bucket number for a hash, the last key for others.
    position: Box<[u8]>,
    key_size: usize,
    started: bool,
}

impl BatchCursor {
    /// Goes back to the start of the map.
    pub fn rewind(&mut self) {
        self.started = false;
    }
}

impl Map {
    /// A cursor at the start of this map, for [`Map::lookup_batch`].
    pub fn batch_cursor(&self) -> BatchCursor {
        BatchCursor {
            // A hash keeps a 32-bit bucket number here even if its keys are shorter.
            position: vec![0; self.key_size.max(size_of::<u32>())].into_boxed_slice(),
            key_size: self.key_size,
            started: false,
        }
    }

    /// Reads as many entries as the buffers hold, from where `cursor` stands, and moves it on.
    /// Kernel 5.6 or newer.
    ///
    /// The last batch says so and may be empty; reading on needs [`BatchCursor::rewind`].
    #[inline]
    pub fn lookup_batch(
        &self,
        cursor: &mut BatchCursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> Result<Batch> {
        let command = (command::MAP_LOOKUP_BATCH, ElementCommand::LookupBatch);
        self.read_batch(command, cursor, keys, values)
    }

    /// As [`Map::lookup_batch`], and removes what it reads. Kernel 5.6 or newer.
    #[inline]
    pub fn lookup_and_delete_batch(
        &self,
        cursor: &mut BatchCursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> Result<Batch> {
        let command = (
            command::MAP_LOOKUP_AND_DELETE_BATCH,
            ElementCommand::LookupAndDeleteBatch,
        );
        self.read_batch(command, cursor, keys, values)
    }

    #[inline]
    fn read_batch(
        &self,
        (number, command): (u32, ElementCommand),
        cursor: &mut BatchCursor,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> Result<Batch> {
        let count = self.entries(keys.len(), values.len())?;
        if cursor.key_size != self.key_size {
            return Err(Error::ForeignCursor {
                expected: self.key_size,
                actual: cursor.key_size,
            });
        }
        let position = address_mut(&mut cursor.position);
        let mut attr = BatchAttr {
            in_batch: if cursor.started { position } else { 0 },
            out_batch: position,
            ..self.batch(address_mut(keys), address_mut(values), count)
        };
        // SAFETY: the kernel writes at most `count` keys and values, for which `entries` found
        // both buffers long enough, and a position of at most max(4, key_size) bytes, which is
        // what `batch_cursor` allocated. It reads the old position before it writes the new one.
        let answer = unsafe { bpf(number, &mut attr) };
        let more = found(answer, command).map_err(|error| match error {
            Error::Element { command, source } => Error::Batch {
                command,
                done: batch_progress(count, attr.count),
                source,
            },
            other => other,
        })?;
        // Of an empty batch the kernel writes no position.
        cursor.started |= count > 0;
        Ok(Batch {
            count: attr.count as usize,
            more,
        })
    }

    /// Writes many entries, as many as the buffers hold. Kernel 5.6 or newer.
    pub fn update_batch(&self, keys: &[u8], values: &[u8], flags: UpdateFlags) -> Result<()> {
        let count = self.entries(keys.len(), values.len())?;
        let mut attr = BatchAttr {
            elem_flags: flags as u64,
            ..self.batch(address(keys), address(values), count)
        };
        // SAFETY: the kernel reads at most `count` keys and values, for which `entries` found both
        // buffers long enough.
        let answer = unsafe { bpf(command::MAP_UPDATE_BATCH, &mut attr) };
        answer.map(drop).map_err(|source| Error::Batch {
            command: ElementCommand::UpdateBatch,
            done: batch_progress(count, attr.count),
            source,
        })
    }

    /// Removes many entries; false when the kernel met a key that was not there, and stopped. Kernel 5.6 or newer.
    pub fn delete_batch(&self, keys: &[u8]) -> Result<bool> {
        let count = keys.len().checked_div(self.key_size).unwrap_or(0);
        check(Buffer::Key, count * self.key_size, keys.len())?;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut attr = self.batch(address(keys), 0, count);
        // SAFETY: the kernel reads at most `count` keys, which is what the buffer was just found to hold.
        let answer = unsafe { bpf(command::MAP_DELETE_BATCH, &mut attr) };
        found(answer, ElementCommand::DeleteBatch)
    }

    #[inline]
    fn batch(&self, keys: u64, values: u64, count: u32) -> BatchAttr {
        BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count,
            map_fd: self.kernel_fd(),
            elem_flags: 0,
            flags: 0,
        }
    }

    /// How many entries fit into both buffers, which have to agree on it.
    fn entries(&self, keys: usize, values: usize) -> Result<u32> {
        let count = keys.checked_div(self.key_size).unwrap_or(0);
        check(Buffer::Key, count * self.key_size, keys)?;
        check(Buffer::Value, count.saturating_mul(self.value_size), values)?;
        // Longer buffers are sound, the kernel merely leaves their ends alone.
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

/// How many entries a failed batch dealt with. Where the kernel refuses before it begins it leaves
/// the number asked for, and a batch that reached that number would not have failed.
fn batch_progress(asked: u32, answered: u32) -> u32 {
    if answered == asked { 0 } else { answered }
}
