//! Where maps are pinned: walks every bpffs that the agent sees.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use maplatency_bpf::sys::Map;
use tracing::debug;

use crate::error::chain;

/// Of the calling thread, which may have a mount namespace of its own.
const MOUNTS: &str = "/proc/thread-self/mountinfo";
/// Folders within folders.
const MAX_DEPTH: usize = 16;
/// Files and folders of all bpffs together.
const MAX_ENTRIES: usize = 16_384;

/// Why pins are not known, or not all of them.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The mounts are unknown.
    #[error("could not read {MOUNTS}")]
    Mounts(#[source] io::Error),
    /// Nothing is mounted, or not where the agent is.
    #[error(
        "no bpffs is mounted where the agent sees it; mount it at /sys/fs/bpf, in a container from the host"
    )]
    NoMount,
    /// There is more than is looked at.
    #[error(
        "there are more than {MAX_ENTRIES} files and folders, or more than {MAX_DEPTH} folders within each other, in bpffs; \
         the rest is not looked at"
    )]
    TooMany,
}

/// A file in a bpffs: its device and its inode, which the kernel gives once for each pin.
type Inode = (u64, u64);

/// The pins of this host. A pin is opened once, to see which map it is.
#[derive(Debug, Default)]
pub struct Pins {
    known: HashMap<PathBuf, (Inode, Option<u32>)>,
    by_map: BTreeMap<u32, Vec<String>>,
}

impl Pins {
    /// Looks again. What is known all the same stays known after an error.
    pub fn refresh(&mut self) -> Result<(), PinsError> {
        let text = fs::read_to_string(MOUNTS).map_err(PinsError::Mounts)?;
        let mounts = bpffs_of(&text);
        let mut found = Found::default();
        for mount in &mounts {
            if let Ok(device) = fs::symlink_metadata(mount).map(|it| it.dev()) {
                walk(mount, device, 0, &mut found);
            }
        }
        let mut before = std::mem::take(&mut self.known);
        self.by_map.clear();
        for (path, inode) in found.files {
            let known = before.remove(&path).filter(|it| it.0 == inode);
            let map_id = match known.map_or_else(|| open(&path), |it| Ok(it.1)) {
                Ok(map_id) => map_id,
                Err(error) => {
                    // It may have been removed since, or the next look succeeds.
                    debug!(path = %path.display(), error = chain(&error), "Cannot open a pin");
                    continue;
                }
            };
            if let Some(id) = map_id {
                let path = path.to_string_lossy().into_owned();
                self.by_map.entry(id).or_default().push(path);
            }
            self.known.insert(path, (inode, map_id));
        }
        match (mounts.is_empty(), found.cut) {
            (true, _) => Err(PinsError::NoMount),
            (_, true) => Err(PinsError::TooMany),
            _ => Ok(()),
        }
    }

    /// The paths of a map's pins.
    pub fn of(&self, map_id: u32) -> &[String] {
        self.by_map.get(&map_id).map_or(&[], Vec::as_slice)
    }
}

fn open(path: &Path) -> maplatency_bpf::sys::Result<Option<u32>> {
    Map::from_pin(path)?.map(|it| it.id()).transpose()
}

#[derive(Default)]
struct Found {
    files: BTreeMap<PathBuf, Inode>,
    entries: usize,
    cut: bool,
}

/// Collects the files below a folder of a device. Other file systems that are mounted there are no part of it.
fn walk(folder: &Path, device: u64, depth: usize, found: &mut Found) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.entries += 1;
        if found.entries > MAX_ENTRIES || depth == MAX_DEPTH {
            found.cut = true;
            return;
        }
        // Of the entry itself and not of what a symbolic link leads to.
        let Ok(about) = entry.metadata() else {
            continue;
        };
        if about.dev() != device {
            continue;
        }
        if about.is_dir() {
            walk(&entry.path(), device, depth + 1, found);
        } else if about.is_file() {
            found.files.insert(entry.path(), (device, about.ino()));
        }
    }
}

/// The mount points of all bpffs, from the text of mountinfo (proc(5)).
fn bpffs_of(mountinfo: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        file_system.starts_with("bpf ").then_some(())?;
        mount.split(' ').nth(4).map(unescaped)
    };
    mountinfo.lines().filter_map(point).collect()
}

/// Blanks and backslashes stand there as `\\040`, in octal.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|it| str::from_utf8(it).ok());
        let octal = digits.and_then(|it| u8::from_str_radix(it, 8).ok());
        if let (b'\\', Some(byte)) = (first, octal) {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_of_bpffs_are_found_among_others() {
        let text = "23 28 0:21 / /sys rw,nosuid - sysfs sysfs rw\n\
                    31 23 0:27 / /sys/fs/bpf rw,nosuid shared:9 master:2 - bpf bpf rw,mode=700\n\
                    77 28 0:44 / /tmp/a\\040b\\134c rw - bpf none rw\n\
                    78 28 0:45 / /bpf rw - tmpfs bpf rw\n";
        assert_eq!(
            bpffs_of(text),
            [Path::new("/sys/fs/bpf"), Path::new("/tmp/a b\\c")]
        );
    }
}
