/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What every tier does: times every bpf(2) call on a matched map. The tiers differ in the hooks that call
 * `enter_call` and `exit_call`.
 *
 *   enter_call     notes the time of the entry with the task
 *   exit_call      notes the time of the exit, finds the map behind the file descriptor, applies the filters
 *   sched_switch   sees what happens between the exit and user mode
 *
 * An operation is recorded when it is certain that the task was back in user mode: at its next bpf(2), or when
 * it leaves the CPU from user mode or from another system call. Until then it may still be switched out on the
 * way back, which is where kernels without full preemption run the scheduler.
 */
#ifndef MAPLATENCY_OPERATION_H
#define MAPLATENCY_OPERATION_H

#include "kernel.h"

#include <bpf/bpf_tracing.h>

#include "called_map.h"
#include "caller.h"
#include "filter.h"
#include "holder.h"
#include "maps.h"
#include "outlier.h"
#include "record.h"
#include "self.h"

/* One of the licences that the kernel takes as GPL-compatible (include/linux/license.h). */
char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Whether a hook within the call may see the map (fentry.bpf.c). */
#ifndef SEES_MAPS
#define SEES_MAPS 0
#endif

/*
 * Puts right a task whose switch-in was not seen: sched_switch is not traced for every task on every machine. Time
 * that the task waited for a CPU is kept by the scheduler itself, so the moment of its return is known all the same.
 */
static __always_inline void recover(struct task_struct *task, struct task_state *state)
{
	__u64 waited = bpf_core_field_exists(task->sched_info.run_delay) ?
			       BPF_CORE_READ(task, sched_info.run_delay) - state->run_delay :
			       0;

	if (waited) {
		state->back_ns = state->off_ns + waited;
		watch_returns(&state->watch, state->back_ns);
		state->phase = PHASE_RETURNING;
		return;
	}
	state->phase = PHASE_IDLE;
	count_loss(LOSS_HOOK);
}

/* How often the task was switched out in all its life. The kernel counts a switch before it tells of it. */
static __always_inline __u64 switches_of(struct task_struct *task)
{
	return task->nvcsw + task->nivcsw;
}

/*
 * Records the operation of a task that was back in user mode by when it had been switched out `switches` times. If that is more
 * often than was seen, it may have been on the way back, for a time that nobody knows.
 */
static __always_inline void finish(struct task_state *state, const struct config *cfg, __u64 switches)
{
	if (may_miss_storage() && switches != state->switches) {
		state->phase = PHASE_IDLE;
		count_loss(LOSS_HOOK);
		return;
	}
	record(state, cfg);
}

/*
 * Whether an operation is looked at. By chance: a caller whose calls repeat in a pattern would show a fixed stride only
 * some of them.
 */
static __always_inline bool is_chosen(__u32 sampling)
{
	return sampling == 1 || !(bpf_get_prandom_u32() & (sampling - 1));
}

