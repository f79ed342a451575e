//! Images of single programs, for pods of tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::command::libraries_of;
use crate::workspace;

/// Writes an image archive into a folder. The program lies at the root, with the libraries that it needs and nothing else.
pub(super) fn of_program(image: &str, program: &Path, folder: &Path) -> Result<PathBuf> {
    let name = program.file_name().context("the program has no name")?;
    let tree = folder.join("tree");
    copy(program, &tree.join(name))?;
    // One that is linked statically has none, and ldd fails.
    for library in libraries_of(program).into_iter().flatten() {
        let below = library.strip_prefix("/").unwrap_or(&library);
        copy(&library, &tree.join(below))?;
    }
    let config = json!({"Entrypoint": [Path::new("/").join(name)]});
    let output = Command::new(workspace().join("e2e/kind/image.sh"))
        .arg(image)
        .arg(&tree)
        .arg(config.to_string())
        .output()
        .context("could not start image.sh")?;
    ensure!(
        output.status.success(),
        "image.sh: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let archive = folder.join("image.tar");
    fs::write(&archive, output.stdout)
        .with_context(|| format!("could not write {}", archive.display()))?;
    Ok(archive)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    fs::copy(from, to).with_context(|| format!("could not copy {}", from.display()))?;
    Ok(())
}
