/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Puts a finished operation into the histograms of every probe that wants it. */
#ifndef MAPLATENCY_RECORD_H
#define MAPLATENCY_RECORD_H

#include "handover.h"
#include "histogram.h"
#include "maps.h"
#include "outlier.h"

/* Takes a block that nothing is counted in. */
static __always_inline bool take_block(__u32 *index, bool reserved)
{
	__u32 zero = 0;
	__u32 *taken;

	if (!bpf_map_pop_elem(&free_blocks, index))
		return true;
	taken = bpf_map_lookup_elem(&blocks_taken, &zero);
	/* Looked at first, so that it does not run on and wrap when there is no room. */
	if (!taken || *taken >= (reserved ? MAX_BLOCKS : MAX_BLOCKS - RESERVED_BLOCKS))
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
		if (!take_block(&own_index, own_key.caller == OTHER_CALLERS))
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

/* Packed in registers: what is written to the stack in parts is slow to read again as a whole. */
static __always_inline struct packed_key pack_key(const struct task_state *state, __u32 instance,
						  __u32 caller)
{
	return (struct packed_key){
		.place = (__u64)instance << 32 | state->map_id,
		.detail = (__u64)state->outcome << 40 | (__u64)(state->command & 0xff) << 32 |
			  (__u64)(caller & 0xffff) << 16 | (state->cpu & 0xffff),
	};
}

static __always_inline struct packed_key of_block(struct packed_key key, __u32 block)
{
	key.detail |= (__u64)block << 48;
	return key;
}

/* The block for `key`, which is mostly the one of the task's last operation. */
static __always_inline struct block *block_for(struct counted *last, struct packed_key key,
					       __u32 generation)
{
	__u32 index = last->block;

	if (last->generation != generation || last->key.place != key.place ||
	    last->key.detail != key.detail) {
		if (!find_block((const struct block_key *)&key, &index))
			return NULL;
		last->key = key;
		last->block = index;
		last->generation = generation;
	}
	return bpf_map_lookup_elem(&blocks, &index);
}

/* Notes when an operation was counted in a block. CPUs that do so at once may each miss the other's. */
static __always_inline void note_time(struct block *block, __u32 slice, __u64 begin, __u64 end)
{
	struct span *span = &block->spans[slice & 1];

	if (block->slices[slice & 1] != slice) {
		block->slices[slice & 1] = slice;
		span->first_begin_ns = begin;
		span->last_end_ns = end;
		return;
	}
	if (begin < span->first_begin_ns)
		span->first_begin_ns = begin;
	if (end > span->last_end_ns)
		span->last_end_ns = end;
}

/*
 * Counts `weight` operations under a key of block 0. Gives the block that has all but the kernel window; null where there
 * is no room.
 */
static __always_inline struct block *count_under(struct task_state *state, struct packed_key key,
						 const struct config *cfg, __u32 weight)
{
	__u64 kernel_window = state->exit_ns - state->call_ns;
	__u64 until_user = state->back_ns - state->enter_ns;
	__u32 kernel_bucket = bucket_of(kernel_window);
	__u32 user_bucket = bucket_of(until_user);
	__u32 generation = generation_of(cfg);
	struct block *block, *user_block;

	block = block_for(&state->counted[0], of_block(key, kernel_bucket / BLOCK_BUCKETS), generation);
	user_block = block;
	if (user_bucket / BLOCK_BUCKETS != kernel_bucket / BLOCK_BUCKETS)
		user_block = block_for(&state->counted[1], of_block(key, user_bucket / BLOCK_BUCKETS),
				       generation);
	/* Both or none, so that the two latencies always count the same operations. */
	if (!block || !user_block)
		return NULL;
	__sync_fetch_and_add(&block->kernel_window[kernel_bucket % BLOCK_BUCKETS], weight);
	__sync_fetch_and_add(&user_block->until_user[user_bucket % BLOCK_BUCKETS], weight);
	note_time(user_block, *(const volatile __u32 *)&cfg->slice, state->enter_ns, state->back_ns);
	if (state->entries)
		__sync_fetch_and_add(&user_block->entries, (__u64)state->entries * weight);
	if (state->moved)
		__sync_fetch_and_add(&user_block->moved, weight);
	return user_block;
}

/*
 * How many operations one counts for where one in `wanted` is to count; 0 where chance leaves it out. It was chosen from
 * `state->sampling` at its entry, so only what is missing to `wanted` is left to chance here.
 */
static __always_inline __u32 weight_of(const struct task_state *state, __u32 wanted)
{
	if (state->role == ROLE_READER || wanted <= state->sampling)
		return state->sampling;
	return bpf_get_prandom_u32() & (wanted - 1) & ~(state->sampling - 1) ? 0 : wanted;
}

static __always_inline void record_for(struct task_state *state, __u32 slot, const struct config *cfg)
{
	struct probe *probe = bpf_map_lookup_elem(&probes, &slot);
	__u32 caller = OTHER_CALLERS, instance, weight;
	struct block *block;

	/* A slot may have passed to another probe since the operation began. */
	if (!probe || state->enter_ns < probe->since_ns ||
	    !(probe->commands >> (state->command & 31) & 1))
		return;
	if (probe->outlier_ns && state->watch.is_on && state->role == ROLE_NONE &&
	    state->back_ns - state->enter_ns >= threshold_of(state, probe, cfg))
		tell_outlier(state, slot);
	weight = weight_of(state, probe->sampling);
	if (!weight)
		return;
	instance = probe->instance;
	if (state->role == ROLE_READER)
		instance |= INSTANCE_READER;
	/* The number may have passed to another caller since. */
	else if (state->named_generation == cfg->callers_generation)
		caller = state->caller;
	block = count_under(state, pack_key(state, instance, caller), cfg, weight);
	/* Among the others there may still be room. */
	if (!block && caller != OTHER_CALLERS)
		block = count_under(state, pack_key(state, instance, OTHER_CALLERS), cfg, weight);
	if (!block) {
		count_loss(LOSS_BLOCKS);
		return;
	}
	if (probe->hands_over && state->role == ROLE_NONE) {
		/* One at most is handed over, for all that it stands for. */
		__u32 missed = weight - !!hand_over(state, probe->instance);

		if (missed)
			__sync_fetch_and_add(&block->missed, missed);
	}
}

/* For all probes but the first. Global functions are verified once and not on every path to them. */
__noinline int record_for_more(struct task_state *state, __u32 wanted)
{
	struct config *cfg = configuration();

	if (!state || !cfg)
		return 0;
	for (__u32 slot = 0; slot < MAX_PROBES; slot++)
		if (wanted >> slot & 1)
			record_for(state, slot, cfg);
	return 0;
}

static __always_inline void record(struct task_state *state, const struct config *cfg)
{
	__u32 wanted = state->probes;
	__u32 slot;

	state->phase = PHASE_IDLE;
	if (!wanted)
		return;
	/* Mostly one probe wants an operation; it is spared a call. */
	slot = wanted == 1 ? 0 : octave_of(wanted);
	record_for(state, slot, cfg);
	wanted &= ~(1u << slot);
	if (wanted)
		record_for_more(state, wanted);
}

#endif
