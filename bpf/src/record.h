/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Puts a finished operation into the histograms of every probe that wants it. */
#ifndef MAPLATENCY_RECORD_H
#define MAPLATENCY_RECORD_H

#include "histogram.h"
#include "maps.h"

/* Takes a block that nothing is counted in. */
static __always_inline bool take_block(__u32 *index)
{
	__u32 zero = 0;
	__u32 *taken;

	if (!bpf_map_pop_elem(&free_blocks, index))
		return true;
	taken = bpf_map_lookup_elem(&blocks_taken, &zero);
	/* Looked at first, so that it does not run on and wrap when there is no room. */
	if (!taken || *taken >= MAX_BLOCKS)
		return false;
	*index = __sync_fetch_and_add(taken, 1);
	return *index < MAX_BLOCKS;
}

/*
 * Finds the block that counts `key`, or makes it. False where there is no room.
 *
 * Before 6.2 a map takes no memory that a global function was given, so both arguments are copied to the stack.
 */
__noinline int find_block(const struct block_key *key, __u32 *index)
{
	struct block_key own_key;
	__u32 own_index = 0;
	__u32 *found;

	if (!key || !index)
		return 0;
	own_key = *key;
	found = bpf_map_lookup_elem(&block_of, &own_key);
	if (!found) {
		if (!take_block(&own_index))
			return 0;
		if (!bpf_map_update_elem(&block_of, &own_key, &own_index, BPF_NOEXIST)) {
			*index = own_index;
			return 1;
		}
		/* Another CPU was first: its block counts, and this one is for the next. */
		bpf_map_push_elem(&free_blocks, &own_index, 0);
		found = bpf_map_lookup_elem(&block_of, &own_key);
		if (!found)
			return 0;
	}
	*index = *found;
	return 1;
}

static __always_inline bool is_same(const struct block_key *a, const struct block_key *b)
{
	return a->map_id == b->map_id && a->instance == b->instance && a->cpu == b->cpu &&
	       a->command == b->command && a->block == b->block;
}

/* The block for `key`, which is mostly the one of the task's last operation. */
static __always_inline struct block *block_for(struct counted *last, struct block_key *key,
					       __u32 generation)
{
	__u32 index = last->block;

	if (last->generation != generation || !is_same(&last->key, key)) {
		if (!find_block(key, &index))
			return NULL;
		last->key = *key;
		last->block = index;
		last->generation = generation;
	}
	return bpf_map_lookup_elem(&blocks, &index);
}

static __always_inline void record_latencies(struct task_state *state, struct block_key *key,
					     __u64 kernel_window, __u64 until_user)
{
	__u32 kernel_bucket = bucket_of(kernel_window);
	__u32 user_bucket = bucket_of(until_user);
	struct config *cfg = configuration();
	struct block *block, *user_block;
	__u32 generation;

	if (!cfg)
		return;
	generation = generation_of(cfg);
	key->block = kernel_bucket / BLOCK_BUCKETS;
	block = block_for(&state->counted[0], key, generation);
	user_block = block;
	if (user_bucket / BLOCK_BUCKETS != key->block) {
		key->block = user_bucket / BLOCK_BUCKETS;
		user_block = block_for(&state->counted[1], key, generation);
	}
	/* Both or none, so that the two latencies always count the same operations. */
	if (!block || !user_block) {
		count_loss(LOSS_BLOCKS);
		return;
	}
	__sync_fetch_and_add(&block->kernel_window[kernel_bucket % BLOCK_BUCKETS], 1);
	__sync_fetch_and_add(&user_block->until_user[user_bucket % BLOCK_BUCKETS], 1);
}

static __always_inline void record_for(struct task_state *state, __u32 slot)
{
	struct probe *probe = bpf_map_lookup_elem(&probes, &slot);
	struct block_key key = {};

	/* A slot may have passed to another probe since the operation began. */
	if (!probe || state->enter_ns < probe->since_ns ||
	    !(probe->commands >> (state->command & 31) & 1))
		return;
	key.map_id = state->map_id;
	key.instance = probe->instance | (state->role == ROLE_READER ? INSTANCE_READER : 0);
	key.cpu = state->cpu;
	key.command = state->command;
	record_latencies(state, &key, state->exit_ns - state->call_ns,
			 state->back_ns - state->enter_ns);
}

/* For all probes but the first. Global functions are verified once and not on every path to them. */
__noinline int record_for_more(struct task_state *state, __u32 wanted)
{
	if (!state)
		return 0;
	for (__u32 slot = 0; slot < MAX_PROBES; slot++)
		if (wanted >> slot & 1)
			record_for(state, slot);
	return 0;
}

static __always_inline void record(struct task_state *state)
{
	__u32 wanted = state->probes;

	state->phase = PHASE_IDLE;
	if (!wanted)
		return;
	/* Mostly one probe wants an operation; it is spared a call. */
	record_for(state, octave_of(wanted));
	wanted &= ~(1u << octave_of(wanted));
	if (wanted)
		record_for_more(state, wanted);
}

#endif
