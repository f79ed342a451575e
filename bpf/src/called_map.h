/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a call ended, the map that it was about, and the probes that want that map. */
#ifndef MAPLATENCY_CALLED_MAP_H
#define MAPLATENCY_CALLED_MAP_H

#include "kernel.h"
#include "maps.h"

/* Commands whose file descriptor lies behind the batch fields of union bpf_attr, next to the number of elements. */
#define BATCH_COMMANDS                                                                                    \
	(1u << BPF_MAP_LOOKUP_BATCH | 1u << BPF_MAP_LOOKUP_AND_DELETE_BATCH | 1u << BPF_MAP_UPDATE_BATCH | \
	 1u << BPF_MAP_DELETE_BATCH)
#define SMALLEST_PAGE 4096
#define BATCH_COUNT_OFFSET 32
#define BATCH_FD_OFFSET 36

_Static_assert(__builtin_offsetof(union bpf_attr, batch.count) == BATCH_COUNT_OFFSET, "uapi/linux/bpf.h");
_Static_assert(__builtin_offsetof(union bpf_attr, batch.map_fd) == BATCH_FD_OFFSET, "uapi/linux/bpf.h");
_Static_assert(__builtin_offsetof(union bpf_attr, map_fd) == 0, "uapi/linux/bpf.h");

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

#endif
