/* SPDX-License-Identifier: MIT */
/*
 * What a tick does with the ring, without running any Python code: it stages submissions, enters, takes
 * the batch in, and checks the clocks.  Allocations hold the collector (iox_collector_hold()); references to
 * connections that have ended are dropped later (iox_driver_drop_ended()).
 */
#include "tick.h"

#include "buffers.h"
#include "clock.h"
#include "life.h"
#include "listeners.h"
#include "receive.h"
#include "reserve.h"
#include "retry.h"
#include "submit.h"
#include "table.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

/*
 * How long nothing is submitted after the kernel refused an enter with EAGAIN or EBUSY.  Without the delay an
 * idle reactor would retry at once, and use the processor time that the kernel needs to free memory.  A
 * completion ends the delay.
 */
#define REST_NS (10LL * 1000000LL)

/* Prepares all submissions; stops when the submission queue stays full. */
void iox_tick_stage(Driver *self)
{
	struct io_uring_sqe *sqe;

	iox_mailbox_do(&self->foreign);
	if (iox_list_linked(&self->watched))
		iox_recv_check_marks(self);
	if (self->marks_at && self->now >= self->marks_at)
		iox_recv_check_all_marks(self);
	iox_driver_provide(self);
	/*
	 * Starved receives are armed again, the oldest first, as many as there are free buffers.  Without a
	 * buffer they would fail at once, and the reactor would spin.  Free buffers are counted, not returned
	 * ones: otherwise an idle connection could take the only buffer that a busy one waits for.
	 */
	for (uint32_t free = self->shared ? self->shared->provided : 0; free && iox_list_linked(&self->starved); free--) {
		Connection *conn = IOX_ENTRY(self->starved.next, Connection, receive.starved);

		iox_recv_unpark(conn);
		self->counters.recv_rearms++;
		iox_want(conn, IOX_WANT_RECV);
	}
	if (!iox_listeners_arm(self))
		return;
	if (!self->wake_armed && (sqe = iox_driver_sqe(self))) {
		/* A read, not a poll: its completion has already emptied the eventfd. */
		io_uring_prep_read(sqe, self->wake_fd, &self->wake_value, sizeof(self->wake_value), 0);
		sqe->user_data = iox_user_data(IOX_KIND_WAKE, 0, 0);
		self->wake_armed = true;
	}
	if (self->poll_enabled && !self->poll_armed && (sqe = iox_driver_sqe(self))) {
		/* One shot, armed again each time: that makes it level-triggered. */
		io_uring_prep_poll_add(sqe, self->poll_fd, POLLIN);
		sqe->user_data = iox_user_data(IOX_KIND_POLL, 0, 0);
		self->poll_armed = true;
	}
	while (iox_list_linked(&self->staged)) {
		Connection *conn = IOX_ENTRY(self->staged.next, Connection, life.staged);

		if (!iox_conn_submit(conn))
			return;
		iox_list_remove(&conn->life.staged);
	}
}

static void on_recv(Driver *self, uint32_t generation, uint32_t slot, int res, unsigned flags)
{
	Connection *conn = iox_table_find(self, generation, slot);
	struct iox_group *group = conn ? conn->receive.group : self->shared;
	uint16_t bid = (uint16_t)(flags >> IOX_CQE_BUFFER_SHIFT);
	bool buffer = flags & IOX_CQE_F_BUFFER;

	if (buffer && group && (bid >= group->count || (!self->settings.recv_bundle && res > (int)group->size))) {
		self->counters.unknown_cqes++;
		return;
	}
	if (conn && iox_recv_in_kernel(conn)) {
		iox_conn_received(conn, res, flags);
		return;
	}
	self->counters.stale_cqes++;
	if (buffer && self->shared) {
		/* The connection is gone; its buffers are taken and given back. */
		for (uint32_t left = res > 0 ? (uint32_t)res : 0; left;) {
			uint32_t offset;
			uint16_t next;
			uint32_t step = iox_group_take(self->shared, bid, left, false, &offset, &next);

			if (!step)
				return;
			iox_driver_release(self, self->shared, bid);
			left -= step;
			bid = next;
		}
	}
}

