/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps that the programs share. User space sets `max_entries` of those that grow. */
#ifndef MAPLATENCY_MAPS_H
#define MAPLATENCY_MAPS_H

#include "kernel.h"
#include "layout.h"

enum phase {
	PHASE_IDLE = 0,
	/* Between entry and exit of bpf(2). */
	PHASE_IN_CALL = 1,
	/* After the exit. Not recorded before it is certain that no switch on the way back followed. */
	PHASE_RETURNING = 2,
	/* Switched out on the way back. */
	PHASE_OFF_CPU = 3,
};

/* `struct block_key` as two numbers, of which two are compared faster than its fields. Both machines are little-endian. */
struct packed_key {
	/* map_id, then instance. */
	__u64 place;
	/* cpu, caller, command, outcome, block. */
	__u64 detail;
};

_Static_assert(sizeof(struct packed_key) == sizeof(struct block_key), "the same in other words");
_Static_assert(__builtin_offsetof(struct block_key, instance) == 4 &&
		       __builtin_offsetof(struct block_key, cpu) == 8 &&
		       __builtin_offsetof(struct block_key, caller) == 10 &&
		       __builtin_offsetof(struct block_key, command) == 12 &&
		       __builtin_offsetof(struct block_key, outcome) == 13 &&
		       __builtin_offsetof(struct block_key, block) == 14,
	       "pack_key and of_block put each field where block_key has it");

/* A block that a task remembers. */
struct counted {
	struct packed_key key;
	__u32 block;
	__u32 generation;
};

/* What the kernel counts of a task. */
struct counters {
	__u64 voluntary_switches;
	__u64 involuntary_switches;
	__u64 migrations;
	__u64 minor_faults;
	__u64 major_faults;
};

/* What happens to a task in an operation that may become an outlier. */
struct watch {
	struct counters before;
	struct counters after;
	__u64 run_delay;
	/* When and where it was switched out; 0: it is not. */
	__u64 out_ns;
	__u64 off_cpu_ns;
	/* Who ran longest meanwhile. */
	__u64 instead_ns;
	__u32 instead_pid;
	__u32 out_cpu;
	/* Where it was when it got back. */
	__u32 cpu;
	__u32 is_on;
	char instead_command[16];
};

/* Who ran last on a CPU. A power of two of them. */
#define RUNS 8

struct run {
	__u64 from_ns;
	/* 0: it still runs. */
	__u64 until_ns;
	__u32 pid;
	__u32 unused;
	char command[16];
};

struct run_log {
	struct run runs[RUNS];
	__u32 next;
	__u32 unused;
};

/* The operation that a task is in. */
struct task_state {
	/*
	 * Four readings of the clock. The outer two, before and after everything that the probes do, bound what the
	 * caller feels; the inner two bound the call alone.
	 */
	__u64 enter_ns;
	__u64 call_ns;
	__u64 exit_ns;
	/* Moves on when the task is switched out on the way back, to when it runs again. */
	__u64 back_ns;
	/* When it was switched out, and how long it had waited for a CPU until then in all its life. */
	__u64 off_ns;
	__u64 run_delay;
	/* How often it had been switched out, at the exit or at the last switch since that was seen. */
	__u64 switches;
	__u64 attributes;
	/* The map of the call, seen from within it; 0: it was not. */
	__u64 seen_map;
	/* Where the last operation was counted: its kernel window and until back in user. */
	struct counted counted[2];
	/* The map that was looked up last, and the probes that want it. */
	__u32 known_map;
	__u32 known_probes;
	__u32 known_generation;
	__u32 known_key_size;
	/* From how long on it would be an outlier, as of a slice. */
	__u64 threshold_ns;
	struct threshold_key threshold_key;
	__u32 threshold_slice;
	struct watch watch;
	/* The command for which `caller_probes` was computed. */
	__u64 comm[2];
	__u32 caller_generation;
	__u32 caller_probes;
	/* The process's number among callers, as of a generation of callers and a call of execve(2). */
	__u64 named_exec_id;
	__u32 named_generation;
	__u32 caller;
	/* Elements that the call moved. */
	__u32 entries;
	__u32 map_id;
	__u32 probes;
	__u32 cpu;
	__u32 command;
	__u32 attributes_size;
	/* How many operations it stands for. */
	__u32 sampling;
	__u8 phase;
	__u8 role;
	__u8 outcome;
	/* Ended on another CPU than it began. */
	__u8 moved;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_state);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_TARGETS);
	__type(key, __u32);
	__type(value, struct target);
} targets SEC(".maps");

