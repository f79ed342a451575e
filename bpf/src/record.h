/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Puts a finished operation into the histograms of every probe that wants it. */
#ifndef MAPLATENCY_RECORD_H
#define MAPLATENCY_RECORD_H

#include "histogram.h"
#include "maps.h"

/* What a new block begins as; too large for the stack. */
static struct block empty_block;

static __always_inline struct block *block_for(const struct block_key *key)
{
	struct block *block = bpf_map_lookup_elem(&blocks, key);

	if (block)
		return block;
	/* Another CPU may have been first; the second look-up finds whichever won. */
	bpf_map_update_elem(&blocks, key, &empty_block, BPF_NOEXIST);
	return bpf_map_lookup_elem(&blocks, key);
}

/* Global functions are verified once and not on every path to them. */
__noinline int record_latencies(struct block_key *key, __u64 kernel_window, __u64 until_user)
{
	__u32 kernel_bucket = bucket_of(kernel_window);
	__u32 user_bucket = bucket_of(until_user);
	struct block *block, *user_block;

	if (!key)
		return 0;
	key->block = kernel_bucket / BLOCK_BUCKETS;
	block = block_for(key);
	user_block = block;
	if (user_bucket / BLOCK_BUCKETS != key->block) {
		key->block = user_bucket / BLOCK_BUCKETS;
		user_block = block_for(key);
	}
	/* Both or none, so that the two latencies always count the same operations. */
	if (!block || !user_block) {
		count_loss(LOSS_BLOCKS);
		return 0;
	}
	__sync_fetch_and_add(&block->kernel_window[kernel_bucket % BLOCK_BUCKETS], 1);
	__sync_fetch_and_add(&user_block->until_user[user_bucket % BLOCK_BUCKETS], 1);
	return 0;
}

__noinline int record_for(struct task_state *state, __u32 slot)
{
	struct probe *probe = bpf_map_lookup_elem(&probes, &slot);
	struct block_key key = {};

	/* A slot may have passed to another probe since the operation began. */
	if (!probe || !state || state->enter_ns < probe->since_ns ||
	    !(probe->commands >> (state->command & 31) & 1))
		return 0;
	key.map_id = state->map_id;
	key.instance = probe->instance | (state->role == ROLE_READER ? INSTANCE_READER : 0);
	key.cpu = state->cpu;
	key.command = state->command;
	record_latencies(&key, state->exit_ns - state->call_ns, state->back_ns - state->enter_ns);
	return 0;
}

static __always_inline void record(struct task_state *state)
{
	__u32 wanted = state->probes;

	state->phase = PHASE_IDLE;
	for (__u32 slot = 0; slot < MAX_PROBES; slot++) {
		if (!(wanted >> slot))
			break;
		if (wanted >> slot & 1)
			record_for(state, slot);
	}
}

#endif
