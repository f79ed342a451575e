//! Programs and maps of a loaded object, by their names.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::Map;
use aya::programs::ProgramError;
use maplatency_bpf::sys;

use super::ReadError;
use super::load_error::{LoadError, refused};

pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut P
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .expect("the object is compiled together with this crate")
        .try_into()
        .expect("the section says which type it is")
}

pub(super) fn program_fd(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, LoadError> {
    let program = ebpf
        .program_mut(name)
        .expect("the object is compiled together with this crate");
    let fd = program.fd().map_err(refused("open", name))?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|source| refused("open", name)(ProgramError::IOError(source)))
}

pub(super) fn opened(ebpf: &Ebpf, name: &'static str) -> Result<sys::Map, LoadError> {
    let Some(Map::Array(data) | Map::HashMap(data) | Map::ArrayOfMaps(data)) = ebpf.map(name)
    else {
        unreachable!("the object is compiled together with this crate")
    };
    let unusable = |source: ReadError| LoadError::Map { map: name, source };
    let fd = data
        .fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|it| unusable(aya::maps::MapError::IoError(it).into()))?;
    sys::Map::from_fd(fd).map_err(|it| unusable(it.into()))
}

pub(super) fn typed<M>(
    ebpf: &mut Ebpf,
    name: &'static str,
    convert: impl FnOnce(aya::maps::Map) -> Result<M, aya::maps::MapError>,
) -> Result<M, LoadError> {
    let map = ebpf
        .take_map(name)
        .expect("the object is compiled together with this crate");
    convert(map).map_err(|source| LoadError::Map {
        map: name,
        source: source.into(),
    })
}
