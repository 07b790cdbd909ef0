/* SPDX-License-Identifier: MIT */
/*
 * A flight recorder: the last submissions and completions of a ring, in memory, to be read after a fault.
 * Plain C: knows neither Python nor connections.
 *
 * They are recorded a batch at a time, with one read of the clock.  A ring without a record pays a branch for each
 * enter and each batch.
 */
#ifndef IOX_RECORD_H
#define IOX_RECORD_H

#include <liburing.h>
#include <stdint.h>

#define IOX_RECORD_ENTRIES 4096 /* a power of two */

enum iox_record_what { IOX_RECORD_SUBMISSION = 1, IOX_RECORD_COMPLETION = 2 };

/* 32 bytes, in the machine's byte order; ioxide/_common/record.py reads them. */
struct iox_record_entry {
	int64_t at;          /* ns, CLOCK_MONOTONIC: when its batch was submitted, or taken in */
	uint64_t user_data;
	int32_t result;      /* completion: its res; submission: the descriptor */
	uint32_t flags;      /* completion: IORING_CQE_F_*; submission: the length, in bytes */
	uint16_t ioprio;     /* submission: flags of its opcode */
	uint8_t what;        /* enum iox_record_what */
	uint8_t opcode;      /* submission */
	uint32_t sqe_flags;  /* submission: IOSQE_* */
};

struct iox_record {
	uint64_t count;      /* of entries that were ever noted */
	unsigned submitted;  /* tail of the submission queue, up to which it was noted */
	struct iox_record_entry entries[IOX_RECORD_ENTRIES];
};

/* NULL: no memory. */
struct iox_record *iox_record_new(const struct io_uring *ring);
/* What was queued since the last call; before the enter that submits it. */
void iox_record_submissions(struct iox_record *record, const struct io_uring *ring);
/* The completions from `head` up to `tail`. */
void iox_record_completions(struct iox_record *record, const struct io_uring *ring, unsigned head,
			    unsigned tail);

#endif
