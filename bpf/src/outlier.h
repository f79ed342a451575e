/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Slow operations, told one by one with all that happened to the task meanwhile. */
#ifndef MAPLATENCY_OUTLIER_H
#define MAPLATENCY_OUTLIER_H

#include "caller.h"
#include "kernel.h"
#include "maps.h"

static __always_inline void read_counters(struct task_struct *task, struct counters *counters)
{
	counters->voluntary_switches = task->nvcsw;
	counters->involuntary_switches = task->nivcsw;
	counters->migrations = task->se.nr_migrations;
	counters->minor_faults = task->min_flt;
	counters->major_faults = task->maj_flt;
}

static __always_inline __u64 run_delay_of(struct task_struct *task)
{
	return bpf_core_field_exists(task->sched_info.run_delay) ? task->sched_info.run_delay : 0;
}

/* At the entry: what the kernel counts of the task until now. */
static __always_inline void begin_watch(struct task_struct *task, struct watch *watch)
{
	read_counters(task, &watch->before);
	watch->run_delay = run_delay_of(task);
	watch->out_ns = 0;
	watch->off_cpu_ns = 0;
	watch->instead_ns = 0;
	watch->is_on = 1;
}

/* As soon as the operation may be over. What comes later belongs to user mode. */
static __always_inline void update_watch(struct task_struct *task, struct watch *watch)
{
	read_counters(task, &watch->after);
	watch->cpu = bpf_get_smp_processor_id();
}

/* Notes who runs on this CPU from now on. */
static __always_inline void log_run(struct task_struct *next, const struct config *cfg, __u64 now)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct run_log *log = bpf_map_lookup_elem(&run_logs, &cpu);
	struct run *run;
	__u32 at;

	if (!log)
		return;
	at = log->next;
	log->runs[at & (RUNS - 1)].until_ns = now;
	log->next = at + 1;
	run = &log->runs[(at + 1) & (RUNS - 1)];
	run->from_ns = now;
	run->until_ns = 0;
	/* The numbers of the outermost namespace stand in the task itself. */
	run->pid = cfg->pid_level ? visible_pid(next->group_leader, cfg) : next->tgid;
	bpf_core_read(run->command, sizeof(run->command), &next->comm);
}

/* Finds who ran longest at a stretch where a task was switched out, until `now`. */
__noinline int find_instead(struct watch *watch, __u64 now)
{
	struct run_log *log;
	__u32 cpu;

	if (!watch)
		return 0;
	cpu = watch->out_cpu;
	log = bpf_map_lookup_elem(&run_logs, &cpu);
	if (!log)
		return 0;
	for (__u32 i = 0; i < RUNS; i++) {
		struct run *run = &log->runs[i];
		__u64 from = run->from_ns;
		__u64 until = run->until_ns ? run->until_ns : now;

		if (from < watch->out_ns)
			from = watch->out_ns;
		if (until > now)
			until = now;
		if (until <= from || until - from <= watch->instead_ns)
			continue;
		watch->instead_ns = until - from;
		watch->instead_pid = run->pid;
		__builtin_memcpy(watch->instead_command, run->command, sizeof(run->command));
	}
	return 0;
}

/* The kernel has counted this switch already. Should the return not be seen, nothing later is mixed in. */
static __always_inline void watch_leaves(struct task_struct *task, struct watch *watch, __u64 now)
{
	update_watch(task, watch);
	watch->out_ns = now;
	watch->out_cpu = bpf_get_smp_processor_id();
}

static __always_inline void watch_returns(struct watch *watch, __u64 now)
{
	if (!watch->out_ns)
		return;
	watch->off_cpu_ns += now - watch->out_ns;
	find_instead(watch, now);
	watch->out_ns = 0;
}

