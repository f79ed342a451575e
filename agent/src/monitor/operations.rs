//! A file of single operations: one line each.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
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
    /// Makes the file, or empties it, and writes the first line.
    pub fn create(path: &Path) -> Result<Self, OperationsFileError> {
        let failed = |source| OperationsFileError {
            path: path.to_owned(),
            source,
        };
        let file = File::create(path).map_err(failed)?;
        let mut file = BufWriter::with_capacity(BUFFER, file);
        writeln!(file, "{HEAD}")
            .and_then(|()| file.flush())
            .map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
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
    fn a_file_that_cannot_be_made_is_named() {
        let error = OperationsFile::create(Path::new("/nowhere/operations.csv")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not write operations to /nowhere/operations.csv"
        );
    }
}
