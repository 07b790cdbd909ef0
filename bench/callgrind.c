/* SPDX-License-Identifier: MIT */
/*
 * Callgrind's client requests, for ctypes.  They cost a few instructions and nothing outside valgrind;
 * callgrind_control(1) does the same from outside, but needs ptrace(2).
 */
#include <valgrind/callgrind.h>

int running_on_valgrind(void)
{
	return RUNNING_ON_VALGRIND;
}

/* Until this is called with --instr-atstart=no, valgrind counts nothing and is five times as fast. */
void start_counting(void)
{
	CALLGRIND_START_INSTRUMENTATION;
}

/* Writes the counts to the next file, named in it, and begins again at zero. */
void dump_counts(const char *name)
{
	CALLGRIND_DUMP_STATS_AT(name);
}
