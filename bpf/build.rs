//! Compiles the BPF programs with clang, one object per tier and architecture. The agent embeds those of its own; the
//! others are compiled so that a change for one architecture cannot break the other unseen.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// As Rust calls them, and as libbpf's headers do.
const ARCHITECTURES: [(&str, &str); 2] = [
    ("x86_64", "__TARGET_ARCH_x86"),
    ("aarch64", "__TARGET_ARCH_arm64"),
];
/// One source per tier; an object is named like its source.
const TIERS: [&str; 3] = ["fentry", "tracepoint", "tp_btf"];

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-env-changed=CLANG");
    println!("cargo::rerun-if-env-changed=PATH");

    let clang = find_clang()?;
    let own = env::var("CARGO_CFG_TARGET_ARCH")?;
    if ARCHITECTURES.iter().all(|it| it.0 != own) {
        bail!("maplatency runs on x86_64 and aarch64, not on {own}");
    }
    for (architecture, macro_name) in ARCHITECTURES {
        for tier in TIERS {
            let object = if architecture == own {
                format!("{tier}.bpf.o")
            } else {
                format!("{tier}.{architecture}.bpf.o")
            };
            // The few types that the headers define are the same on both.
            compile(&clang, &own, macro_name, tier, &object)?;
        }
    }
    Ok(())
}

fn compile(
    clang: &Path,
    headers: &str,
    target: &str,
    tier: &str,
    object: &str,
) -> anyhow::Result<()> {
    let source = format!("src/{tier}.bpf.c");
    let object = PathBuf::from(env::var("OUT_DIR")?).join(object);
    let output = Command::new(clang)
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-c"])
        // BPF_PROG declares parameters that a program need not use.
        .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
        .arg(format!("-D{target}"))
        // BTF names the sources of every line; where they lie on this machine is nobody's business.
        .arg(format!(
            "-ffile-prefix-map={}=bpf",
            env::var("CARGO_MANIFEST_DIR")?
        ))
        .arg("-isystem")
        .arg(format!("/usr/include/{headers}-linux-gnu"))
        .args([OsStr::new(&source), OsStr::new("-o"), object.as_os_str()])
        .output()
        .with_context(|| format!("could not run {}", clang.display()))?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        let hint = if messages.contains("bpf_helpers.h' file not found") {
            "\nThe headers of libbpf are missing; on Debian: apt-get install libbpf-dev"
        } else {
            ""
        };
        bail!(
            "{} could not compile bpf/{source}:\n{messages}{hint}",
            clang.display()
        );
    }
    Ok(())
}

/// `$CLANG`, else the newest `clang-NN` on the path, else `clang`.
fn find_clang() -> anyhow::Result<PathBuf> {
    if let Some(clang) = env::var_os("CLANG") {
        return Ok(PathBuf::from(clang));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut newest: Option<(u32, PathBuf)> = None;
    let mut plain = None;
    for folder in env::split_paths(&path) {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name == "clang" {
                plain.get_or_insert(entry.path());
            }
            let version = name.strip_prefix("clang-").and_then(|it| it.parse().ok());
            if let Some(version) = version
                && newest.as_ref().is_none_or(|it| it.0 < version)
            {
                newest = Some((version, entry.path()));
            }
        }
    }
    newest
        .map(|it| it.1)
        .or(plain)
        .filter(|it| Path::new(it).exists())
        .context("clang is not on the PATH; it compiles the BPF programs. On Debian: apt-get install clang-19 libbpf-dev")
}
