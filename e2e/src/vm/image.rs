//! The initramfs of a machine: an archive in the `newc` format of cpio, which the kernel unpacks.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::libraries_of;

use super::output_of;

const INIT: &str = include_str!("init.sh");
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// Writes an archive.
struct Archive<W> {
    out: W,
    written: usize,
    entries: u32,
    known: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            written: 0,
            entries: 0,
            known: BTreeSet::new(),
        }
    }

    /// Adds a file, and the folders above it. A second one of the same path is left out.
    fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let folders: Vec<_> = path.ancestors().skip(1).collect();
        for folder in folders.into_iter().rev() {
            self.entry(folder, FOLDER, &[])?;
        }
        self.entry(path, mode, content)
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = path.strip_prefix("/").unwrap_or(path).to_owned();
        if name.as_os_str().is_empty() || !self.known.insert(name.clone()) {
            return Ok(());
        }
        self.raw(name.as_os_str().as_encoded_bytes(), mode, content)
    }

    fn raw(&mut self, name: &[u8], mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let length = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // Inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0];
        let mut header = b"070701".to_vec();
        for field in fields {
            header.extend(format!("{field:08x}").into_bytes());
        }
        header.extend(name);
        header.push(0);
        self.padded(&header)?;
        self.padded(content)
    }

    /// Parts begin at multiples of four bytes.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len();
        let gap = self.written.next_multiple_of(4) - self.written;
        self.written += gap;
        self.out.write_all(&[0; 3][..gap])
    }

    fn finish(mut self) -> io::Result<W> {
        self.raw(b"TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// What goes into an initramfs, beside busybox and `init.sh`.
#[derive(Debug)]
pub struct Contents {
    /// What `init.sh` runs, in the language of the shell.
    pub job: &'static str,
    /// Variables of the job, likewise.
    pub settings: String,
    /// Programs, each at the path that it has on this host, with its libraries.
    pub programs: Vec<PathBuf>,
    /// Other files, likewise.
    pub files: Vec<PathBuf>,
}

/// The files of a folder.
pub fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("could not read the folder {}", folder.display()))?;
    entries.map(|it| Ok(it?.path())).collect()
}

/// Writes an initramfs.
pub fn write(contents: &Contents, to: &Path) -> Result<()> {
    let Contents {
        job,
        settings,
        programs,
        files,
    } = contents;
    let file = fs::File::create(to).with_context(|| format!("could not make {}", to.display()))?;
    let mut archive = Archive::new(io::BufWriter::new(file));
    archive.file(Path::new("/init"), PROGRAM, INIT.as_bytes())?;
    archive.file(Path::new("/vm/job"), FILE, job.as_bytes())?;
    archive.file(Path::new("/vm/settings"), FILE, settings.as_bytes())?;
    let busybox =
        PathBuf::from(output_of(Command::new("sh").args(["-c", "command -v busybox"]))?.trim());
    add(&mut archive, &busybox, Path::new("/bin/busybox"), PROGRAM)?;

    // Debian's busybox-static has none, others may.
    let mut libraries: BTreeSet<_> = libraries_of(&busybox).into_iter().flatten().collect();
    for program in programs {
        add(&mut archive, program, program, PROGRAM)?;
        libraries.extend(libraries_of(program)?);
    }
    for library in libraries {
        add(&mut archive, &library, &library, PROGRAM)?;
    }
    for file in files {
        add(&mut archive, file, file, FILE)?;
    }
    archive
        .finish()
        .with_context(|| format!("could not write {}", to.display()))?;
    Ok(())
}

fn add<W: Write>(archive: &mut Archive<W>, from: &Path, to: &Path, mode: u32) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("could not read {}", from.display()))?;
    archive.file(to, mode, &content)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_each_folder_once_and_before_its_files() {
        let mut archive = Archive::new(Vec::new());
        archive.file(Path::new("/a/b/one"), FILE, b"12345").unwrap();
        archive.file(Path::new("/a/two"), FILE, b"").unwrap();
        archive.file(Path::new("/a/two"), FILE, b"again").unwrap();
        let bytes = archive.finish().unwrap();

        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<_> = text
            .split("070701")
            .skip(1)
            .map(|it| it[104..].split('\0').next().unwrap())
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/two", "TRAILER!!!"]);
    }
}
