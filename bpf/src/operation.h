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
#include "maps.h"
#include "record.h"

/* One of the licences that the kernel takes as GPL-compatible (include/linux/license.h). */
char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Commands whose file descriptor lies behind the batch fields of union bpf_attr, next to the number of elements. */
#define BATCH_COMMANDS                                                                                    \
	(1u << BPF_MAP_LOOKUP_BATCH | 1u << BPF_MAP_LOOKUP_AND_DELETE_BATCH | 1u << BPF_MAP_UPDATE_BATCH | \
	 1u << BPF_MAP_DELETE_BATCH)
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
		record(state);
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
	state->sampling = sampling;
	state->cpu = bpf_get_smp_processor_id();
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

/* The open file behind the descriptor that the caller passed. Null where there is none. */
static __always_inline struct file *file_of_call(struct task_struct *task, struct task_state *state)
{
	struct fdtable *table;
	struct file *file = NULL;
	struct file **slot;
	__u32 fd = 0;

	if (!read_attributes(state, &fd)) {
		count_loss(LOSS_ATTRIBUTES);
		return NULL;
	}
	/* Loads through typed pointers, which cost no call of a helper. */
	table = task->files->fdt;
	if (fd >= table->max_fds)
		return NULL;
	slot = table->fd + fd;
	bpf_probe_read_kernel(&file, sizeof(file), slot);
	return file;
}

/* The id of the map that a file stands for; 0 where it stands for something else. */
static __always_inline __u32 map_behind(struct file *file, const struct config *cfg)
{
	__u32 operations = bpf_core_field_offset(file->f_op);
	__u32 data = bpf_core_field_offset(file->private_data);
	struct bpf_map *map;
	__u32 id = 0;

	/* Where the two fields lie next but one to each other, as from 6.12 on, one reading fetches both. */
	if (data - operations == 16) {
		__u64 fields[3] = {};

		bpf_probe_read_kernel(fields, sizeof(fields), (void *)file + operations);
		if (fields[0] != cfg->map_file_operations)
			return 0;
		map = (struct bpf_map *)fields[2];
	} else {
		if ((__u64)BPF_CORE_READ(file, f_op) != cfg->map_file_operations)
			return 0;
		map = BPF_CORE_READ(file, private_data);
	}
	bpf_core_read(&id, sizeof(id), &map->id);
	return id;
}

/* The probes that want a map. The answer is kept with the task. */
static __always_inline __u32 probes_of(struct task_state *state, const struct config *cfg, __u32 map_id)
{
	__u32 generation = generation_of(cfg);
	struct target *target;

	if (state->known_generation == generation && state->known_map == map_id)
		return state->known_probes;
	target = bpf_map_lookup_elem(&targets, &map_id);
	state->known_probes = target ? target->probes : 0;
	state->known_map = map_id;
	state->known_generation = generation;
	return state->known_probes;
}

/* Runs last of all at the exit of bpf(2). */
static __always_inline int exit_call(long result)
{
	__u64 now = bpf_ktime_get_ns();
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_state *state = bpf_task_storage_get(&tasks, task, 0, 0);
	struct config *cfg = configuration();
	struct file *file;
	__u32 map_id;

	if (!state || !cfg || state->phase != PHASE_IN_CALL)
		return 0;
	state->phase = PHASE_IDLE;
	state->outcome = outcome_of(result);
	file = file_of_call(task, state);
	if (!file)
		return 0;
	if (state->role == ROLE_CHECK) {
		cfg->map_file_operations = (__u64)BPF_CORE_READ(file, f_op);
		cfg->checked_calls++;
		return 0;
	}
	map_id = map_behind(file, cfg);
	if (!map_id)
		return 0;
	state->map_id = map_id;
	state->probes = probes_of(state, cfg, map_id);
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
		record(state);
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

	if (!cfg)
		return 0;
	state = bpf_task_storage_get(&tasks, prev, 0, 0);
	if (state)
		leaves_cpu(prev, state, cfg);
	state = bpf_task_storage_get(&tasks, next, 0, 0);
	if (state && state->phase == PHASE_OFF_CPU) {
		state->back_ns = bpf_ktime_get_ns();
		state->moved |= bpf_get_smp_processor_id() != state->cpu;
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
