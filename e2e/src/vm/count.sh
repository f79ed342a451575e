# The benchmark of what measuring costs; `say` is of init.sh, the variables are of count.rs.
mount -t tracefs tracefs /sys/kernel/tracing
if "$bench" cost --agent "$agent" --rounds 1 --value-sizes 8 --cpus 1 --json /tmp/cost.json --markdown /tmp/cost.md; then
  sed 's/^/vm: json /' /tmp/cost.json > /dev/ttyS1
else
  say "failed: the benchmark"
fi
