/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Everything that crosses between kernel and user space. Mirrored in layout.rs; both sides assert the sizes. */
#ifndef MAPLATENCY_LAYOUT_H
#define MAPLATENCY_LAYOUT_H

#include <linux/types.h>

#define MAX_PROBES 32
/* Patterns of commands, per probe and list. */
#define MAX_GLOBS 8
#define BLOCK_BUCKETS 64
/* Blocks that there is room for, and how many of them only callers without a number of their own may begin. */
#define MAX_BLOCKS 8192
#define RESERVED_BLOCKS 1024
/* Callers that can be told apart at once, number 0 included, which stands for all the others. */
#define MAX_CALLERS 1024
#define OTHER_CALLERS 0
/* Levels of a caller's cgroup that are told, from its own upwards, and room for the name of each. */
#define CGROUP_LEVELS 4
#define CGROUP_NAME 96
/* Bytes of the ring buffer of outliers. */
#define OUTLIER_BYTES (256 * 1024)
/* Bytes of the ring buffer of single operations, which is there only while a probe wants them. */
#define OPERATION_BYTES (4 * 1024 * 1024)
/* Maps and operations that can have a threshold of their own. */
#define MAX_THRESHOLDS 1024
/* Matched maps, of all probes together. */
#define MAX_TARGETS 16384
/* Maps that user space has not listed yet, of which operations are counted. */
#define MAX_NEWCOMERS 1024

/* What a thread of the agent does; others are ROLE_NONE. */
enum role {
	ROLE_NONE = 0,
	/* Reads on a schedule; recorded apart from callers. */
	ROLE_READER = 1,
	/* Checks that the hooks fire. */
	ROLE_CHECK = 2,
};

/* Why an operation that was seen is not in a histogram. */
enum loss {
	/* No task storage at the entry: out of memory, or the task is exiting. */
	LOSS_STORAGE = 0,
	/* The page with the caller's attributes was not resident at the exit. */
	LOSS_ATTRIBUTES = 1,
	/* No memory or no room for another block of buckets. */
	LOSS_BLOCKS = 2,
	/* The task died before it was back in user mode. */
	LOSS_DIED = 3,
	/* A hook did not run where it should have: the last call of the task was still open, or a switch was not seen. */
	LOSS_HOOK = 4,
	/* The caller is in a pid namespace that the agent does not see into. */
	LOSS_NAMESPACE = 5,
	/* The caller's descriptor no longer stood for a map at the exit. */
	LOSS_CLOSED = 6,
	LOSS_KINDS = 7,
};

/* How a call ended; core/src/vocabulary.rs says what each means. */
enum outcome {
	OUTCOME_SUCCESS = 0,
	OUTCOME_NOT_FOUND = 1,
	OUTCOME_FULL = 2,
	OUTCOME_EXISTS = 3,
	OUTCOME_BUSY = 4,
	OUTCOME_NO_MEMORY = 5,
	OUTCOME_INVALID = 6,
	OUTCOME_DENIED = 7,
	OUTCOME_OTHER = 8,
};

struct config {
	/* struct file_operations of maps, learnt from a map of the agent's own. */
	__u64 map_file_operations;
	/* Calls and switches seen of a thread with ROLE_CHECK. */
	__u64 checked_calls;
	__u64 checked_switches;
	/* The agent's own pid namespace, and how deep it lies. */
	__u64 pid_namespace;
	__u32 pid_level;
	/* Rises with every drain: when something was counted is told apart by it. */
	__u32 slice;
	/* The agent's process in the kernel's own numbering, whatever its pid namespace. */
	__u32 own_tgid;
	/* Commands that any probe wants, a bit each. */
	__u32 commands;
	/* Probes that select callers. */
	__u32 filtered_probes;
	/* Changes with every change of what is wanted, and when blocks are let go: what tasks remember ends with it. */
	__u32 generation;
	/* Changes when callers lose their numbers. */
	__u32 callers_generation;
	/* Probes that want outliers. */
	__u32 outlier_probes;
	/* The highest id of a map that user space knows of; those above are newcomers. Ids rise until they wrap. */
	__u32 newest_map;
	/* Probes that select maps by what a newcomer tells of itself, a bit each. */
	__u32 newcomer_probes;
	/* One operation in so many is looked at, a power of two: the smallest that any probe asks for. */
	__u32 sampling;
	/* Not 0: callers get no numbers. */
	__u32 coarser_callers;
	/* How many slow operations each probe may tell in a slice, whatever it asks for. */
	__u32 outliers_per_second;
	/* Not 0: single operations are not handed over, but counted as missed. */
	__u32 hold_back;
};

/* A matched map, by id. */
struct target {
	/* Probes that want it, a bit each. */
	__u32 probes;
};

/* A map that had operations before user space listed it. It may be gone when user space asks. */
struct newcomer {
	__u32 map_type;
	char name[16];
};

/* The beginning of a record about a process that holds a map open. CGROUP_LEVELS names follow. */
struct holder {
	__u32 map_id;
	/* In the agent's pid namespace. */
	__u32 pid;
	char command[16];
};

struct probe {
	/* Operations that began earlier are not its own. */
	__u64 since_ns;
	/* Never given twice, so that what an old probe counted is not taken for a new one's. */
	__u32 instance;
	/* bpf(2) commands, a bit each. */
	__u32 commands;
	/* How many patterns of each list are in use. */
	__u32 includes;
	__u32 excludes;
	/* From how long on an operation is told as an outlier, where no threshold says otherwise; 0: none is. */
	__u64 outlier_ns;
	/* How many of them may be told in a slice. */
	__u32 outliers_per_slice;
	/* One operation in so many counts, for all of them; a power of two. */
	__u32 sampling;
	/* Not 0: every operation that is counted is handed over, too. */
	__u32 hands_over;
	__u32 unused;
};

