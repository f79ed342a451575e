#!/bin/busybox sh
# The first program of a machine: makes it what tests expect of a Linux host, runs a job, and powers it off.
#
# Everything goes to the console (ttyS0). What the host reads goes to ttyS1, where no kernel message interrupts it;
# e2e/src/vm/report.rs says what the lines mean.
/bin/busybox mkdir -p /proc /sys /dev /tmp /bin
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/tmp RUST_BACKTRACE=0 MAPLATENCY_NOT_RUN=/tmp/not-run MAPLATENCY_TEST_SLOWNESS=6
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec < /dev/null > /dev/ttyS0 2>&1
say() { echo "vm: $*" | tee /dev/ttyS1; }

say "kernel $(uname -r)"
# Unmounted again: with it the kernel mounts tracefs, which the agent has to do by itself where it is missing.
mount -t debugfs debugfs /sys/kernel/debug
case $(uname -v) in
  *PREEMPT_RT*) MAPLATENCY_TEST_PREEMPT=realtime ;;
  *) MAPLATENCY_TEST_PREEMPT=$(sed 's/.*(\(.*\)).*/\1/' /sys/kernel/debug/sched/preempt) ;;
esac
export MAPLATENCY_TEST_PREEMPT
umount /sys/kernel/debug
say "preempt $MAPLATENCY_TEST_PREEMPT"

. /vm/settings
. /vm/job

dmesg | grep -E 'WARNING:|BUG:|Oops|INFO: ' | sed 's/^/vm: warning /' | tee /dev/ttyS1
say done
poweroff -f