/* From how long on an operation of this map is an outlier. Changes with slices only, so it is kept with the task. */
static __always_inline __u64 threshold_of(struct task_state *state, const struct probe *probe,
					  const struct config *cfg)
{
	struct threshold_key key = {
		.map_id = state->map_id,
		.instance = probe->instance,
		.command = state->command,
	};
	__u32 slice = *(const volatile __u32 *)&cfg->slice;
	__u64 *found;

	if (state->threshold_slice == slice && state->threshold_key.map_id == key.map_id &&
	    state->threshold_key.instance == key.instance && state->threshold_key.command == key.command)
		return state->threshold_ns;
	found = bpf_map_lookup_elem(&thresholds, &key);
	state->threshold_ns = found ? *found : probe->outlier_ns;
	state->threshold_key = key;
	state->threshold_slice = slice;
	return state->threshold_ns;
}

/* Whether there is still room for one more in this slice. CPUs that begin a slice at once may each let some through. */
static __always_inline bool may_tell(struct outlier_counts *counts, const struct probe *probe,
				     const struct config *cfg)
{
	if (counts->slice != cfg->slice) {
		counts->slice = cfg->slice;
		counts->in_slice = 0;
	}
	if (counts->in_slice >= probe->outliers_per_slice || counts->in_slice >= cfg->outliers_per_second)
		return false;
	__sync_fetch_and_add(&counts->in_slice, 1);
	return true;
}

/* Tells user space of the operation that the current task has just finished. */
__noinline int tell_outlier(struct task_state *state, __u32 slot)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct probe *probe = bpf_map_lookup_elem(&probes, &slot);
	struct outlier_counts *counts = bpf_map_lookup_elem(&outlier_counts, &slot);
	struct config *cfg = configuration();
	struct kernfs_node *node;
	struct outlier *it;
	struct watch *watch;

	if (!state || !probe || !counts || !cfg)
		return 0;
	if (!may_tell(counts, probe, cfg)) {
		__sync_fetch_and_add(&counts->held_back, 1);
		return 0;
	}
	it = bpf_ringbuf_reserve(&outliers, sizeof(*it), 0);
	if (!it) {
		__sync_fetch_and_add(&counts->ring_full, 1);
		return 0;
	}
	watch = &state->watch;
	it->begin_ns = state->enter_ns;
	it->kernel_window_ns = state->exit_ns - state->call_ns;
	it->until_user_ns = state->back_ns - state->enter_ns;
	it->off_cpu_ns = watch->off_cpu_ns;
	it->run_delay_ns = run_delay_of(task) - watch->run_delay;
	it->instead_ns = watch->instead_ns;
	node = cgroup_of(task);
	it->cgroup_id = node ? BPF_CORE_READ(node, id) : 0;
	it->map_id = state->map_id;
	it->instance = probe->instance;
	it->key_size = state->known_key_size;
	it->entries = state->entries;
	it->pid = visible_pid(task->group_leader, cfg);
	it->tid = visible_pid(task, cfg);
	it->voluntary_switches = watch->after.voluntary_switches - watch->before.voluntary_switches;
	it->involuntary_switches = watch->after.involuntary_switches - watch->before.involuntary_switches;
	it->migrations = watch->after.migrations - watch->before.migrations;
	it->minor_faults = watch->after.minor_faults - watch->before.minor_faults;
	it->major_faults = watch->after.major_faults - watch->before.major_faults;
	it->instead_pid = watch->instead_ns ? watch->instead_pid : 0;
	it->cpu = state->cpu;
	it->cpu_after = watch->cpu;
	it->caller = state->named_generation == cfg->callers_generation ? state->caller : OTHER_CALLERS;
	it->command_number = state->command;
	it->outcome = state->outcome;
	bpf_core_read(it->command, sizeof(it->command), &task->comm);
	__builtin_memcpy(it->instead_command, watch->instead_command, sizeof(it->instead_command));
	/* Drained on a timer. A wake-up from within the scheduler could not be had anyway. */
	bpf_ringbuf_submit(it, BPF_RB_NO_WAKEUP);
	__sync_fetch_and_add(&counts->told, 1);
	return 0;
}

#endif
