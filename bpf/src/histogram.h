/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The bucket of a latency; core/src/histogram.rs defines the same, and a test compares the two. */
#ifndef MAPLATENCY_HISTOGRAM_H
#define MAPLATENCY_HISTOGRAM_H

#include <linux/types.h>

#define EXACT_BITS 7
#define SUB_BITS 6
#define OVERFLOW_BITS 34
#define OVERFLOW_BUCKET 1856

/*
 * The position of the highest bit, by a perfect hash of the 64 values that have all bits below their highest one set:
 * the top six bits of their product with a de Bruijn sequence are all different. BPF cannot count leading zeros, and
 * this way the verifier meets no branch.
 */
#define DE_BRUIJN 0x03f79d71b4cb0a89ull

static const __u8 highest_bit[64] = {
	0,  47, 1,  56, 48, 27, 2,  60, 57, 49, 41, 37, 28, 16, 3,  61, 54, 58, 35, 52, 50, 42,
	21, 44, 38, 32, 29, 23, 17, 11, 4,  62, 46, 55, 26, 59, 40, 36, 15, 53, 34, 51, 20, 43,
	31, 22, 10, 45, 25, 39, 14, 33, 19, 30, 9,  24, 13, 18, 8,  12, 7,  6,  5,  63,
};

static __attribute__((always_inline)) inline __u32 octave_of(__u64 value)
{
	value |= value >> 1;
	value |= value >> 2;
	value |= value >> 4;
	value |= value >> 8;
	value |= value >> 16;
	value |= value >> 32;
	return highest_bit[value * DE_BRUIJN >> 58];
}

static __attribute__((always_inline)) inline __u32 bucket_of(__u64 nanoseconds)
{
	__u32 octave, sub;

	if (nanoseconds < 1ull << EXACT_BITS)
		return nanoseconds;
	if (nanoseconds >> OVERFLOW_BITS)
		return OVERFLOW_BUCKET;
	octave = octave_of(nanoseconds);
	sub = (nanoseconds >> (octave - SUB_BITS)) & ((1u << SUB_BITS) - 1);
	return (octave - EXACT_BITS + 2) * (1u << SUB_BITS) + sub;
}

#endif
