#!/bin/busybox sh
# The first program of a machine: makes it what tests expect of a Linux host, runs them, and powers it off.
#
# Everything goes to the console (ttyS0). What the host reads goes to ttyS1, where no kernel message interrupts it;
# e2e/src/vm/report.rs says what the lines mean.
/bin/busybox mkdir -p /proc /sys /dev /tmp /bin
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp RUST_BACKTRACE=0 MAPLATENCY_NOT_RUN=/tmp/not-run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec < /dev/null > /dev/ttyS0 2>&1
say() { echo "vm: $*" | tee /dev/ttyS1; }

# Once and for all: else the agent switches it on and off, and QEMU may not survive that change of hot code.
echo 1 > /proc/sys/kernel/bpf_stats_enabled

say "kernel $(uname -r)"
# Unmounted again: with it the kernel mounts tracefs, which the agent has to do by itself where it is missing.
mount -t debugfs debugfs /sys/kernel/debug
MAPLATENCY_TEST_PREEMPT=$(sed 's/.*(\(.*\)).*/\1/' /sys/kernel/debug/sched/preempt)
export MAPLATENCY_TEST_PREEMPT
umount /sys/kernel/debug
say "preempt $MAPLATENCY_TEST_PREEMPT"

run() { # test programs...
  for program in "$@"; do
    say "begin ${program##*/}"
    : > "$MAPLATENCY_NOT_RUN"
    { "$program" --test-threads=1 2>&1; echo "vm: end $?"; } | tee /dev/ttyS1
    sed 's/^/vm: not-run /' "$MAPLATENCY_NOT_RUN" | tee /dev/ttyS1
  done
}

. /vm/settings
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

dmesg | grep -E 'WARNING:|BUG:|Oops|INFO: ' | sed 's/^/vm: warning /' | tee /dev/ttyS1
say done
poweroff -f
