//! The ring buffer by which single operations are handed over. It is there only while a probe wants them.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::maps::{Map, MapData, MapError, RingBuf};
use maplatency_bpf::layout::{OPERATION_BYTES, OperationRecord};
use maplatency_bpf::sys::{self, MapSpec, MapType, UpdateFlags};

/// Where the kernel side looks for it.
const FIRST: [u8; 4] = 0u32.to_ne_bytes();

/// Why there is no ring buffer.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// It could not be made, or the kernel side could not be told of it.
    #[error("could not set up the ring buffer of single operations")]
    Set(#[source] sys::Error),
    /// It could not be mapped.
    #[error("could not map the ring buffer of single operations")]
    Map(#[from] MapError),
}

/// The map that holds it for the kernel side.
pub(super) struct Handover {
    holder: sys::Map,
}

/// The ring buffer, from which operations are taken.
pub struct OperationRing {
    ring: RingBuf<MapData>,
    id: u32,
}

impl Handover {
    pub(super) fn new(holder: sys::Map) -> Self {
        Self { holder }
    }

    /// Makes the ring buffer, and gives it to the kernel side.
    pub(super) fn open(&mut self) -> Result<OperationRing, HandoverError> {
        let ring = sys::Map::create(&MapSpec {
            name: "operations",
            map_type: MapType::RINGBUF,
            key_size: 0,
            value_size: 0,
            max_entries: OPERATION_BYTES,
            flags: 0,
        })
        .map_err(HandoverError::Set)?;
        let id = ring.id().map_err(HandoverError::Set)?;
        let ring = Map::from_map_data(MapData::from_fd(ring.into())?)?;
        let ring: RingBuf<MapData> = ring.try_into()?;
        // Last, so that none stays there that nobody empties.
        let descriptor = ring.as_fd().as_raw_fd().to_ne_bytes();
        self.holder
            .update(&FIRST, &descriptor, UpdateFlags::Any)
            .map_err(HandoverError::Set)?;
        Ok(OperationRing { ring, id })
    }

    /// Takes it back. Returns once no program uses it any more: what it holds then is all there is.
    pub(super) fn close(&mut self) -> Result<(), HandoverError> {
        let deleted = self.holder.delete(&FIRST);
        deleted.map(drop).map_err(HandoverError::Set)
    }
}

impl OperationRing {
    /// The map's id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Another descriptor of it.
    pub fn descriptor(&self) -> std::io::Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned()
    }

    /// The oldest operation that was not taken yet.
    pub fn take(&mut self) -> Option<OperationRecord> {
        let item = self.ring.next()?;
        let bytes = (*item).try_into().expect("the kernel side writes no other");
        Some(OperationRecord::from_bytes(bytes))
    }
}
