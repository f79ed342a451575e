//! Which maps there are.
//!
//! Maps are looked up by id, and none is kept open: an agent that held a descriptor would keep a map alive that
//! its owner has let go.

use std::collections::{BTreeMap, BTreeSet};

use maplatency_bpf::sys;
use maplatency_core::vocabulary::{MapIdentity, MapType};

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
}

impl Maps {
    /// All maps but the hidden ones.
    pub fn except(hidden: BTreeSet<u32>) -> Self {
        Self {
            known: BTreeMap::new(),
            hidden,
        }
    }

    /// Looks again: new maps come in, vanished ones go out.
    pub fn refresh(&mut self) -> Result<&BTreeMap<u32, MapIdentity>, DiscoverError> {
        let ids = sys::map_ids().map_err(DiscoverError::List)?;
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
}

fn identity(info: sys::MapInfo) -> MapIdentity {
    MapIdentity {
        id: info.id,
        name: info.name,
        map_type: MapType::from_number(info.map_type.0),
    }
}
