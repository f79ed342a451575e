/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The fentry tier: entry and exit of the function behind bpf(2). Nothing runs on other system calls. Needs a kernel
 * that takes structures as arguments of traced functions, 6.1 on x86_64.
 */
#define RESULT_AFTER_EXIT 1
#define SEES_MAPS 1
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

/*
 * A lookup, from within the call: static int bpf_map_copy_value(struct bpf_map *map, void *key, void *value, __u64 flags).
 * This takes fewer instructions than to follow the caller's descriptor at the exit, and knows the map even if that is
 * closed meanwhile. Where it does not run, as the compiler may have inlined the function, the exit finds the map.
 */
SEC("fentry/bpf_map_copy_value")
int see_map(__u64 *ctx)
{
	struct bpf_map *map = (struct bpf_map *)ctx[0];
	struct task_state *state = bpf_task_storage_get(&tasks, bpf_get_current_task_btf(), 0, 0);

	if (!state || state->phase != PHASE_IN_CALL || state->command != BPF_MAP_LOOKUP_ELEM)
		return 0;
	state->seen_map = (__u64)map;
	state->map_id = map->id;
	return 0;
}

SEC("fexit/__sys_bpf")
int exit_bpf(__u64 *ctx)
{
	if (ctx[2] & 1)
		return 0;
	/* The result lies behind the arguments, of which the pointer takes two places. */
	return exit_call((int)ctx[4]);
}
