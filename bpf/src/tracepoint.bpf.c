/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The tracepoint tier: the tracepoints of bpf(2) itself. Other system calls pay for the tracing of any. */
#include "operation.h"

/* include/trace/events/syscalls.h, as /sys/kernel/tracing/events/syscalls/sys_enter_bpf/format shows it. */
struct sys_enter_bpf {
	__u64 common;
	__u64 number;
	__u64 command;
	__u64 attributes;
	__u64 size;
};

struct sys_exit_bpf {
	__u64 common;
	__u64 number;
	long result;
};

SEC("tracepoint/syscalls/sys_enter_bpf")
int enter_bpf(struct sys_enter_bpf *ctx)
{
	return enter_call(ctx->command, ctx->attributes, ctx->size);
}

SEC("tracepoint/syscalls/sys_exit_bpf")
int exit_bpf(struct sys_exit_bpf *ctx)
{
	return exit_call(ctx->result);
}

/* How many system calls began on each CPU, and how many of them were bpf(2). */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} call_counts SEC(".maps");

/* Attached for a moment, to learn whether the TpBtf tier would cost less. */
SEC("tp_btf/sys_enter")
int BPF_PROG(count_calls, struct pt_regs *regs, long number)
{
	__u32 is_bpf = number == SYSCALL_BPF && is_native(regs);
	__u64 *count = bpf_map_lookup_elem(&call_counts, &is_bpf);

	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}
