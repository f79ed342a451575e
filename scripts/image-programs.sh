#!/usr/bin/env bash
# Compiles the programs for images so that two builds of a commit are the same byte for byte, and lists their crates.
#
#   scripts/image-programs.sh FOLDER     puts the programs and a CycloneDX file for each into it
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:?name a folder for the programs}

# Folders of this machine stand in panics and in BTF otherwise.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="--remap-path-prefix=$PWD=/src --remap-path-prefix=$cargo_home=/cargo"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/images/build
# `--workspace` would build more; both programs at once share the features of their dependencies.
cargo build --release --locked -p maplatency-operator -p maplatency-agent --bins
mkdir -p "$folder"
for program in maplatency-operator maplatency-agent; do
  cp "$CARGO_TARGET_DIR/release/$program" "$folder/$program"
  scripts/sbom.py "$program" > "$folder/$program.cdx.json"
done
