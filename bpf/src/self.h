/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the agent runs on itself (BPF_PROG_TEST_RUN). */
#ifndef MAPLATENCY_SELF_H
#define MAPLATENCY_SELF_H

#include "caller.h"
#include "kernel.h"
#include "maps.h"

/*
 * Tells the kernel side who it is and which processes it sees, without a
 * word about process ids: in a pid namespace the agent does not know its own.
 */
SEC("raw_tp/identify")
int identify(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	struct config *cfg = configuration();
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *number = number_at(pid, level);

	if (!cfg)
		return 1;
	cfg->own_tgid = bpf_get_current_pid_tgid() >> 32;
	cfg->pid_level = level;
	cfg->pid_namespace = (__u64)BPF_CORE_READ(number, ns);
	return 0;
}

/* Gives the calling thread the role of the first argument. Returns 0 when that worked. */
SEC("raw_tp/take_role")
int take_role(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state =
		bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!state)
		return 1;
	state->phase = PHASE_IDLE;
	state->role = ctx->args[0];
	return 0;
}

#endif