/* Runs first of all at the entry of bpf(2). */
static __always_inline int enter_call(__u32 command, __u64 attributes, __u32 attributes_size)
{
	__u64 now = bpf_ktime_get_ns();
	struct task_struct *task = bpf_get_current_task_btf();
	/* Before the task looks for its storage: stopped meanwhile it is not seen to be switched out. */
	__u64 switches = may_miss_storage() ? switches_of(task) : 0;
	struct config *cfg = configuration();
	bool wanted, own;
	struct task_state *state;
	__u32 sampling;

	if (!cfg)
		return 0;
	own = (__u32)task->tgid == cfg->own_tgid;
	/* Read once: an operation stands for as many as it was chosen from. */
	sampling = *(const volatile __u32 *)&cfg->sampling;
	if (own || !sampling)
		sampling = 1;
	wanted = command < 32 && cfg->commands >> command & 1 && is_chosen(sampling);
	state = bpf_task_storage_get(&tasks, task, 0, wanted && !own ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
	if (!state) {
		if (wanted && !own)
			count_loss(LOSS_STORAGE);
		return 0;
	}
	if (state->phase == PHASE_OFF_CPU)
		recover(task, state);
	/* Another system call begins, so the last one did get back to user mode. */
	if (state->phase == PHASE_RETURNING)
		finish(state, cfg, switches);
	else if (state->phase == PHASE_IN_CALL)
		count_loss(LOSS_HOOK);
	state->phase = PHASE_IDLE;
	if (own && state->role == ROLE_NONE)
		return 0;
	if (!wanted && state->role != ROLE_CHECK)
		return 0;
	state->command = command;
	state->attributes = attributes;
	state->attributes_size = attributes_size;
	if (SEES_MAPS)
		state->seen_map = 0;
	state->sampling = sampling;
	state->cpu = bpf_get_smp_processor_id();
	state->watch.is_on = 0;
	if (cfg->outlier_probes)
		begin_watch(task, &state->watch);
	state->phase = PHASE_IN_CALL;
	state->enter_ns = now;
	state->call_ns = bpf_ktime_get_ns();
	return 0;
}

/* Runs last of all at the exit of bpf(2). */
static __always_inline int exit_call(long result)
{
	__u64 now = bpf_ktime_get_ns();
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = bpf_task_storage_get(&tasks, task, 0, 0);
	struct config *cfg = configuration();
	struct bpf_map *map;

	if (!state || !cfg)
		return 0;
	if (state->phase != PHASE_IN_CALL) {
		/* The entry was not seen. What was taken for the way back from the call before may have been in this one. */
		if (state->phase != PHASE_IDLE)
			count_loss(LOSS_HOOK);
		state->phase = PHASE_IDLE;
		return 0;
	}
	state->phase = PHASE_IDLE;
	state->outcome = outcome_of(result);
	if (SEES_MAPS && state->seen_map && state->role != ROLE_CHECK) {
		map = (struct bpf_map *)state->seen_map;
		state->entries = 0;
	} else {
		map = find_map(task, state, cfg);
	}
	if (!map)
		return 0;
	state->probes = probes_of(state, cfg, map);
	if (!state->probes)
		return 0;
	if (state->role == ROLE_NONE)
		state->probes = filter_caller(state, cfg, state->probes);
	if (!state->probes)
		return 0;
	if (state->role == ROLE_NONE && caller_number(task, state, cfg) == OUTSIDE) {
		count_loss(LOSS_NAMESPACE);
		return 0;
	}
	state->moved = bpf_get_smp_processor_id() != state->cpu;
	if (state->watch.is_on)
		update_watch(task, &state->watch);
	state->exit_ns = now;
	state->back_ns = now;
	if (may_miss_storage())
		state->switches = switches_of(task);
	/*
	 * A task may be preempted even here. From now on that is seen to be on its way back, and where it was, its return is
	 * later than the clock that was read before.
	 */
	*(volatile __u8 *)&state->phase = PHASE_RETURNING;
	now = bpf_ktime_get_ns();
	if (now > *(volatile __u64 *)&state->back_ns)
		state->back_ns = now;
	return 0;
}

static __always_inline void leaves_cpu(struct task_struct *task, struct task_state *state,
				       struct config *cfg)
{
	/* A dead task is past its last switch from user mode: what is still open never gets back there. */
	bool dead = BPF_CORE_READ(task, __state) & TASK_DEAD;

	if (state->role == ROLE_CHECK)
		cfg->checked_switches++;
	if (state->phase == PHASE_IN_CALL && dead)
		count_loss(LOSS_DIED);
	if (state->phase == PHASE_OFF_CPU)
		recover(task, state);
	if (state->phase != PHASE_RETURNING)
		return;
	if (!is_returning_from_bpf(task)) {
		/* All but this one. */
		finish(state, cfg, switches_of(task) - 1);
		return;
	}
	if (dead) {
		state->phase = PHASE_IDLE;
		count_loss(LOSS_DIED);
		return;
	}
	state->off_ns = bpf_ktime_get_ns();
	if (bpf_core_field_exists(task->sched_info.run_delay))
		state->run_delay = BPF_CORE_READ(task, sched_info.run_delay);
	state->switches = switches_of(task);
	state->phase = PHASE_OFF_CPU;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct config *cfg = configuration();
	struct task_state *state;
	__u64 now;

	if (!cfg)
		return 0;
	state = bpf_task_storage_get(&tasks, prev, 0, 0);
	if (state)
		leaves_cpu(prev, state, cfg);
	now = bpf_ktime_get_ns();
	if (cfg->outlier_probes) {
		if (state && (state->phase == PHASE_IN_CALL || state->phase == PHASE_OFF_CPU))
			watch_leaves(prev, &state->watch, now);
		log_run(next, cfg, now);
	}
	state = bpf_task_storage_get(&tasks, next, 0, 0);
	if (!state)
		return 0;
	if (state->phase == PHASE_IN_CALL || state->phase == PHASE_OFF_CPU)
		watch_returns(&state->watch, now);
	if (state->phase == PHASE_OFF_CPU) {
		state->moved |= bpf_get_smp_processor_id() != state->cpu;
		update_watch(next, &state->watch);
		state->back_ns = bpf_ktime_get_ns();
		state->phase = PHASE_RETURNING;
	}
	return 0;
}

#endif
