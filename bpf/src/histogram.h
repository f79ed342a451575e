/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The bucket of a latency; core/src/histogram.rs defines the same, and a test compares the two. */
#ifndef MAPLATENCY_HISTOGRAM_H
#define MAPLATENCY_HISTOGRAM_H

#include <linux/types.h>

#define EXACT_BITS 7
#define SUB_BITS 6
#define OVERFLOW_BITS 34
#define OVERFLOW_BUCKET 1856

static inline __u32 octave_of(__u64 value)
{
	__u32 octave = 0;

	if (value >> 32) { octave += 32; value >>= 32; }
	if (value >> 16) { octave += 16; value >>= 16; }
	if (value >> 8) { octave += 8; value >>= 8; }
	if (value >> 4) { octave += 4; value >>= 4; }
	if (value >> 2) { octave += 2; value >>= 2; }
	return octave + (value >> 1);
}

/* A global function: the verifier walks its branches once and takes any number for its answer. */
__attribute__((noinline)) __u32 bucket_of(__u64 nanoseconds)
{
	if (nanoseconds < 1ull << EXACT_BITS)
		return nanoseconds;
	if (nanoseconds >> OVERFLOW_BITS)
		return OVERFLOW_BUCKET;

	__u32 octave = octave_of(nanoseconds);
	__u32 sub = (nanoseconds >> (octave - SUB_BITS)) & ((1u << SUB_BITS) - 1);

	return (octave - EXACT_BITS + 2) * (1u << SUB_BITS) + sub;
}

#endif
