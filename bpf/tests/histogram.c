/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Prints the bucket of every number on standard input, by the code that runs in the kernel. */
#include <stdio.h>

#include "../src/histogram.h"

int main(void)
{
	unsigned long long value;

	while (scanf("%llu", &value) == 1)
		printf("%u\n", bucket_of(value));
	return 0;
}
