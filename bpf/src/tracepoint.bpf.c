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
