/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Everything that crosses between kernel and user space. Mirrored in layout.rs; both sides assert the sizes. */
#ifndef MAPLATENCY_LAYOUT_H
#define MAPLATENCY_LAYOUT_H

#include <linux/types.h>

#define MAX_PROBES 32
/* Patterns of commands, per probe and list. */
#define MAX_GLOBS 8
#define BLOCK_BUCKETS 64
/* Blocks that there is room for. */
#define MAX_BLOCKS 8192

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
	/* A call began while the last one of the same task was still open: a hook did not run in between. */
	LOSS_HOOK = 4,
	LOSS_KINDS = 5,
};

struct config {
	/* struct file_operations of maps, learnt from a map of the agent's own. */
	__u64 map_file_operations;
	/* Calls and switches seen of a thread with ROLE_CHECK. */
	__u64 checked_calls;
	__u64 checked_switches;
	/* The agent's process in the kernel's own numbering, whatever its pid namespace. */
	__u32 own_tgid;
	/* Commands that any probe wants, a bit each. */
	__u32 commands;
	/* Probes that select callers. */
	__u32 filtered_probes;
	/* Changes with every change of what is wanted, and when blocks are let go: what tasks remember ends with it. */
	__u32 generation;
};

/* A matched map, by id. */
struct target {
	/* Probes that want it, a bit each. */
	__u32 probes;
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
	__u8 command;
	__u8 block;
};

/* 64 buckets of both latencies. Counts wrap; the reader takes differences. */
struct block {
	__u32 kernel_window[BLOCK_BUCKETS];
	__u32 until_user[BLOCK_BUCKETS];
};

_Static_assert(sizeof(struct config) == 40, "layout.rs asserts the same size");
_Static_assert(sizeof(struct target) == 4, "layout.rs asserts the same size");
_Static_assert(sizeof(struct probe) == 24, "layout.rs asserts the same size");
_Static_assert(sizeof(struct glob) == 1032, "layout.rs asserts the same size");
_Static_assert(sizeof(struct block_key) == 12, "layout.rs asserts the same size");
_Static_assert(sizeof(struct block) == 512, "layout.rs asserts the same size");

#endif