void iox_tick_complete(Driver *self, uint64_t user_data, int res, unsigned flags)
{
	uint32_t generation = (user_data >> 32) & IOX_GENERATION_MASK, slot = (uint32_t)user_data;
	Connection *conn;

	if (res == -EFAULT)
		self->counters.memory_faults++;
	switch (user_data >> 56) {
	case IOX_KIND_RECV:
		on_recv(self, generation, slot, res, flags);
		return;
	case IOX_KIND_SEND:
		conn = iox_table_find(self, generation, slot);
		if (!conn || (flags & IOX_CQE_F_NOTIF ? !conn->send.notified.used && !conn->send.notification_due
						      : !conn->send.armed)) {
			self->counters.stale_cqes++;
			return;
		}
		iox_conn_sent(conn, res, flags);
		return;
	case IOX_KIND_ACCEPT:
		iox_listeners_complete(self, generation, slot, res, flags);
		return;
	case IOX_KIND_WAKE:
		/* Cleared before the queues are read that other threads append to. */
		self->wake_armed = false;
		if (res > 0) /* not cancelled at the end */
			self->counters.wake_cqes++;
		__atomic_exchange_n(&self->wake_pending, 0, __ATOMIC_SEQ_CST);
		return;
	case IOX_KIND_POLL:
		self->poll_armed = false;
		self->poll_ready = true;
		self->counters.poll_rearms++;
		return;
	case IOX_KIND_CANCEL:
		return; /* the cancelled operation has a completion of its own */
	default:
		self->counters.unknown_cqes++;
	}
}

/* Completes the silent SENDs that the kernel has consumed and that did not fail. */
void iox_tick_complete_silent(Driver *self)
{
	const struct io_uring_sq *sq = &self->ring->uring.sq;
	unsigned consumed = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);

	/* A failure may be among completions that were not taken in, or that did not fit into the queue. */
	if (iox_ring_ready(self->ring) || iox_ring_overflowed(self->ring))
		return;
	while (iox_list_linked(&self->silent)) {
		Connection *conn = IOX_ENTRY(self->silent.next, Connection, send.silent);

		if ((int)(consumed - conn->send.silent_end) < 0)
			break;
		iox_conn_sent(conn, (int)(conn->send.sending.used - conn->send.sent), 0);
	}
}

void iox_tick_reap(Driver *self)
{
	struct io_uring_cq *cq = &self->ring->uring.cq;
	unsigned head = self->ring->cq_head, tail = __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE);

	if (iox_ring_overflowed(self->ring))
		self->counters.cq_overflow_events++;
	self->counters.cqes += tail - head;
	if (self->ring->record)
		iox_record_completions(self->ring->record, &self->ring->uring, head, tail);
	for (; head != tail; head++) {
		const struct io_uring_cqe *cqe = &cq->cqes[head & cq->ring_mask];

		iox_tick_complete(self, cqe->user_data, cqe->res, cqe->flags);
	}
	iox_ring_taken(self->ring, head);
	iox_tick_complete_silent(self);
	if (self->shared)
		iox_group_batch(self->shared);
}

bool iox_tick_only_sends(const Driver *self)
{
	const struct io_uring_cq *cq = &self->ring->uring.cq;
	unsigned head = self->ring->cq_head, ready = iox_ring_ready(self->ring);

	for (unsigned i = 0; i < ready; i++)
		if (cq->cqes[(head + i) & cq->ring_mask].user_data >> 56 != IOX_KIND_SEND)
			return false;
	return ready;
}

static bool clock_due(Driver *self)
{
	return (iox_list_linked(&self->read_clocks) &&
		IOX_ENTRY(self->read_clocks.next, Connection, receive.clock)->receive.deadline <= self->now) ||
	       (iox_list_linked(&self->send_clocks) &&
		IOX_ENTRY(self->send_clocks.next, Connection, send.clock)->send.deadline <= self->now);
}

/* The most enters that collect completions before a clock is acted on. */
#define EXPIRE_ROUNDS 1024

void iox_tick_expire(Driver *self)
{
	/*
	 * One enter does not bring all completions: under DEFER_TASKRUN it runs some 64 of them (6.14 and
	 * newer), and an overflowed CQ gives the others later.  After a long step bytes that came in time may
	 * not have been taken in yet.  So no clock is acted on before the kernel has no completions left.
	 */
	for (int round = 0; clock_due(self); round++) {
		if (round == EXPIRE_ROUNDS)
			return; /* the next tick does not block, and goes on */
		if (iox_tick_enter(self, false, false, -1) < 0 || !iox_ring_ready(self->ring))
			break;
		iox_tick_reap(self);
	}
	while (iox_list_linked(&self->read_clocks)) {
		Connection *conn = IOX_ENTRY(self->read_clocks.next, Connection, receive.clock);

		if (conn->receive.deadline > self->now)
			break;
		/* Removed first: so the loop ends, whatever the abort does. */
		iox_list_remove(&conn->receive.clock);
		self->counters.read_timeouts++;
		iox_conn_abort(conn, IOX_CAUSE_READ_TIMEOUT, "nothing was received within read_timeout_ms");
	}
	while (iox_list_linked(&self->send_clocks)) {
		Connection *conn = IOX_ENTRY(self->send_clocks.next, Connection, send.clock);

		if (conn->send.deadline > self->now)
			break;
		iox_list_remove(&conn->send.clock);
		self->counters.send_timeouts++;
		iox_conn_abort(conn, IOX_CAUSE_SEND_TIMEOUT,
			       "the peer did not take what was sent within send_timeout_ms");
	}
	iox_listeners_expire(self);
	iox_retry_due(self);
	iox_driver_trim(self);
}

