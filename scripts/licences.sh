#!/usr/bin/env bash
# Checks licences, duplicate crates and sources (deny.toml) where cargo-deny is installed.
# It works offline, so that a check depends on nothing but the tree; hence no advisories.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo deny --version > /dev/null 2>&1; then
  echo "not run: cargo deny (it is not installed: cargo install --locked cargo-deny)"
elif ! cargo metadata --format-version 1 --locked --offline > /dev/null 2>&1; then
  echo "not run: cargo deny (some crates of Cargo.lock are not on this machine: cargo fetch --locked)"
else
  cargo deny --offline check licenses bans sources
fi
