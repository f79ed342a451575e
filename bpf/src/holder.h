/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which processes hold maps open. User space runs it on demand, and only where a probe asks for it. */
#ifndef MAPLATENCY_HOLDER_H
#define MAPLATENCY_HOLDER_H

#include "caller.h"
#include "maps.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

/* From 5.8 on. */
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct file *file;
};

#pragma clang attribute pop

/* Writes a record for each descriptor of a map: `struct holder`, and the names of the cgroup as `struct caller` has them. */
SEC("iter/task_file")
int list_holders(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct seq_file *seq = ctx->meta->seq;
	struct config *cfg = configuration();
	struct file *file = ctx->file;
	struct holder holder = {};
	struct kernfs_node *node;
	struct task_struct *leader;
	struct bpf_map *map;

	if (!task || !file || !cfg)
		return 0;
	map = map_behind(file, cfg);
	if (!map || (__u32)task->tgid == cfg->own_tgid)
		return 0;
	holder.map_id = BPF_CORE_READ(map, id);
	leader = task->group_leader;
	holder.pid = visible_pid(leader, cfg);
	if (!holder.pid)
		return 0;
	bpf_core_read_str(holder.command, sizeof(holder.command), &leader->comm);
	/* Where one part finds no room, the kernel takes the whole record back and begins with it next time. */
	bpf_seq_write(seq, &holder, sizeof(holder));
	node = cgroup_of(leader);
	for (int i = 0; i < CGROUP_LEVELS; i++) {
		char name[CGROUP_NAME] = {};

		if (node) {
			bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(node, name));
			node = parent_of(node);
		}
		bpf_seq_write(seq, name, sizeof(name));
	}
	return 0;
}

#endif
