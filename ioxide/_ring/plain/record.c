/* SPDX-License-Identifier: MIT */
#include "record.h"

#include "clock.h"

#include <stdlib.h>

struct iox_record *iox_record_new(const struct io_uring *ring)
{
	struct iox_record *record = calloc(1, sizeof(*record));

	_Static_assert(sizeof(struct iox_record_entry) == 32, "_common/record.py reads entries of 32 bytes");
	if (record)
		record->submitted = ring->sq.sqe_tail;
	return record;
}

static struct iox_record_entry *next_entry(struct iox_record *record)
{
	return &record->entries[record->count++ & (IOX_RECORD_ENTRIES - 1)];
}

void iox_record_submissions(struct iox_record *record, const struct io_uring *ring)
{
	unsigned tail = ring->sq.sqe_tail;
	int64_t now;

	if (record->submitted == tail)
		return;
	now = iox_clock_ns();
	for (; record->submitted != tail; record->submitted++) {
		const struct io_uring_sqe *sqe = &ring->sq.sqes[record->submitted & ring->sq.ring_mask];

		*next_entry(record) = (struct iox_record_entry){
			.at = now,
			.user_data = sqe->user_data,
			.result = sqe->fd,
			.flags = sqe->len,
			.ioprio = sqe->ioprio,
			.what = IOX_RECORD_SUBMISSION,
			.opcode = sqe->opcode,
			.sqe_flags = sqe->flags,
		};
	}
}

void iox_record_completions(struct iox_record *record, const struct io_uring *ring, unsigned head,
			    unsigned tail)
{
	int64_t now = head == tail ? 0 : iox_clock_ns();

	for (; head != tail; head++) {
		const struct io_uring_cqe *cqe = &ring->cq.cqes[head & ring->cq.ring_mask];

		*next_entry(record) = (struct iox_record_entry){
			.at = now,
			.user_data = cqe->user_data,
			.result = cqe->res,
			.flags = cqe->flags,
			.what = IOX_RECORD_COMPLETION,
		};
	}
}
