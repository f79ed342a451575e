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

#include "caller.h"
#include "filter.h"
#include "holder.h"
#include "maps.h"
#include "outlier.h"
#include "record.h"

/* One of the licences that the kernel takes as GPL-compatible (include/linux/license.h). */
char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Commands whose file descriptor lies behind the batch fields of union bpf_attr, next to the number of elements. */
#define BATCH_COMMANDS                                                                                    \
	(1u << BPF_MAP_LOOKUP_BATCH | 1u << BPF_MAP_LOOKUP_AND_DELETE_BATCH | 1u << BPF_MAP_UPDATE_BATCH | \
	 1u << BPF_MAP_DELETE_BATCH)
#define SMALLEST_PAGE 4096
/* Whether a hook within the call may see the map (fentry.bpf.c). */
#ifndef SEES_MAPS
#define SEES_MAPS 0
#endif
#define BATCH_COUNT_OFFSET 32
#define BATCH_FD_OFFSET 36

_Static_assert(__builtin_offsetof(union bpf_attr, batch.count) == BATCH_COUNT_OFFSET, "uapi/linux/bpf.h");
_Static_assert(__builtin_offsetof(union bpf_attr, batch.map_fd) == BATCH_FD_OFFSET, "uapi/linux/bpf.h");
_Static_assert(__builtin_offsetof(union bpf_attr, map_fd) == 0, "uapi/linux/bpf.h");

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
		record(state, cfg);
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

/* The class of a result. Not in the C library of the kernel's own: ENOTSUPP, 524. */
static __always_inline __u8 outcome_of(long result)
{
	if (result >= 0)
		return OUTCOME_SUCCESS;
	switch (-result) {
	case ENOENT:
		return OUTCOME_NOT_FOUND;
	case E2BIG:
	case ENOSPC:
		return OUTCOME_FULL;
	case EEXIST:
		return OUTCOME_EXISTS;
	case EAGAIN:
	case EBUSY:
	case EINTR:
		return OUTCOME_BUSY;
	case ENOMEM:
		return OUTCOME_NO_MEMORY;
	case EINVAL:
	case EFAULT:
	case EOPNOTSUPP:
	case 524:
		return OUTCOME_INVALID;
	case EPERM:
	case EACCES:
		return OUTCOME_DENIED;
	default:
		return OUTCOME_OTHER;
	}
}

/* Whether only a call that had a map ends so. */
static __always_inline bool had_map(__u8 outcome)
{
	return outcome <= OUTCOME_NO_MEMORY;
}

/*
 * Reads the file descriptor that the caller passed, and of a batch the number of elements, which the kernel has put in
 * place of their greatest number by now. Where it refused the call as such it has not, and nothing was moved.
 */
static __always_inline bool read_attributes(struct task_state *state, __u32 *fd)
{
	__u32 batch[2] = {};

	state->entries = 0;
	if (!(1u << state->command & BATCH_COMMANDS))
		/* The kernel reads attributes past the caller's size as zero. */
		return state->attributes_size < sizeof(*fd) ||
		       !bpf_probe_read_user(fd, sizeof(*fd), (void *)state->attributes);
	if (state->attributes_size < BATCH_FD_OFFSET + sizeof(*fd))
		return true;
	if (bpf_probe_read_user(batch, sizeof(batch), (void *)(state->attributes + BATCH_COUNT_OFFSET)))
		return false;
	if (state->outcome != OUTCOME_INVALID && state->outcome != OUTCOME_DENIED)
		state->entries = batch[0];
	*fd = batch[1];
	return true;
}

/* The open file behind a descriptor of the current task. Null where there is none. */
static __always_inline struct file *file_behind(struct task_struct *task, __u32 fd)
{
	/* Loads through typed pointers, which cost no call of a helper. */
	struct fdtable *table = task->files->fdt;
	struct file *file = NULL;
	struct file **slot;

	if (fd >= table->max_fds)
		return NULL;
	slot = table->fd + fd;
	bpf_probe_read_kernel(&file, sizeof(file), slot);
	return file;
}

/*
 * The probes that count a map until user space has listed it: all that may turn out to want it. Who it is has to be on
 * record before, since it may be gone when user space looks; where there is no room, nothing is counted.
 */
__noinline __u32 probes_of_newcomer(__u32 map_id, __u64 address)
{
	struct bpf_map *map = (void *)address;
	struct config *cfg = configuration();
	struct newcomer newcomer = {};
	/* An int before 6.4, whatever is declared. */
	int error;

	if (!cfg || !cfg->newcomer_probes)
		return 0;
	newcomer.map_type = BPF_CORE_READ(map, map_type);
	bpf_core_read_str(newcomer.name, sizeof(newcomer.name), &map->name);
	error = bpf_map_update_elem(&newcomers, &map_id, &newcomer, BPF_NOEXIST);
	return error && error != -EEXIST ? 0 : cfg->newcomer_probes;
}

/* The probes that want the map that the task called. The answer is kept with the task. */
static __always_inline __u32 probes_of(struct task_state *state, const struct config *cfg,
				       struct bpf_map *map)
{
	__u32 map_id = state->map_id;
	__u32 generation = generation_of(cfg);
	struct target *target;

	if (state->known_generation == generation && state->known_map == map_id)
		return state->known_probes;
	target = bpf_map_lookup_elem(&targets, &map_id);
	if (target)
		state->known_probes = target->probes;
	else if (map_id > cfg->newest_map)
		state->known_probes =
			probes_of_newcomer(map_id, (__u64)map);
	else
		state->known_probes = 0;
	state->known_map = map_id;
	bpf_core_read(&state->known_key_size, sizeof(state->known_key_size), &map->key_size);
	state->known_generation = generation;
	return state->known_probes;
}

/* The map behind the descriptor that the caller passed, at the exit; null where there is none, which may be a loss. */
static __always_inline struct bpf_map *find_map(struct task_struct *task, struct task_state *state,
						struct config *cfg)
{
	struct bpf_map *map;
	struct file *file;
	__u32 fd = 0;

	/* The kernel refuses attributes of more than a page before it looks at them. */
	if (state->attributes_size > SMALLEST_PAGE)
		return NULL;
	if (!read_attributes(state, &fd)) {
		/* Attributes that the kernel could not read either are no operation. */
		if (had_map(state->outcome))
			count_loss(LOSS_ATTRIBUTES);
		return NULL;
	}
	file = file_behind(task, fd);
	if (state->role == ROLE_CHECK && file) {
		cfg->map_file_operations = (__u64)BPF_CORE_READ(file, f_op);
		cfg->checked_calls++;
		return NULL;
	}
	map = file ? map_behind(file, cfg) : NULL;
	if (!map) {
		if (had_map(state->outcome))
			count_loss(LOSS_CLOSED);
		return NULL;
	}
	bpf_core_read(&state->map_id, sizeof(state->map_id), &map->id);
	return map;
}

/* Runs last of all at the exit of bpf(2). */
static __always_inline int exit_call(long result)
{
	__u64 now = bpf_ktime_get_ns();
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = bpf_task_storage_get(&tasks, task, 0, 0);
	struct config *cfg = configuration();
	struct bpf_map *map;

	if (!state || !cfg || state->phase != PHASE_IN_CALL)
		return 0;
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
	state->back_ns = bpf_ktime_get_ns();
	/* Last, since a task may be preempted even here, which then belongs to its way back. */
	state->phase = PHASE_RETURNING;
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
		record(state, cfg);
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

/*
 * Run by the agent on itself (BPF_PROG_TEST_RUN), which tells the kernel side who it is and which processes it sees, without a
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
