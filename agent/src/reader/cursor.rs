//! Walks through the keys of a map, one read at a time.

use std::time::Duration;

use maplatency_bpf::sys::{self, Map};
use nix::sched::sched_getcpu;

use crate::clock;

/// What came of a read.
pub(super) enum Outcome {
    /// It read an existing key and took this long.
    Read(Duration),
    /// There was nothing to read: an empty map, or one that has just gone.
    Nothing,
    /// This map cannot be read by key.
    Unreadable(String),
}

/// Where in a map a reader stands.
pub(super) struct Cursor {
    id: u32,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    unreadable: bool,
}

impl Cursor {
    pub(super) fn new(id: u32) -> Self {
        Self {
            id,
            key: None,
            value: Vec::new(),
            unreadable: false,
        }
    }

    /// Reads the value of the next key, with nothing but the system call between the two clock readings.
    pub(super) fn read(&mut self, cpu: u32) -> Outcome {
        if self.unreadable {
            return Outcome::Nothing;
        }
        let Ok(map) = Map::from_id(self.id) else {
            return Outcome::Nothing;
        };
        match self.advance(&map) {
            Ok(true) => self.timed_lookup(&map, cpu),
            Ok(false) => Outcome::Nothing,
            Err(error) => self.give_up(&error),
        }
    }

    fn timed_lookup(&mut self, map: &Map, cpu: u32) -> Outcome {
        let key = self.key.as_deref().unwrap_or_default();
        // Touched, so that no page fault of this buffer is read as latency of the map.
        self.value.fill(0);
        let begin = clock::monotonic();
        let answer = map.lookup(key, &mut self.value);
        let took = clock::monotonic().saturating_sub(begin);
        if sched_getcpu().ok() != usize::try_from(cpu).ok() {
            return Outcome::Unreadable(format!("a reader of CPU {cpu} ran on another CPU"));
        }
        match answer {
            Ok(true) => Outcome::Read(took),
            // Deleted since the key was found.
            Ok(false) => Outcome::Nothing,
            Err(error) => self.give_up(&error),
        }
    }

    /// Moves to the next existing key, round and round.
    fn advance(&mut self, map: &Map) -> sys::Result<bool> {
        self.value.resize(map.value_size(), 0);
        let mut next = vec![0; map.key_size()];
        let mut found = map.next_key(self.key.as_deref(), &mut next)?;
        if !found && self.key.is_some() {
            found = map.next_key(None, &mut next)?;
        }
        self.key = found.then_some(next);
        Ok(found)
    }

    fn give_up(&mut self, error: &sys::Error) -> Outcome {
        self.unreadable = true;
        let why = std::error::Error::source(error).map_or_else(String::new, |it| format!(": {it}"));
        Outcome::Unreadable(format!(
            "map {} cannot be read by key: {error}{why}",
            self.id
        ))
    }
}
