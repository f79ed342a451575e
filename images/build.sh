#!/bin/sh
# Puts a program and the list of its crates into /out. Runs inside the build stage.
set -eu
program=$1
mkdir -p /out

if [ -n "${PREBUILT:-}" ]; then
  cp "$PREBUILT/$program" "$PREBUILT/$program.cdx.json" /out/
else
  # What compiles the BPF programs, and what lists the crates.
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends clang-19 libbpf-dev python3
  scripts/image-programs.sh /out
fi
mv "/out/$program.cdx.json" /out/sbom.cdx.json
chmod 755 "/out/$program"
chmod 644 /out/sbom.cdx.json
# The layer's digest covers times.
touch -d @0 "/out/$program" /out/sbom.cdx.json
