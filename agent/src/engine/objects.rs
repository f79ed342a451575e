//! Everything that the engine has loaded, as descriptors to ask the kernel about.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use maplatency_bpf::sys;
use tracing::warn;

use super::Engine;
use crate::error::chain;

/// The maps and programs of an engine. Keeps them loaded, but not attached.
///
/// `None` where they could not all be opened: a sum over some of them would look like the whole.
#[derive(Debug)]
pub struct Objects {
    /// Every map.
    pub maps: Option<Vec<OwnedFd>>,
    /// Every program.
    pub programs: Option<Vec<OwnedFd>>,
}

impl Engine {
    /// Opens everything that is loaded once more. Works without regard to how the parts use it.
    pub fn objects(&self) -> Objects {
        Objects {
            maps: told("maps", maps(&self.own_maps)),
            programs: told("programs", programs(&self.ebpf)),
        }
    }
}

fn maps(ids: &BTreeSet<u32>) -> Result<Vec<OwnedFd>, sys::Error> {
    ids.iter()
        .map(|id| sys::Map::from_id(*id).map(OwnedFd::from))
        .collect()
}

fn programs(ebpf: &Ebpf) -> Result<Vec<OwnedFd>, aya::programs::ProgramError> {
    ebpf.programs()
        .filter(|it| super::load::is_loaded(it.1))
        .map(|(_, program)| {
            let fd = program.fd()?.as_fd().try_clone_to_owned();
            fd.map_err(aya::programs::ProgramError::IOError)
        })
        .collect()
}

/// What cannot be opened costs one figure, and not the measuring.
fn told<T>(what: &'static str, opened: Result<T, impl std::error::Error + 'static>) -> Option<T> {
    opened
        .inspect_err(|error| {
            warn!(
                what,
                error = chain(error),
                "Cannot tell the cost of the agent's own BPF objects"
            );
        })
        .ok()
}
