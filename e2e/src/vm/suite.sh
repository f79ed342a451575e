# The kernel tests, with each tier of hooks; `say` is of init.sh, the variables are of suite.rs.
run() { # test programs...
  for program in "$@"; do
    say "begin ${program##*/}"
    : > "$MAPLATENCY_NOT_RUN"
    { "$program" --test-threads=1 2>&1; echo "vm: end $?"; } | tee /dev/ttyS1
    sed 's/^/vm: not-run /' "$MAPLATENCY_NOT_RUN" | tee /dev/ttyS1
  done
}

for MAPLATENCY_TEST_TIER in $tiers; do
  export MAPLATENCY_TEST_TIER
  say "tier $MAPLATENCY_TEST_TIER"
  # The agent itself comes first: where it refuses to measure, its reason says more than failed tests.
  if "$agent" run -f "$example" --tier "$MAPLATENCY_TEST_TIER" --for 2s > /tmp/agent 2>&1; then
    run $each
  else
    cat /tmp/agent
    say "refused $(tail -n 1 /tmp/agent)"
  fi
done
say "tier Auto"
run $once
