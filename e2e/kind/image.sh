#!/usr/bin/env bash
# Writes a container image of one layer to stdout, in the format of `docker save`, which `docker load`,
# `kind load image-archive` and `ctr images import` read. The same folder gives the same image.
#
#   e2e/kind/image.sh NAME:TAG FOLDER '{"Entrypoint": ["/program"]}' > image.tar
set -euo pipefail
name=$1 folder=$2 config=$3
work=$(mktemp -d -p "$(dirname "$folder")")
trap 'rm -rf "$work"' EXIT

case $(uname -m) in x86_64) architecture=amd64 ;; aarch64) architecture=arm64 ;; *) architecture=$(uname -m) ;; esac
tar_same() { tar --sort=name --mtime=@0 --numeric-owner "$@"; }
tar_same -C "$folder" -cf "$work/layer.tar" .
digest=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
cat > "$work/config.json" << J
{"os": "linux", "architecture": "$architecture", "created": "1970-01-01T00:00:00Z", "config": $config,
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$digest"]},
 "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "e2e/kind/image.sh"}]}
J
echo "[{\"RepoTags\": [\"$name\"], \"Config\": \"config.json\", \"Layers\": [\"layer.tar\"]}]" > "$work/manifest.json"
tar_same -C "$work" -c manifest.json config.json layer.tar
