//! The callers that the kernel side tells apart by number: who they are, and when a number is free again.
//!
//! A number goes through four drains: chosen, when its caller was idle for long and room is short; counted for the
//! last time; resting, since an operation may still be about to be counted under it; free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aya::maps::{HashMap, MapData, Queue};
use maplatency_bpf::layout::{Caller, CallerKey, MAX_BLOCKS, MAX_CALLERS, OTHER_CALLERS};
use maplatency_bpf::sys;
use maplatency_core::callers::{CallerIdentity, container_of};

use super::EngineError;
use crate::clock;

/// Drains without an operation after which a caller may lose its number.
const IDLE: u32 = 2;
/// Callers beyond which idle ones lose theirs.
const MANY_CALLERS: usize = MAX_CALLERS as usize / 4 * 3;
/// Blocks beyond which they do, too.
const MANY_BLOCKS: usize = MAX_BLOCKS as usize / 2;

/// Who has which number.
pub(super) struct Callers {
    numbers: HashMap<MapData, CallerKey, u32>,
    identities: sys::Map,
    free: Queue<MapData, u32>,
    known: BTreeMap<u16, Known>,
    chosen: BTreeSet<u16>,
    resting: BTreeSet<u16>,
    /// Nobody keeps a number.
    coarser: bool,
    boot_unix_microseconds: i64,
}

struct Known {
    identity: Arc<CallerIdentity>,
    idle: u32,
}

impl Callers {
    /// Hands all numbers to the kernel side.
    pub(super) fn new(
        numbers: HashMap<MapData, CallerKey, u32>,
        identities: sys::Map,
        mut free: Queue<MapData, u32>,
    ) -> Result<Self, aya::maps::MapError> {
        for number in u32::from(OTHER_CALLERS) + 1..MAX_CALLERS {
            free.push(number, 0)?;
        }
        Ok(Self {
            numbers,
            identities,
            free,
            known: BTreeMap::new(),
            chosen: BTreeSet::new(),
            resting: BTreeSet::new(),
            coarser: false,
            boot_unix_microseconds: clock::boot_unix_microseconds(),
        })
    }

    /// Whether all callers lose their numbers at the next drains.
    pub(super) fn set_coarser(&mut self, coarser: bool) {
        self.coarser = coarser;
    }

    /// Who has a number. `None` for [`OTHER_CALLERS`], and for everybody while nobody keeps one.
    pub(super) fn identity(
        &mut self,
        number: u16,
    ) -> Result<Option<Arc<CallerIdentity>>, EngineError> {
        if number == OTHER_CALLERS {
            return Ok(None);
        }
        if let Some(known) = self.known.get_mut(&number) {
            known.idle = 0;
            return Ok((!self.coarser).then(|| Arc::clone(&known.identity)));
        }
        let mut bytes = [0; Caller::BYTES];
        self.identities
            .lookup(&u32::from(number).to_ne_bytes(), &mut bytes)
            .map_err(|source| EngineError::Read {
                map: "callers",
                source: source.into(),
            })?;
        let identity = Arc::new(self.read(&Caller::from_bytes(&bytes)));
        let known = Known {
            identity: Arc::clone(&identity),
            idle: 0,
        };
        self.known.insert(number, known);
        Ok((!self.coarser).then_some(identity))
    }

    /// Who has a number, if that is a certain process. Operations are told later than they are counted.
    pub(super) fn known(&self, number: u16, pid: u32) -> Option<Arc<CallerIdentity>> {
        let identity = &self.known.get(&number)?.identity;
        (identity.pid == pid).then(|| Arc::clone(identity))
    }

    /// Ends a drain, in which all callers that were asked for had operations. Gives the numbers of which the blocks
    /// can go, and whether numbers are no longer what tasks remember.
    pub(super) fn end_drain(
        &mut self,
        blocks: usize,
    ) -> Result<(BTreeSet<u16>, bool), EngineError> {
        for number in std::mem::take(&mut self.resting) {
            self.free
                .push(u32::from(number), 0)
                .map_err(|source| EngineError::Write {
                    map: "free_callers",
                    source,
                })?;
        }
        let over = std::mem::take(&mut self.chosen);
        self.known.retain(|number, _| !over.contains(number));
        self.resting.clone_from(&over);
        let idle = if self.coarser { 0 } else { IDLE };
        if self.coarser || self.known.len() > MANY_CALLERS || blocks > MANY_BLOCKS {
            self.chosen = self
                .known
                .iter()
                .filter(|it| it.1.idle >= idle)
                .map(|it| *it.0)
                .collect();
            self.take_back()?;
        }
        for known in self.known.values_mut() {
            known.idle += 1;
        }
        Ok((over, !self.chosen.is_empty()))
    }

    /// From now on the chosen callers get other numbers, if any.
    fn take_back(&mut self) -> Result<(), EngineError> {
        let unusable = |source: aya::maps::MapError| EngineError::Read {
            map: "caller_of",
            source: source.into(),
        };
        let mut keys = Vec::new();
        for entry in &self.numbers {
            let (key, number) = entry.map_err(unusable)?;
            if u16::try_from(number).is_ok_and(|it| self.chosen.contains(&it)) {
                keys.push(key);
            }
        }
        for key in keys {
            match self.numbers.remove(&key) {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => (),
                Err(source) => return Err(unusable(source)),
            }
        }
        Ok(())
    }

    fn read(&self, caller: &Caller) -> CallerIdentity {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let names: Vec<String> = caller.cgroup.iter().map(text).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let container = container_of(&names);
        let since_boot = i64::try_from(caller.start_ns / 1_000).unwrap_or(i64::MAX);
        CallerIdentity {
            pid: caller.pid,
            start_unix_microseconds: self.boot_unix_microseconds.saturating_add(since_boot),
            command: text(&caller.command),
            cgroup_id: caller.cgroup_id,
            cgroup: path_of(&names),
            container,
        }
    }
}

/// A cgroup's path, of its names from its own upwards.
pub(super) fn path_of(names: &[&str]) -> String {
    // The root has the name "/" in some kernels and none in others.
    let path: Vec<&str> = names
        .iter()
        .rev()
        .copied()
        .filter(|it| *it != "/")
        .collect();
    path.join("/")
}
