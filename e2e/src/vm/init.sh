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

say "kernel $(uname -r)"
# Unmounted again: with it the kernel mounts tracefs, which the agent has to do by itself where it is missing.
mount -t debugfs debugfs /sys/kernel/debug
say "preempt $(sed 's/.*(\(.*\)).*/\1/' /sys/kernel/debug/sched/preempt)"
umount /sys/kernel/debug

# The agent itself comes first: where it refuses to measure, its reason says more than failed tests.
. /vm/settings
if "$agent" run -f "$example" --for 2s > /tmp/agent 2>&1; then
  while read -r program; do
    say "begin ${program##*/}"
    { "$program" --test-threads=1 2>&1; echo "vm: end $?"; } | tee /dev/ttyS1
  done < /vm/tests
else
  cat /tmp/agent
  say "refused $(tail -n 1 /tmp/agent)"
fi

if [ -e /tmp/not-run ]; then sed 's/^/vm: not-run /' /tmp/not-run | tee /dev/ttyS1; fi
dmesg | grep -E 'WARNING:|BUG:|Oops|INFO: ' | sed 's/^/vm: warning /' | tee /dev/ttyS1
say done
poweroff -f
