//! Which maps there are.
//!
//! Maps are looked up by id, and none is kept open: an agent that held a descriptor would keep a map alive that
//! its owner has let go.

mod pins;

use std::collections::{BTreeMap, BTreeSet};

use maplatency_bpf::sys;
use maplatency_core::vocabulary::{MapIdentity, MapType};

pub use pins::{Pins, PinsError};

/// Why maps could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The kernel did not tell the ids.
    #[error("could not list the BPF maps of this host; that needs CAP_SYS_ADMIN")]
    List(#[source] std::io::Error),
}

/// The maps of this kernel by id. An id means one map for as long as the kernel runs, so each is asked for once.
#[derive(Debug)]
pub struct Maps {
    known: BTreeMap<u32, MapIdentity>,
    hidden: BTreeSet<u32>,
    newest: u32,
    /// The highest id of a map that went before it was listed.
    missed: u32,
}

/// What became of a map that had operations before it was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is listed now.
    Listed,
    /// The next listing will have it.
    Coming,
    /// It has gone, and was never listed.
    Missed,
}

impl Maps {
    /// All maps but the hidden ones.
    pub fn except(hidden: BTreeSet<u32>) -> Self {
        Self {
            known: BTreeMap::new(),
            hidden,
            newest: 0,
            missed: 0,
        }
    }

    /// Leaves out another one.
    pub fn hide(&mut self, id: u32) {
        self.hidden.insert(id);
        self.known.remove(&id);
    }

    /// Looks again: new maps come in, vanished ones go out.
    pub fn refresh(&mut self) -> Result<&BTreeMap<u32, MapIdentity>, DiscoverError> {
        let ids = sys::map_ids().map_err(DiscoverError::List)?;
        // Whoever came before a map that was missed is listed by now, or has gone.
        let listed = ids.last().copied().unwrap_or(0);
        self.newest = self.newest.max(self.missed).max(listed);
        self.known.retain(|id, _| ids.binary_search(id).is_ok());
        for id in ids {
            // One that vanished since it was listed is no error, and one that may not be opened has no name.
            if !self.known.contains_key(&id)
                && !self.hidden.contains(&id)
                && let Ok(info) = sys::Map::from_id(id).and_then(|it| it.info())
            {
                self.known.insert(id, identity(info));
            }
        }
        Ok(&self.known)
    }

    /// The highest id up to which every map is listed or has gone.
    ///
    /// The kernel gives ids rising, up to 2^31 - 1, and then begins anew; from then on this tells nothing of use.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// What became of a map that the kernel side met.
    pub fn fate_of(&mut self, id: u32) -> Fate {
        if self.known.contains_key(&id) || self.hidden.contains(&id) {
            return Fate::Listed;
        }
        match sys::Map::from_id(id) {
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                self.missed = self.missed.max(id);
                Fate::Missed
            }
            _ if id <= self.newest => Fate::Listed,
            _ => Fate::Coming,
        }
    }
}

fn identity(info: sys::MapInfo) -> MapIdentity {
    MapIdentity {
        id: info.id,
        name: info.name,
        map_type: MapType::from_number(info.map_type.0),
    }
}