/* Newcomers that had operations. Preallocated, since an operation without its newcomer is not counted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_NEWCOMERS);
	__type(key, __u32);
	__type(value, struct newcomer);
} newcomers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PROBES);
	__type(key, __u32);
	__type(value, struct probe);
} probes SEC(".maps");

/* Per probe MAX_GLOBS patterns to include, then MAX_GLOBS to exclude. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PROBES * 2 * MAX_GLOBS);
	__type(key, __u32);
	__type(value, struct glob);
} globs SEC(".maps");

/*
 * Which block counts what. Preallocated: blocks are taken while the scheduler switches tasks with interrupts off, when
 * the allocator of BPF may have a single element at hand, and an operation may need two.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_BLOCKS);
	__type(key, struct block_key);
	__type(value, __u32);
} block_of SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BLOCKS);
	__type(key, __u32);
	__type(value, struct block);
} blocks SEC(".maps");

/* How many blocks were ever taken; those after them are new. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} blocks_taken SEC(".maps");

/* Blocks that were in use and are empty again. User space fills it. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, MAX_BLOCKS);
	__type(value, __u32);
} free_blocks SEC(".maps");

/* Which caller has which number. Preallocated for the same reason. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_CALLERS);
	__type(key, struct caller_key);
	__type(value, __u32);
} caller_of SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CALLERS);
	__type(key, __u32);
	__type(value, struct caller);
} callers SEC(".maps");

/* Numbers that are free. User space fills it, at the beginning with all but OTHER_CALLERS. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, MAX_CALLERS);
	__type(value, __u32);
} free_callers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, OUTLIER_BYTES);
} outliers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PROBES);
	__type(key, __u32);
	__type(value, struct outlier_counts);
} outlier_counts SEC(".maps");

/*
 * Holds the ring buffer of single operations while a probe wants them. An agent that does not use it has no room for it.
 * The size below is that of the pattern alone, from which inner maps may differ (5.10).
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_RINGBUF);
		__uint(max_entries, 4096);
	});
} operation_rings SEC(".maps");

/* Written by user space before a slice begins. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_THRESHOLDS);
	__type(key, struct threshold_key);
	__type(value, __u64);
} thresholds SEC(".maps");

/* By CPU; user space sets how many there are. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct run_log);
} run_logs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSS_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

static __always_inline void count_loss(__u32 kind)
{
	__u64 *count = bpf_map_lookup_elem(&losses, &kind);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Read once: what is remembered has to carry the generation from before it was looked up. */
static __always_inline __u32 generation_of(const struct config *cfg)
{
	return *(const volatile __u32 *)&cfg->generation;
}

static __always_inline struct config *configuration(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

/* The map that a file stands for; null where it stands for something else. */
static __always_inline struct bpf_map *map_behind(struct file *file, const struct config *cfg)
{
	__u32 operations = bpf_core_field_offset(file->f_op);
	__u32 data = bpf_core_field_offset(file->private_data);

	/* Where the two fields lie next but one to each other, as from 6.12 on, one reading fetches both. */
	if (data - operations == 16) {
		__u64 fields[3] = {};

		bpf_probe_read_kernel(fields, sizeof(fields), (void *)file + operations);
		if (fields[0] != cfg->map_file_operations)
			return NULL;
		return (struct bpf_map *)fields[2];
	}
	if ((__u64)BPF_CORE_READ(file, f_op) != cfg->map_file_operations)
		return NULL;
	return BPF_CORE_READ(file, private_data);
}

#endif
