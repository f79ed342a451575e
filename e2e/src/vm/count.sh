# The benchmark of what measuring costs; `say` is of init.sh, the variables are of count.rs.
mount -t tracefs tracefs /sys/kernel/tracing
if "$bench" cost --rounds 1 --quick --agent "$agent" --workload "$workload" --json /tmp/cost.json --markdown /tmp/cost.md
then
  sed 's/^/vm: json /' /tmp/cost.json > /dev/ttyS1
else
  say "failed: the benchmark"
fi
