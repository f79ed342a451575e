/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which probes want the operations of a caller. */
#ifndef MAPLATENCY_FILTER_H
#define MAPLATENCY_FILTER_H

#include "maps.h"

/*
 * Runs one pattern's automaton over a command: a bit per position, all positions at once. The command comes as two
 * numbers, its bytes in memory order, since global functions, which are verified once, take numbers best.
 */
__noinline __u32 matches_glob(__u32 index, __u64 low, __u64 high)
{
	struct glob *glob = bpf_map_lookup_elem(&globs, &index);
	__u32 state = 1;

	if (!glob)
		return 0;
	for (int i = 0; i < 16; i++) {
		__u8 byte = (i < 8 ? low : high) >> (i % 8 * 8);

		if (!byte)
			break;
		state = ((state & glob->accepts[byte]) << 1) | (state & glob->skips);
	}
	return state & glob->accepting;
}

__noinline __u32 wants_caller(__u32 slot, __u64 low, __u64 high)
{
	struct probe *probe = bpf_map_lookup_elem(&probes, &slot);
	__u32 base = slot * 2 * MAX_GLOBS;

	if (!probe)
		return 0;
	for (__u32 i = 0; i < MAX_GLOBS; i++)
		if (i < probe->excludes && matches_glob(base + MAX_GLOBS + i, low, high))
			return 0;
	if (!probe->includes)
		return 1;
	for (__u32 i = 0; i < MAX_GLOBS; i++)
		if (i < probe->includes && matches_glob(base + i, low, high))
			return 1;
	return 0;
}

/* Narrows `wanted` to the probes that want the current command. The answer is kept with the task. */
static __always_inline __u32 filter_caller(struct task_state *state, const struct config *cfg,
					   __u32 wanted)
{
	__u64 comm[2] = {};

	if (!(wanted & cfg->filtered_probes))
		return wanted;
	bpf_get_current_comm(comm, sizeof(comm));
	if (state->caller_generation == cfg->generation && state->comm[0] == comm[0] &&
	    state->comm[1] == comm[1])
		return wanted & (state->caller_probes | ~cfg->filtered_probes);

	/* Collected in memory: the verifier of 6.1 would follow every value that a variable can have. */
	state->caller_probes = 0;
	for (__u32 slot = 0; slot < MAX_PROBES; slot++)
		if (cfg->filtered_probes >> slot & 1 && wants_caller(slot, comm[0], comm[1]))
			state->caller_probes |= 1u << slot;
	state->comm[0] = comm[0];
	state->comm[1] = comm[1];
	state->caller_generation = cfg->generation;
	return wanted & (state->caller_probes | ~cfg->filtered_probes);
}

#endif
