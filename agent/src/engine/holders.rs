//! Which processes hold which maps open, as an iterator of the kernel tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read};

use aya::programs::links::LinkError;
use aya::programs::{Iter, ProgramError};
use aya::{Btf, BtfError};
use maplatency_bpf::layout;
use maplatency_core::validate::Holder;

use super::callers::path_of;
use super::parts::program;
use super::{Engine, tier};
use crate::error::chain;

/// What the program iterates over.
const OPEN_FILES: &str = "task_file";
const PROGRAM: &str = "list_holders";
/// Records per reading.
const RECORDS: usize = 64;
/// Pairs of map and holder that are kept of one run.
const MAX_HOLDERS: usize = 1 << 16;

/// Holders by map id.
pub type Holders = BTreeMap<u32, Vec<Holder>>;

/// Why holders are not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HoldersError {
    /// The kernel does not take the iterator. It needs 5.8 or newer.
    #[error(
        "the kernel refused the iterator over open files ({0}); select by names, types, ids or pinPaths"
    )]
    Refused(String),
    /// A run failed.
    #[error("could not list open files ({0})")]
    Run(String),
    /// There are too many.
    #[error("more than {MAX_HOLDERS} processes hold maps open; the rest is not looked at")]
    TooMany,
}

/// How far the program has come.
#[derive(Debug, Default)]
pub(super) enum Lister {
    #[default]
    NotLoaded,
    Loaded,
    /// Asking again would cost the verifier as much every time.
    Refused(HoldersError),
}

impl Engine {
    /// Lists who holds maps open: processes of the agent's pid namespace, without the agent. Beside a problem stands what
    /// is known all the same.
    pub fn holders(&mut self) -> (Option<Holders>, Option<HoldersError>) {
        if matches!(self.holders, Lister::NotLoaded) {
            self.holders = match self.load_lister() {
                Ok(()) => Lister::Loaded,
                Err(reason) => Lister::Refused(HoldersError::Refused(reason)),
            };
        }
        if let Lister::Refused(error) = &self.holders {
            return (None, Some(error.clone()));
        }
        match self.open_lister().map(read_all) {
            Ok(Ok((holders, true))) => (Some(holders), None),
            Ok(Ok((holders, false))) => (Some(holders), Some(HoldersError::TooMany)),
            Ok(Err(error)) => (None, Some(HoldersError::Run(error.to_string()))),
            Err(reason) => (None, Some(HoldersError::Run(reason))),
        }
    }

    fn load_lister(&mut self) -> Result<(), String> {
        let btf = Btf::from_sys_fs().map_err(|it: BtfError| it.to_string())?;
        let lister: &mut Iter = program(&mut self.ebpf, PROGRAM);
        let answer = lister.load(OPEN_FILES, &btf);
        answer.map_err(|it| tier::word_of(&it, "load"))
    }

    fn open_lister(&mut self) -> Result<File, String> {
        let lister: &mut Iter = program(&mut self.ebpf, PROGRAM);
        let attach = |error: ProgramError| tier::word_of(&error, "attach");
        let link = lister.attach().map_err(attach)?;
        let link = lister.take_link(link).map_err(attach)?;
        link.into_file().map_err(|it: LinkError| chain(&it))
    }
}

/// Reads records to the end. False: there were more than are kept.
fn read_all(mut file: File) -> io::Result<(Holders, bool)> {
    let mut holders: BTreeMap<u32, BTreeSet<Holder>> = BTreeMap::new();
    let mut kept = 0;
    let mut buffer = vec![0; RECORDS * layout::Holder::BYTES];
    let mut filled = 0;
    loop {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            // The kernel rests after a million files.
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
        let (records, _) = buffer[..filled].as_chunks();
        for record in records {
            let (map_id, holder) = holder(&layout::Holder::from_bytes(record));
            if kept == MAX_HOLDERS {
                return Ok((listed(holders), false));
            }
            kept += usize::from(holders.entry(map_id).or_default().insert(holder));
        }
        let whole = filled - filled % layout::Holder::BYTES;
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
    Ok((listed(holders), true))
}

fn listed(holders: BTreeMap<u32, BTreeSet<Holder>>) -> Holders {
    let vectors = holders
        .into_iter()
        .map(|(id, it)| (id, it.into_iter().collect()));
    vectors.collect()
}

fn holder(record: &layout::Holder) -> (u32, Holder) {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let names: Vec<String> = record.cgroup.iter().map(text).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let holder = Holder {
        command: text(&record.command),
        cgroup: path_of(&names),
    };
    (record.map_id, holder)
}
