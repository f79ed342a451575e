#!/usr/bin/env bash
# Measures a program on this host whose map reads are slow for a known reason, and shows beside the
# agent's numbers what that program measured of itself. `make demo` builds both before.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${CARGO_TARGET_DIR:-target}/release

work=$(mktemp -d)
workload=
# shellcheck disable=SC2317 # the trap calls it
finish() {
  if [ -n "$workload" ]; then
    kill "$workload" 2> /dev/null || true
    wait "$workload" 2> /dev/null || true
  fi
  rm -rf "$work"
}
trap finish EXIT

# Longer than the measurement, so that it runs until it is told to stop, and still not for ever if
# this script is killed.
"$bin/maplatency-workload" --rate 0 --for 60s > "$work/workload.txt" 2>&1 < /dev/null &
workload=$!

# Until its map is filled and it reads: what comes before is not what the demo is about.
until grep -q '^Reading map' "$work/workload.txt"; do
  kill -0 "$workload" 2> /dev/null || { cat "$work/workload.txt" >&2; exit 1; }
  sleep 0.1
done

agent=0
"$bin/maplatency-agent" run -f examples/refresh-incident.yaml --for 30s < /dev/null || agent=$?

# SIGTERM makes it print its own percentiles.
kill "$workload" 2> /dev/null || true
truth=0
wait "$workload" || truth=$?
workload=
echo
echo "The workload's own timings of the same reads:"
cat "$work/workload.txt"
[ "$agent" = 0 ] && [ "$truth" = 0 ]
