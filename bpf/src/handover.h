/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Single operations, handed over to user space as they are. They are counted in the histograms all the same. */
#ifndef MAPLATENCY_HANDOVER_H
#define MAPLATENCY_HANDOVER_H

#include "caller.h"
#include "kernel.h"
#include "maps.h"

/* Hands over the operation that the current task has just finished. 0 where it could not be. */
__noinline int hand_over(struct task_state *state, __u32 instance)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct config *cfg = configuration();
	struct operation *it;
	__u32 zero = 0;
	void *ring;

	if (!state || !cfg || cfg->hold_back)
		return 0;
	ring = bpf_map_lookup_elem(&operation_rings, &zero);
	if (!ring)
		return 0;
	it = bpf_ringbuf_reserve(ring, sizeof(*it), 0);
	if (!it)
		return 0;
	it->begin_ns = state->enter_ns;
	it->kernel_window_ns = state->exit_ns - state->call_ns;
	it->until_user_ns = state->back_ns - state->enter_ns;
	it->map_id = state->map_id;
	it->instance = instance;
	/* The numbers of the outermost namespace stand in the task itself. */
	it->pid = cfg->pid_level ? visible_pid(task->group_leader, cfg) : task->tgid;
	it->cpu = state->cpu;
	it->command = state->command;
	it->outcome = state->outcome;
	/* Drained on a timer. A wake-up from within the scheduler could not be had anyway. */
	bpf_ringbuf_submit(it, BPF_RB_NO_WAKEUP);
	return 1;
}

#endif