/* The automaton of one pattern; core/src/glob.rs builds it. */
struct glob {
	__u32 accepts[256];
	__u32 skips;
	__u32 accepting;
};

/* Set in `instance` for reads by the agent's own readers. */
#define INSTANCE_READER 0x80000000u

struct block_key {
	__u32 map_id;
	__u32 instance;
	__u16 cpu;
	/* Index in `callers`. */
	__u16 caller;
	__u8 command;
	__u8 outcome;
	__u8 block;
	__u8 unused;
};

/* When the operations of one slice began and ended that were counted in a block. */
struct span {
	__u64 first_begin_ns;
	__u64 last_end_ns;
};

/* 64 buckets of both latencies. Counts wrap; the reader takes differences. */
struct block {
	__u32 kernel_window[BLOCK_BUCKETS];
	__u32 until_user[BLOCK_BUCKETS];
	/* Elements that batches moved. Of operations that are counted in `until_user` here, as is all below. */
	__u64 entries;
	/* Of the current slice and of the last one; which of them is told by the lowest bit of its number. */
	struct span spans[2];
	__u32 slices[2];
	/* Operations that ended on another CPU. */
	__u32 moved;
	/* Operations that should have been handed over and were not. */
	__u32 missed;
};

/* A process, between two calls of execve(2). */
struct caller_key {
	__u64 start_ns;
	__u64 exec_id;
	__u32 tgid;
	__u32 unused;
};

/* Who that is. */
struct caller {
	/* When the process began, on the clock that runs on in suspend. */
	__u64 start_ns;
	/* The memory controller's cgroup, as kernfs numbers it; 0: there is none. */
	__u64 cgroup_id;
	/* In the agent's pid namespace. */
	__u32 pid;
	__u32 unused;
	char command[16];
	/* Its name, and those above it; empty at the root. */
	char cgroup[CGROUP_LEVELS][CGROUP_NAME];
};

struct threshold_key {
	__u32 map_id;
	__u32 instance;
	/* bpf(2) command. */
	__u32 command;
};

/* Of a probe's outliers, by its slot. */
struct outlier_counts {
	__u64 told;
	__u64 held_back;
	/* There was no room in the ring buffer. */
	__u64 ring_full;
	/* How many were told in which slice. */
	__u32 slice;
	__u32 in_slice;
};

/* One slow operation. */
struct outlier {
	__u64 begin_ns;
	__u64 kernel_window_ns;
	__u64 until_user_ns;
	/* Switched out, for whatever reason; of that it was ready to run for run_delay_ns. */
	__u64 off_cpu_ns;
	__u64 run_delay_ns;
	/* How long the one ran at a stretch, meanwhile, who did so longest; 0: it was not seen. */
	__u64 instead_ns;
	__u64 cgroup_id;
	__u32 map_id;
	__u32 instance;
	__u32 key_size;
	__u32 entries;
	/* As the agent's pid namespace has them. */
	__u32 pid;
	__u32 tid;
	__u32 voluntary_switches;
	__u32 involuntary_switches;
	__u32 migrations;
	__u32 minor_faults;
	__u32 major_faults;
	/* 0: idle, or outside the agent's pid namespace. */
	__u32 instead_pid;
	/* At the entry, and back in user mode. */
	__u16 cpu;
	__u16 cpu_after;
	/* Index in `callers`. */
	__u16 caller;
	__u8 command_number;
	__u8 outcome;
	/* The thread's, and that of the one that ran instead. */
	char command[16];
	char instead_command[16];
};

/* One operation that is handed over. */
struct operation {
	__u64 begin_ns;
	__u64 kernel_window_ns;
	__u64 until_user_ns;
	__u32 map_id;
	__u32 instance;
	/* As the agent's pid namespace has it. */
	__u32 pid;
	/* At the entry. */
	__u16 cpu;
	__u8 command;
	__u8 outcome;
};

_Static_assert(sizeof(struct config) == 88, "layout.rs asserts the same size");
_Static_assert(sizeof(struct target) == 4, "layout.rs asserts the same size");
_Static_assert(sizeof(struct newcomer) == 20, "layout.rs asserts the same size");
_Static_assert(sizeof(struct holder) == 24, "layout.rs asserts the same size");
_Static_assert(sizeof(struct probe) == 48, "layout.rs asserts the same size");
_Static_assert(sizeof(struct glob) == 1032, "layout.rs asserts the same size");
_Static_assert(sizeof(struct block_key) == 16, "layout.rs asserts the same size");
_Static_assert(sizeof(struct block) == 568, "layout.rs asserts the same size");
_Static_assert(sizeof(struct caller_key) == 24, "layout.rs asserts the same size");
_Static_assert(sizeof(struct caller) == 424, "layout.rs asserts the same size");
_Static_assert(sizeof(struct threshold_key) == 12, "layout.rs asserts the same size");
_Static_assert(sizeof(struct outlier_counts) == 32, "layout.rs asserts the same size");
_Static_assert(sizeof(struct outlier) == 144, "layout.rs asserts the same size");
_Static_assert(sizeof(struct operation) == 40, "layout.rs asserts the same size");

#endif
