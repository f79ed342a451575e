//! A file of single operations: one line each.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use maplatency_bpf::layout::OperationRecord;
use maplatency_core::vocabulary::{Operation, Outcome};

/// The first line.
const HEAD: &str = "begin_unix_nanoseconds,map_id,operation,outcome,cpu,pid,until_user_nanoseconds,kernel_window_nanoseconds";
/// Bytes that are written at once.
const BUFFER: usize = 256 * 1024;

/// Why operations could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write operations to {}", path.display())]
pub struct OperationsFileError {
    path: PathBuf,
    source: io::Error,
}

/// Where single operations go.
#[derive(Debug)]
pub struct OperationsFile {
    path: PathBuf,
    file: BufWriter<File>,
}

/// What went there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Operations, a line each.
    pub lines: u64,
    /// Operations that are missing there, since they could not be handed over.
    pub missed: u64,
    /// Whether everything has been written and nothing more comes.
    pub is_complete: bool,
}

impl OperationsFile {
    /// Opens the file for writing, or makes it. What it holds stays until measuring begins.
    pub fn open(path: &Path) -> Result<Self, OperationsFileError> {
        let opened = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        match opened {
            Ok(file) => Ok(Self {
                path: path.to_owned(),
                file: BufWriter::with_capacity(BUFFER, file),
            }),
            Err(source) => Err(OperationsFileError {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Whether a path leads to this file, too.
    pub fn is(&self, path: &Path) -> bool {
        let identity = |it: Metadata| (it.dev(), it.ino());
        let own = self.file.get_ref().metadata().ok().map(identity);
        own.is_some() && own == std::fs::metadata(path).ok().map(identity)
    }

    /// Empties it and writes the first line.
    pub(super) fn begin(mut self) -> Result<Self, OperationsFileError> {
        let file = self.file.get_ref();
        // Pipes and devices have no length.
        let emptied = match file.metadata() {
            Ok(it) if it.is_file() => file.set_len(0),
            _ => Ok(()),
        };
        emptied
            .and_then(|()| writeln!(self.file, "{HEAD}"))
            .and_then(|()| self.file.flush())
            .map_err(|it| self.failed(it))?;
        Ok(self)
    }

    /// Writes operations. `unix_nanoseconds` turns the kernel's clock into wall time.
    pub(super) fn write(
        &mut self,
        operations: &[OperationRecord],
        unix_nanoseconds: impl Fn(u64) -> i64,
    ) -> Result<(), OperationsFileError> {
        let written = operations
            .iter()
            .try_for_each(|it| line(&mut self.file, it, unix_nanoseconds(it.begin_ns)));
        written.map_err(|it| self.failed(it))
    }

    /// Hands everything to the kernel.
    pub(super) fn finish(&mut self) -> Result<(), OperationsFileError> {
        self.file.flush().map_err(|it| self.failed(it))
    }

    fn failed(&self, source: io::Error) -> OperationsFileError {
        // Of standard output this says that somebody has seen enough, and is no error.
        let source = match source.kind() {
            io::ErrorKind::BrokenPipe => io::Error::other("whoever read it has ended"),
            _ => source,
        };
        OperationsFileError {
            path: self.path.clone(),
            source,
        }
    }
}

fn line(out: &mut impl io::Write, it: &OperationRecord, begin: i64) -> io::Result<()> {
    let OperationRecord {
        begin_ns: _,
        kernel_window_ns,
        until_user_ns,
        map_id,
        instance: _,
        pid,
        cpu,
        command,
        outcome,
    } = it;
    let operation = Operation::from_command(u32::from(*command));
    let operation = operation.map_or("-", Operation::as_str);
    let outcome = Outcome::from_number(*outcome).map_or("-", Outcome::as_str);
    writeln!(
        out,
        "{begin},{map_id},{operation},{outcome},{cpu},{pid},{until_user_ns},{kernel_window_ns}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_one_line_with_a_field_for_each_word_of_the_head() {
        let record = OperationRecord {
            begin_ns: 5,
            kernel_window_ns: 900,
            until_user_ns: 1_400,
            map_id: 7,
            instance: 1,
            pid: 42,
            cpu: 3,
            command: 1,
            outcome: 1,
        };
        let mut text = Vec::new();
        line(&mut text, &record, 1_700_000_000_000_000_005).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "1700000000000000005,7,Lookup,NotFound,3,42,1400,900\n"
        );
        assert_eq!(text.split(',').count(), HEAD.split(',').count());
    }

    #[test]
    fn what_a_file_holds_stays_until_measuring_begins() {
        let path = std::env::temp_dir().join(format!("operations-{}.csv", std::process::id()));
        std::fs::write(
            &path,
            "of an earlier run, and longer than the first line ".repeat(9),
        )
        .unwrap();
        let file = OperationsFile::open(&path).unwrap();
        assert!(file.is(&path) && !file.is(Path::new("/dev/null")));
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .starts_with("of an earlier run")
        );
        file.begin().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{HEAD}\n"));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let error = OperationsFile::open(Path::new("/nowhere/operations.csv")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not write operations to /nowhere/operations.csv"
        );
    }
}
