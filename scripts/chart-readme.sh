#!/usr/bin/env bash
# Writes the chart's README from README.md.gotmpl and the comments in values.yaml, with helm-docs.
#
#   scripts/chart-readme.sh            writes it
#   scripts/chart-readme.sh --check    fails if it is not what would be written
set -euo pipefail
cd "$(dirname "$0")/.."
chart=charts/maplatency

if ! go version > /dev/null 2>&1; then
  echo "error: go is not on the PATH; the chart's README is made by helm-docs, which is built with it" >&2
  exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$chart" "$work/maplatency"
(cd scripts/helm-docs && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-mod=readonly go tool helm-docs \
  --chart-search-root "$work" --sort-values-order file --log-level warning --skip-version-footer) >&2
if [ "${1:-}" = --check ]; then
  diff -u "$chart/README.md" "$work/maplatency/README.md" >&2 ||
    { echo "error: $chart/README.md is not made of values.yaml and README.md.gotmpl; run: make chart-readme" >&2; exit 1; }
else
  cp "$work/maplatency/README.md" "$chart/README.md"
fi