/* ms until the next clock runs out, or -1 when none runs. */
int64_t iox_tick_next_clock(Driver *self)
{
	uint64_t soonest = iox_listeners_soonest(self), trim = iox_driver_trim_at(self);

	soonest = trim < soonest ? trim : soonest;
	soonest = iox_retry_at(self) < soonest ? iox_retry_at(self) : soonest;
	soonest = self->marks_at && self->marks_at < soonest ? self->marks_at : soonest;
	if (iox_list_linked(&self->read_clocks)) {
		uint64_t at = IOX_ENTRY(self->read_clocks.next, Connection, receive.clock)->receive.deadline;

		soonest = at < soonest ? at : soonest;
	}
	if (iox_list_linked(&self->send_clocks)) {
		uint64_t at = IOX_ENTRY(self->send_clocks.next, Connection, send.clock)->send.deadline;

		soonest = at < soonest ? at : soonest;
	}
	if (soonest == UINT64_MAX)
		return -1;
	return soonest > self->now ? (int64_t)(soonest - self->now) : 0;
}

/*
 * A minimum wait, as two enters: the first one waits that long for min_wait_nr completions; if none came, the
 * second one (*twice) waits for the first completion.  The kernel can do both in one enter (6.12).  But some
 * kernels then wait until the timeout although a completion has come (6.12.43 to 6.17, IOX-ERR-007).  Others
 * return at once whenever completions stay in the queue, as they do here (6.18, iox_ring_taken(), IOX-ERR-008),
 * so that an idle reactor would never sleep.  No short experiment at start finds that on a busy machine.
 */
static int enter_twice(Driver *self, int64_t timeout_ns, bool *twice)
{
	int64_t minimum = (int64_t)self->settings.min_wait_us * 1000, began = iox_clock_ns();
	int ret;

	if (timeout_ns >= 0 && timeout_ns < minimum)
		minimum = timeout_ns;
	ret = iox_ring_enter(self->ring, self->settings.min_wait_nr, IOX_ENTER_GETEVENTS, minimum, 0);
	/* Refused, or interrupted: the handler of a signal must not wait for the second enter. */
	if ((ret < 0 && ret != -ETIME) || iox_ring_ready(self->ring) || iox_clock_ns() - began < minimum ||
	    minimum == timeout_ns)
		return ret;
	*twice = true;
	return iox_ring_enter(self->ring, 1, IOX_ENTER_GETEVENTS,
			      timeout_ns < 0 ? -1 : timeout_ns - minimum, 0);
}

int iox_tick_enter(Driver *self, bool block, bool idle, int64_t timeout_ns)
{
	uint64_t began = self->now;
	int ret, rested = 0;
	bool rest, twice = false;

	if (block && timeout_ns >= 0)
		self->counters.enters_timed++;
	self->counters.enters++;
	self->waiting = true;
	Py_BEGIN_ALLOW_THREADS
	ret = block && self->settings.min_wait_us ? enter_twice(self, timeout_ns, &twice)
					 : iox_ring_enter(self->ring, block, IOX_ENTER_GETEVENTS,
							  block ? timeout_ns : -1, 0);
	rest = idle && (ret == -EAGAIN || ret == -EBUSY);
	if (rest)
		rested = iox_ring_wait(self->ring, block && timeout_ns >= 0 && timeout_ns < REST_NS ?
							   timeout_ns : REST_NS);
	Py_END_ALLOW_THREADS
	self->waiting = false;
	self->counters.enters += rest + twice;
	self->counters.enters_timed += rest;
	self->now = iox_clock_ms();
	/*
	 * The kernel reports a signal or the timeout only where the queue is empty, which ours seldom is
	 * (iox_ring_taken()).  An enter that returned early, without a completion, was interrupted.
	 */
	if (ret == 0 && block && !iox_ring_ready(self->ring) &&
	    (timeout_ns < 0 || (int64_t)(self->now - began + 1) * 1000000 < timeout_ns))
		ret = -EINTR;
	if (ret == -EINTR)
		iox_recv_interrupted(self);
	if (ret == -EINTR)
		self->counters.enter_eintr++;
	else if (ret == -EAGAIN)
		self->counters.enter_eagain++;
	else if (ret == -EBUSY)
		self->counters.enter_ebusy++;
	else if (ret < 0 && ret != -ETIME)
		return ret;
	return rested < 0 && rested != -ETIME && rested != -EINTR ? rested : 0;
}

/* Whether there is work that was left by the last tick, or queued since. */
bool iox_tick_has_work(Driver *self)
{
	return self->woken_locally || iox_list_linked(&self->home.ready) || iox_list_linked(&self->next) ||
	       iox_list_linked(&self->starting) || self->accepts_failed || self->poll_ready ||
	       iox_ring_ready(self->ring) ||
	       (iox_list_linked(&self->starved) && iox_group_free(self->shared));
}
