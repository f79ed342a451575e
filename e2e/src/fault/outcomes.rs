//! Calls that end in each way that a call on a map can be made to.

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Result, ensure};
use maplatency_bpf::sys::{Map, command};
use maplatency_core::vocabulary::{MapType, Operation, Outcome};

use super::{Attributes, call, map, when_asked};

/// What each round of [`Fault::EveryOutcome`](super::Fault::EveryOutcome) calls, and how it has to end: on a map of one
/// entry, of key 1.
pub const OUTCOMES: [(Operation, Outcome); 9] = [
    (Operation::Update, Outcome::Success),
    (Operation::Update, Outcome::Full),
    (Operation::Update, Outcome::Exists),
    (Operation::Update, Outcome::NotFound),
    (Operation::Update, Outcome::Invalid),
    (Operation::Update, Outcome::Denied),
    (Operation::Update, Outcome::OtherError),
    (Operation::Lookup, Outcome::Success),
    (Operation::Lookup, Outcome::NotFound),
];

/// Flags of an update: whatever is there.
const ANY: u64 = 0;
/// Only what is new.
const NO_EXIST: u64 = 1;
/// Only what is there.
const EXIST: u64 = 2;
/// What no kernel knows.
const UNKNOWN: u64 = 77;

pub(super) fn every_outcome(rounds: u64) -> Result<()> {
    let map_of_one = map("outcomes", MapType::Hash, 1)?;
    // What is opened by its id cannot be written.
    let read_only = Map::from_id(map_of_one.id()?)?;
    let of_cpus = map("outcomes", MapType::CpuMap, 1)?;
    let [whole, read_only, of_cpus] =
        [&map_of_one, &read_only, &of_cpus].map(|it| it.as_fd().as_raw_fd());
    // As a value of a map of CPUs it is a queue that is too long.
    let (keys, mut value) = ([0u32, 1, 2], 20_000u32);
    let value = &raw mut value as u64;
    when_asked(&map_of_one, || {
        for _ in 0..rounds {
            for (at, (fd, key, flags, errno)) in [
                (whole, 1, ANY, 0),
                (whole, 2, ANY, libc::E2BIG),
                (whole, 1, NO_EXIST, libc::EEXIST),
                (whole, 2, EXIST, libc::ENOENT),
                (whole, 1, UNKNOWN, libc::EINVAL),
                (read_only, 1, ANY, libc::EPERM),
                (of_cpus, 0, ANY, libc::EOVERFLOW),
                (whole, 1, ANY, 0),
                (whole, 2, ANY, libc::ENOENT),
            ]
            .into_iter()
            .enumerate()
            {
                let attributes = Attributes {
                    map_fd: u32::try_from(fd)?,
                    padding: 0,
                    key: &raw const keys[key] as u64,
                    value,
                    flags,
                    rest: [0; 28],
                };
                let (operation, outcome) = OUTCOMES[at];
                let command = match operation {
                    Operation::Lookup => command::MAP_LOOKUP_ELEM,
                    _ => command::MAP_UPDATE_ELEM,
                };
                let answer = call(command, std::ptr::from_ref(&attributes) as usize, 32);
                ensure!(
                    answer.err().unwrap_or(0) == errno,
                    "{operation}, {outcome}: {answer:?}"
                );
            }
        }
        Ok(())
    })
}
