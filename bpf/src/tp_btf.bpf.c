/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The TpBtf tier: the raw tracepoints of all system calls, without perf's share in them. A bpf(2) call costs less than
 * in the tracepoint tier, and every other system call more.
 */
#include "operation.h"

SEC("tp_btf/sys_enter")
int BPF_PROG(enter_bpf, struct pt_regs *regs, long number)
{
	if (number != SYSCALL_BPF || !is_native(regs))
		return 0;
	return enter_call(call_argument(regs, 0), call_argument(regs, 1), call_argument(regs, 2));
}

SEC("tp_btf/sys_exit")
int BPF_PROG(exit_bpf, struct pt_regs *regs, long result)
{
	if (call_number(regs) != SYSCALL_BPF || !is_native(regs))
		return 0;
	return exit_call(result);
}
