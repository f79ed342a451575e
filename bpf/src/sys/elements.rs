//! One entry at a time, and what is common to all commands on entries.

use std::ffi::c_long;
use std::io;

use super::uapi::{ElementAttr, UpdateFlags, bpf, command};
use super::{Buffer, ElementCommand, Error, Map, Result};

impl Map {
    /// Reads the value of `key` into `value`; false, and `value` untouched, when there is none.
    #[inline]
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        self.check_key(key)?;
        check(Buffer::Value, self.value_size, value.len())?;
        let mut attr = self.element(address(key), address_mut(value), 0);
        // SAFETY: the kernel reads `key_size` bytes of the key and writes `value_size` bytes of
        // the value; both buffers were just found to be that long and live through the call.
        let answer = unsafe { bpf(command::MAP_LOOKUP_ELEM, &mut attr) };
        found(answer, ElementCommand::Lookup)
    }

    /// As [`Map::lookup`], and removes the entry. Queues and stacks since 4.20, hashes since 5.14.
    #[inline]
    pub fn lookup_and_delete(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        self.check_key(key)?;
        check(Buffer::Value, self.value_size, value.len())?;
        let mut attr = self.element(address(key), address_mut(value), 0);
        // SAFETY: as in `lookup`.
        let answer = unsafe { bpf(command::MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) };
        found(answer, ElementCommand::LookupAndDelete)
    }

    /// Writes the value of `key`, for a per-CPU map those of all possible CPUs.
    pub fn update(&self, key: &[u8], value: &[u8], flags: UpdateFlags) -> Result<()> {
        self.check_key(key)?;
        check(Buffer::Value, self.value_size, value.len())?;
        let mut attr = self.element(address(key), address(value), flags as u64);
        // SAFETY: the kernel reads `key_size` and `value_size` bytes; both buffers were just found
        // to be that long and live through the call.
        let answer = unsafe { bpf(command::MAP_UPDATE_ELEM, &mut attr) };
        answer.map(drop).map_err(|source| Error::Element {
            command: ElementCommand::Update,
            source,
        })
    }

    /// Removes `key`; false when there was none.
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        self.check_key(key)?;
        let mut attr = self.element(address(key), 0, 0);
        // SAFETY: the kernel reads `key_size` bytes; the buffer was just found to be that long.
        let answer = unsafe { bpf(command::MAP_DELETE_ELEM, &mut attr) };
        found(answer, ElementCommand::Delete)
    }

    /// Writes the key after `key`, or the first one, into `next`; false when there is none.
    ///
    /// A hash whose `key` has vanished starts again from its first key.
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> Result<bool> {
        if let Some(key) = key {
            self.check_key(key)?;
        }
        self.check_key(next)?;
        let mut attr = self.element(key.map_or(0, address), address_mut(next), 0);
        // SAFETY: the kernel reads `key_size` bytes of the key, unless it is null, and writes as
        // many to `next`; both buffers were just found to be that long.
        let answer = unsafe { bpf(command::MAP_GET_NEXT_KEY, &mut attr) };
        found(answer, ElementCommand::NextKey)
    }

    #[inline]
    fn element(&self, key: u64, value: u64, flags: u64) -> ElementAttr {
        ElementAttr {
            map_fd: self.kernel_fd(),
            padding: 0,
            key,
            value,
            flags,
        }
    }

    #[inline]
    fn check_key(&self, key: &[u8]) -> Result<()> {
        check(Buffer::Key, self.key_size, key.len())
    }
}

#[inline]
pub(super) fn check(buffer: Buffer, expected: usize, actual: usize) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    Err(Error::BufferLength {
        buffer,
        expected,
        actual,
    })
}

/// Tells "no such entry" from a failure.
#[inline]
pub(super) fn found(answer: io::Result<c_long>, command: ElementCommand) -> Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(source) if source.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(source) => Err(Error::Element { command, source }),
    }
}

/// The address of a buffer, null for an empty one: the kernel wants no key from a keyless map.
#[inline]
pub(super) fn address(buffer: &[u8]) -> u64 {
    if buffer.is_empty() {
        return 0;
    }
    buffer.as_ptr().expose_provenance() as u64
}

/// Like [`address`], of a buffer that the kernel writes to.
#[inline]
pub(super) fn address_mut(buffer: &mut [u8]) -> u64 {
    if buffer.is_empty() {
        return 0;
    }
    buffer.as_mut_ptr().expose_provenance() as u64
}
