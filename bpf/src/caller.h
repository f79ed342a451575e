/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who calls: a process gets a number by which it is counted, and user space learns once who that is. */
#ifndef MAPLATENCY_CALLER_H
#define MAPLATENCY_CALLER_H

#include "kernel.h"
#include "maps.h"

/* Stands for a process that the agent's pid namespace does not hold. */
#define OUTSIDE (~0u)

/* A process id as the pid namespace of a level sees it. The size of an element is the same in all kernels. */
static __always_inline struct upid *number_at(struct pid *pid, __u32 level)
{
	return (void *)pid + bpf_core_field_offset(pid->numbers) + level * sizeof(struct upid);
}

/* The process's id in the agent's pid namespace; 0 where it has none there. */
static __always_inline __u32 visible_pid(struct task_struct *leader, const struct config *cfg)
{
	struct pid *pid = BPF_CORE_READ(leader, thread_pid);
	__u32 level = cfg->pid_level;
	struct upid *number;

	if (!pid || BPF_CORE_READ(pid, level) < level)
		return 0;
	number = number_at(pid, level);
	if ((__u64)BPF_CORE_READ(number, ns) != cfg->pid_namespace)
		return 0;
	return BPF_CORE_READ(number, nr);
}

/* The cgroup of the memory controller, which on either version of cgroups tells containers apart. */
static __always_inline struct kernfs_node *cgroup_of(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *state = NULL;
	void *subsystems;

	if (!set || !bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return NULL;
	subsystems = (void *)set + bpf_core_field_offset(set->subsys);
	bpf_probe_read_kernel(&state, sizeof(state),
			      subsystems + sizeof(state) * bpf_core_enum_value(enum cgroup_subsys_id,
									       memory_cgrp_id));
	return state ? BPF_CORE_READ(state, cgroup, kn) : NULL;
}

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___renamed *renamed = (void *)node;

	if (bpf_core_field_exists(renamed->__parent))
		return BPF_CORE_READ(renamed, __parent);
	return BPF_CORE_READ(node, parent);
}

static __always_inline void describe(struct caller *caller, struct task_struct *leader, __u32 pid)
{
	struct kernfs_node *node = cgroup_of(leader);

	caller->pid = pid;
	caller->start_ns = BPF_CORE_READ(leader, start_boottime);
	bpf_core_read_str(caller->command, sizeof(caller->command), &leader->comm);
	caller->cgroup_id = node ? BPF_CORE_READ(node, id) : 0;
	for (int i = 0; i < CGROUP_LEVELS; i++) {
		caller->cgroup[i][0] = 0;
		if (!node)
			continue;
		bpf_probe_read_kernel_str(caller->cgroup[i], CGROUP_NAME, BPF_CORE_READ(node, name));
		node = parent_of(node);
	}
}

/* Gives the current process its number: OUTSIDE, or OTHER_CALLERS where there is none left. */
__noinline __u32 number_caller(__u64 exec_id)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;
	struct config *cfg = configuration();
	struct caller_key key = {};
	struct caller *caller;
	__u32 number = 0;
	__u32 *found;
	__u32 pid;

	if (!cfg)
		return OTHER_CALLERS;
	pid = visible_pid(leader, cfg);
	if (!pid)
		return OUTSIDE;
	if (cfg->coarser_callers)
		return OTHER_CALLERS;
	key.start_ns = BPF_CORE_READ(leader, start_boottime);
	key.exec_id = exec_id;
	key.tgid = task->tgid;
	found = bpf_map_lookup_elem(&caller_of, &key);
	if (found)
		return *found;
	if (bpf_map_pop_elem(&free_callers, &number))
		return OTHER_CALLERS;
	/* Described before anybody can find the number. */
	caller = bpf_map_lookup_elem(&callers, &number);
	if (caller) {
		describe(caller, leader, pid);
		if (!bpf_map_update_elem(&caller_of, &key, &number, BPF_NOEXIST))
			return number;
	}
	/* Another thread of the process was first: this number is for the next. */
	bpf_map_push_elem(&free_callers, &number, 0);
	found = bpf_map_lookup_elem(&caller_of, &key);
	return found ? *found : OTHER_CALLERS;
}

/* The current process's number. It is kept with the task. */
static __always_inline __u32 caller_number(struct task_struct *task, struct task_state *state,
					   const struct config *cfg)
{
	__u32 generation = *(const volatile __u32 *)&cfg->callers_generation;
	__u64 exec_id = task->self_exec_id;

	if (state->named_generation != generation || state->named_exec_id != exec_id) {
		state->caller = number_caller(exec_id);
		state->named_exec_id = exec_id;
		state->named_generation = generation;
	}
	return state->caller;
}

#endif
