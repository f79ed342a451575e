#!/usr/bin/env bash
# Builds everything, runs every test, and sums up: time per step, results, and what could not run.
#
# A failed build ends it. A failed test step does not: the others still run, and it exits with 1.
# Tests append "name: reason" to the file $MAPLATENCY_NOT_RUN if this machine cannot run them.
#
# MAPLATENCY_BESIDE names a target of make whose work is done beside the tests against an API server, as these mostly wait.
set -euo pipefail
cd "$(dirname "$0")/.."

logs=$(mktemp -d) beside=
finish() {
  # It has ended where all went well.
  [ -z "$beside" ] || kill -- "-$beside" 2> /dev/null || true
  rm -rf "$logs"
}
trap finish EXIT
export MAPLATENCY_NOT_RUN=$logs/not-run
: > "$MAPLATENCY_NOT_RUN"

names=() times=() states=()
# A test that hangs must not hang CI; the longest step takes twenty minutes, and on a slow machine half an hour.
limit=(timeout --kill-after=30 "${MAPLATENCY_STEP_TIMEOUT:-3000}")

step() { # name, command...
  local name=$1 begin=$SECONDS state=ok
  shift
  echo
  echo "=== $name"
  "$@" < /dev/null 2>&1 | tee "$logs/${#names[@]}" || state=FAILED
  names+=("$name") times+=($((SECONDS - begin))) states+=("$state")
  [ "$state" = ok ]
}

summary() {
  local i
  echo
  echo "=== Summary"
  for i in "${!names[@]}"; do
    printf '%-6s %5d s  %s\n' "${states[i]}" "${times[i]}" "${names[i]}"
    # Cargo's "Running" line names the program whose result follows. Empty results say nothing.
    awk '/^ *Running /  { program = $NF; gsub(/^.*\/|-[0-9a-f]+\)$|\)$/, "", program) }
         /^ *Doc-tests / { program = $2 }
         /^test result: / && !/ 0 passed; 0 failed; 0 ignored/ { printf "         %s: %s\n", program, $0 }' "$logs/$i"
  done
  echo
  if [ -s "$MAPLATENCY_NOT_RUN" ]; then
    echo "Not run on this machine:"
    sort -u "$MAPLATENCY_NOT_RUN" | sed 's/^/  /'
  else
    echo "Every test ran on this machine."
  fi
}
build_failed() { # step
  echo "all tests: step \"$1\" failed" >> "$MAPLATENCY_NOT_RUN"
  summary
  exit 1
}

# The names of the test programs in the given folders, as `--test NAME` arguments.
targets() { # array to fill, folders...
  local -n into=$1
  local folder file
  shift
  for folder in "$@"; do
    for file in "$folder"/*.rs "$folder"/*/main.rs; do
      [ -e "$file" ] || continue
      file=${file%/main.rs}
      into+=(--test "$(basename "$file" .rs)")
    done
  done
}
mapfile -t others < <(find . -path ./target -prune -o -name Cargo.toml -printf '%h\n' | grep -vxE '\.|\./(agent|bpf|e2e)' | sort)
kernel=() whole=() api=() rest=()
targets kernel {agent,bpf}/tests
targets whole e2e/tests
targets api e2e/api-tests
targets rest "${others[@]/%//tests}"
# Steps are told apart by name alone. `-p` would do too, but it makes cargo choose other features for
# the dependencies and build some of them again.
twice=$(printf '%s\n' "${kernel[@]}" "${whole[@]}" "${api[@]}" "${rest[@]}" | grep -vxe --test | sort | uniq -d)
if [ -n "$twice" ]; then
  echo "error: two packages have a test program of the same name; rename one: ${twice//$'\n'/ }" >&2
  exit 1
fi

control_plane() {
  # Its last line is the folder.
  e2e/controlplane/build.sh > "$logs/assets" && tail -n1 "$logs/assets"
}
step "control plane" control_plane || build_failed "control plane"
KUBEBUILDER_ASSETS=$(tail -n1 "$logs/assets")
export KUBEBUILDER_ASSETS
step "build" cargo build --workspace --locked --all-targets || build_failed build

test=("${limit[@]}" cargo test --workspace --locked --no-fail-fast)
step "unit tests" "${test[@]}" --lib --bins || true
step "examples in the documentation" "${test[@]}" --doc || true
# These share the kernel or measure time, so each runs alone.
alone=(-- --test-threads=1)
if [ "${#rest[@]}" -gt 0 ]; then step "integration tests" "${test[@]}" "${rest[@]}" || true; fi
if [ "${#kernel[@]}" -gt 0 ]; then step "kernel tests" "${test[@]}" "${kernel[@]}" "${alone[@]}" || true; fi
step "end-to-end tests" "${test[@]}" "${whole[@]}" "${alone[@]}" || true
# Idle work gives way to all else. Nobody waits for it yet, so what it says is only shown if it fails.
if [ -n "${MAPLATENCY_BESIDE:-}" ]; then
  # With a group of its own, by which it can be stopped.
  # shellcheck disable=SC2016 # the inner shell expands them
  setsid chrt --idle 0 bash -c 'status=0; make "$1" || status=$?; echo $status > "$2"' - "$MAPLATENCY_BESIDE" "$logs/status" \
    < /dev/null > "$logs/beside" 2>&1 &
  beside=$!
fi
step "tests against an API server" "${test[@]}" "${api[@]}" "${alone[@]}" || true
rest_of_it() {
  tail --pid="$beside" -f /dev/null
  [ "$(cat "$logs/status")" = 0 ] || { cat "$logs/beside" && false; }
}
if [ -n "$beside" ]; then step "the rest of make $MAPLATENCY_BESIDE" rest_of_it || true; fi

summary
[[ " ${states[*]} " != *" FAILED "* ]]
