/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few fields of kernel structures that the probes read. Offsets come from the running kernel's BTF (CO-RE),
 * so a declaration names fields and says nothing about where they lie.
 */
#ifndef MAPLATENCY_KERNEL_H
#define MAPLATENCY_KERNEL_H

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct bpf_map {
	__u32 id;
	enum bpf_map_type map_type;
	__u32 key_size;
	char name[16];
};

struct file_operations;

struct file {
	const struct file_operations *f_op;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct sched_info {
	unsigned long long run_delay;
};

struct sched_entity {
	__u64 nr_migrations;
};

struct pid_namespace;

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct kernfs_node {
	const char *name;
	struct kernfs_node *parent;
	__u64 id;
};

/* From 6.15 on. */
struct kernfs_node___renamed {
	struct kernfs_node *__parent;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

enum cgroup_subsys_id {
	memory_cgrp_id,
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
};

struct task_struct {
	unsigned int __state;
	int tgid;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct css_set *cgroups;
	__u64 start_boottime;
	__u64 self_exec_id;
	char comm[16];
	struct files_struct *files;
	struct sched_info sched_info;
	struct sched_entity se;
	unsigned long nvcsw;
	unsigned long nivcsw;
	unsigned long min_flt;
	unsigned long maj_flt;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long ax;
	unsigned long di;
	unsigned long si;
	unsigned long dx;
	unsigned long cs;
	unsigned long orig_ax;
};
#elif defined(__TARGET_ARCH_arm64)
/* What user space calls pt_regs is user_pt_regs in the kernel; bpf_tracing.h knows both. */
struct user_pt_regs {
	__u64 regs[31];
};
struct pt_regs___call {
	__u64 regs[31];
	__u64 pstate;
	int syscallno;
};
#else
#error "maplatency knows the system call's place in pt_regs on x86_64 and arm64 only"
#endif

#pragma clang attribute pop

/* include/linux/sched.h; the same since 4.14. */
#define TASK_DEAD 0x80

/* The number of bpf(2), from the architecture's table. */
#if defined(__TARGET_ARCH_x86)
#define SYSCALL_BPF 321
#else
#define SYSCALL_BPF 280
#endif

#if defined(__TARGET_ARCH_x86)
#define call_number(regs) ((regs)->orig_ax)
#define call_argument(regs, index) \
	((index) == 0 ? (regs)->di : (index) == 1 ? (regs)->si : (regs)->dx)
/* Not by the 32-bit entries, whose numbers mean other calls: arch/x86/include/asm/segment.h, __USER_CS. */
#define is_native(regs) ((regs)->cs == 0x33)
#else
#define call_number(regs) (((struct pt_regs___call *)(regs))->syscallno)
#define call_argument(regs, index) (((struct pt_regs___call *)(regs))->regs[index])
/* arch/arm64/include/uapi/asm/ptrace.h, PSR_MODE32_BIT */
#define is_native(regs) (!(((struct pt_regs___call *)(regs))->pstate & 0x10))
#endif

/* A helper of 6.2, under a name that no header has. */
enum bpf_func_id___of_6_2 {
	BPF_FUNC_cgrp_storage_get___of_6_2,
};

/*
 * Whether a program may not find the storage of a task that has some. Before 6.2 that is so while another program was preempted
 * on that CPU as it looked for one (kernel/bpf/bpf_task_storage.c). The helper came with the remedy.
 */
static __always_inline bool may_miss_storage(void)
{
	return !bpf_core_enum_value_exists(enum bpf_func_id___of_6_2, BPF_FUNC_cgrp_storage_get___of_6_2);
}

/*
 * Whether the task is on its way back from bpf(2): it entered the kernel by it, has its result, in whose place x86 puts
 * -ENOSYS before, and has not been in user mode since. An interrupt from user mode overwrites the saved number with -1.
 *
 * Where the exit hook runs before the result is there (RESULT_AFTER_EXIT), and on arm64, which does not mark the time
 * before, a task that is preempted at the very beginning of its next bpf(2) counts as on its way back, too.
 */
static __always_inline bool is_returning_from_bpf(struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

#if defined(__TARGET_ARCH_x86) && defined(RESULT_AFTER_EXIT)
	return BPF_CORE_READ(regs, orig_ax) == SYSCALL_BPF;
#elif defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(regs, orig_ax) == SYSCALL_BPF &&
	       (long)BPF_CORE_READ(regs, ax) != -ENOSYS;
#else
	return BPF_CORE_READ((struct pt_regs___call *)regs, syscallno) == SYSCALL_BPF;
#endif
}

#endif
