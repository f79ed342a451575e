/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The fentry tier: entry and exit of the function behind bpf(2). Nothing runs on other system calls. Needs a kernel
 * that takes structures as arguments of traced functions, 6.1 on x86_64.
 */
#define RESULT_AFTER_EXIT 1
#include "operation.h"

/* static int __sys_bpf(enum bpf_cmd cmd, bpfptr_t uattr, unsigned int size); the pointer takes two places. */
SEC("fentry/__sys_bpf")
int enter_bpf(__u64 *ctx)
{
	/* A call by another BPF program, with attributes of the kernel's own. */
	if (ctx[2] & 1)
		return 0;
	return enter_call(ctx[0], ctx[1], ctx[3]);
}

SEC("fexit/__sys_bpf")
int exit_bpf(__u64 *ctx)
{
	if (ctx[2] & 1)
		return 0;
	/* The result lies behind the arguments, of which the pointer takes two places. */
	return exit_call((int)ctx[4]);
}
