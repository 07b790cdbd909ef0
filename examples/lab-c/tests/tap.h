/* SPDX-License-Identifier: MIT */
/* As much of TAP as a test needs. A program says how many tests it has before the first of them, so
 * that one which ends early does not look as if it had passed. */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static int tap_count, tap_failed;

static inline void plan(int tests)
{
	setvbuf(stdout, NULL, _IOLBF, 0); /* what was said is not lost in a crash */
	printf("TAP version 14\n1..%d\n", tests);
}

__attribute__((format(printf, 2, 3))) static inline int ok(int good, const char *what, ...)
{
	va_list words;

	printf("%sok %d - ", good ? "" : "not ", ++tap_count);
	va_start(words, what);
	vprintf(what, words);
	va_end(words);
	putchar('\n');
	tap_failed += !good;
	return good;
}

__attribute__((noreturn)) static inline void skip_all(const char *why)
{
	printf("TAP version 14\n1..0 # SKIP %s\n", why);
	exit(0);
}

static inline int done(void)
{
	return tap_failed != 0;
}
