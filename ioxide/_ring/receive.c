/* SPDX-License-Identifier: MIT */
/*
 * The receiving half of a connection: a queue of received runs, one reader, and when the multishot
 * receive is armed, paused, starved or ended.
 *
 * Bytes stay in the queue until the await that asked for them returns, so a cancelled read loses
 * none.  A full queue pauses the receive; it never closes the connection.
 */
#include "receive.h"

#include "buffers.h"
#include "clocks.h"
#include "driver_state.h"
#include "errors.h"
#include "modes.h"
#include "notify.h"
#include "retry.h"
#include "slice.h"
#include "sockets.h"
#include "submit.h"
#include "wake.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

static bool chunk_push(Connection *conn, struct iox_chunk chunk)
{
	if (conn->receive.chunk_count == conn->receive.chunk_capacity) {
		uint32_t capacity = conn->receive.chunk_capacity * 2;
		struct iox_chunk *chunks = PyMem_Malloc(capacity * sizeof(*chunks));

		if (!chunks)
			return false;
		for (uint32_t i = 0; i < conn->receive.chunk_count; i++)
			chunks[i] = conn->receive.chunks[(conn->receive.chunk_head + i) & (conn->receive.chunk_capacity - 1)];
		if (conn->receive.chunks != conn->receive.inline_chunks)
			PyMem_Free(conn->receive.chunks);
		conn->receive.chunks = chunks;
		conn->receive.chunk_capacity = capacity;
		conn->receive.chunk_head = 0;
	}
	conn->receive.chunks[(conn->receive.chunk_head + conn->receive.chunk_count++) & (conn->receive.chunk_capacity - 1)] = chunk;
	conn->receive.queued_bytes += chunk.length;
	return true;
}

static struct iox_chunk *chunk_at(Connection *conn, uint32_t index)
{
	return &conn->receive.chunks[(conn->receive.chunk_head + index) & (conn->receive.chunk_capacity - 1)];
}

static struct iox_chunk *chunk_first(Connection *conn)
{
	return &conn->receive.chunks[conn->receive.chunk_head];
}

static const char *chunk_bytes(const Connection *conn, const struct iox_chunk *chunk)
{
	return (chunk->memory ? chunk->memory : iox_group_buffer(conn->receive.group, chunk->bid)) + chunk->offset;
}

static bool queue_full(const Connection *conn)
{
	return conn->receive.chunk_count >= conn->driver->settings.recv_queue_entries ||
	       conn->receive.queued_bytes >= conn->driver->settings.recv_queue_bytes;
}

void iox_recv_cancel(Connection *conn)
{
	iox_receive_set(conn, IOX_RECEIVE_CANCELLING);
	iox_want(conn, IOX_WANT_CANCEL);
}

void iox_recv_unpark(Connection *conn)
{
	iox_receive_set(conn, IOX_RECEIVE_IDLE);
	iox_list_remove(&conn->receive.starved); /* in incremental mode it is in none */
}

void iox_recv_unpause(Connection *conn)
{
	if (conn->receive.chunk_count || !conn->receive.paused || conn->receive.ended ||
	    conn->life.state == IOX_LIFE_GONE)
		return;
	conn->receive.paused = false;
	if (conn->receive.state == IOX_RECEIVE_STARVED)
		return; /* it is armed when there is a buffer */
	if (conn->receive.state == IOX_RECEIVE_CANCELLING && conn->life.want & IOX_WANT_CANCEL &&
	    !conn->receive.held && !iox_conn_over(conn)) {
		/* Read within the tick that filled it: nothing was submitted. */
		conn->life.want &= ~IOX_WANT_CANCEL;
		iox_receive_set(conn, IOX_RECEIVE_ARMED);
		return;
	}
	iox_want(conn, IOX_WANT_RECV);
}

static void run_unpause(const struct iox_op *op)
{
	iox_recv_unpause(op->conn);
}

/* Removes the first run; the caller gives its buffer or its memory back. */
static void chunk_pop(Connection *conn)
{
	conn->receive.queued_bytes -= chunk_first(conn)->length;
	conn->receive.chunk_head = (conn->receive.chunk_head + 1) & (conn->receive.chunk_capacity - 1);
	if (--conn->receive.chunk_count || !conn->receive.paused)
		return;
	if (iox_modes_on_worker(conn->driver)) {
		if (iox_driver_queue(conn->driver, (struct iox_op){ .run = run_unpause, .conn = conn }))
			return;
		/* No memory to queue it: the GIL is held, so it can be done here, too. */
	}
	iox_recv_unpause(conn);
}

/* Gives the memory or the buffer of a run that was read back; on any thread. */
static inline void give_back(Connection *conn, char *memory, uint32_t bytes, uint16_t bid)
{
	if (memory) {
		iox_driver_copy_free(conn->driver, memory, bytes);
	} else if (iox_modes_on_worker(conn->driver)) {
		conn->receive.group->refs++;
		iox_driver_release_slice(conn->driver, conn->receive.group, bid);
	} else {
		iox_driver_release(conn->driver, conn->receive.group, bid);
	}
}

void iox_recv_discard(Connection *conn)
{
	while (conn->receive.chunk_count) {
		struct iox_chunk chunk = *chunk_first(conn);

		conn->driver->counters.bytes_unread += chunk.length;
		chunk_pop(conn);
		give_back(conn, chunk.memory, chunk.offset + chunk.length, chunk.bid);
	}
}

/* The most bytes that are copied into one block of memory; the length of a run has 32 bits. */
#define COPY_LIMIT ((size_t)1 << 30)

bool iox_recv_copy_out(Connection *conn)
{
	Driver *driver = conn->driver;
	uint32_t first = 0, last;
	size_t total = 0;
	char *memory;

	while (first < conn->receive.chunk_count && chunk_at(conn, first)->memory)
		first++;
	for (last = first; last < conn->receive.chunk_count; last++) {
		if (total && total + chunk_at(conn, last)->length > COPY_LIMIT)
			break;
		total += chunk_at(conn, last)->length;
	}
	if (!total)
		return true;
	memory = iox_driver_copy_new(driver, total);
	if (!memory)
		return false;
	total = 0;
	for (uint32_t i = first; i < last; i++) {
		struct iox_chunk *chunk = chunk_at(conn, i);

		memcpy(memory + total, chunk_bytes(conn, chunk), chunk->length);
		total += chunk->length;
		iox_driver_release(driver, conn->receive.group, chunk->bid);
	}
	driver->counters.recv_copies += last - first;
	*chunk_at(conn, first) = (struct iox_chunk){ .length = (uint32_t)total, .memory = memory };
	for (uint32_t i = last; i < conn->receive.chunk_count; i++)
		*chunk_at(conn, first + 1 + i - last) = *chunk_at(conn, i);
	conn->receive.chunk_count -= last - first - 1;

	if (conn->receive.state == IOX_RECEIVE_STARVED) {
		iox_recv_unpark(conn);
		conn->receive.paused = true;
		driver->counters.recv_pauses++;
	} else if (conn->receive.state == IOX_RECEIVE_ARMED) {
		conn->receive.paused = true;
		iox_recv_cancel(conn);
	}
	return true;
}

int iox_recv_ready(Connection *conn)
{
	if (conn->receive.chunk_count || conn->receive.ended)
		return 1;
	if (conn->receive.error) {
		iox_raise_os_error(conn->receive.error, conn->life.abort_reason);
		return -1;
	}
	return conn->receive.at_eof || conn->life.state != IOX_LIFE_OPEN;
}

size_t iox_recv_copy(Connection *conn, char *to, size_t limit)
{
	size_t left = limit;

	while (left && conn->receive.chunk_count) {
		struct iox_chunk *chunk = chunk_first(conn);
		uint32_t step = chunk->length < left ? chunk->length : (uint32_t)left;

		memcpy(to, chunk_bytes(conn, chunk), step);
		to += step;
		left -= step;
		conn->receive.queued_bytes -= step;
		chunk->offset += step;
		chunk->length -= step;
		if (!chunk->length) {
			char *memory = chunk->memory;
			uint32_t bytes = chunk->offset;
			uint16_t bid = chunk->bid;

			chunk_pop(conn);
			give_back(conn, memory, bytes, bid);
		}
	}
	return limit - left;
}

PyObject *iox_recv_take(Connection *conn, Py_ssize_t limit)
{
	size_t total = conn->receive.queued_bytes;
	PyObject *bytes;

	if (!conn->receive.chunk_count)
		return PyBytes_FromStringAndSize(NULL, 0);
	if (limit >= 0 && (size_t)limit < total)
		total = (size_t)limit;
	bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)total);
	if (bytes)
		iox_recv_copy(conn, PyBytes_AS_STRING(bytes), total);
	return bytes;
}

/*
 * The first run, for a slice.  A view keeps its buffer for as long as its owner likes; so where slices hold
 * three quarters of the buffers already, this is a copy.
 */
static struct iox_chunk chunk_to_lend(Connection *conn)
{
	struct iox_chunk *chunk = chunk_first(conn), copy = { .length = chunk->length };
	struct iox_group *group = conn->receive.group;

	if (chunk->memory || group->incremental ||
	    group->in_slices < group->count - 2 * iox_group_reserve(group))
		return *chunk;
	copy.memory = iox_driver_copy_new(conn->driver, chunk->length);
	if (!copy.memory)
		return *chunk;
	memcpy(copy.memory, chunk_bytes(conn, chunk), chunk->length);
	conn->driver->counters.recv_copies++;
	give_back(conn, NULL, 0, chunk->bid);
	*chunk = copy;
	return copy;
}

PyObject *iox_recv_take_slices(Connection *conn)
{
	int held = iox_collector_hold();
	PyObject *list = PyList_New(0);

	iox_collector_release(held);
	while (list && conn->receive.chunk_count) {
		PyObject *slice = iox_slice_new(conn->driver, conn->receive.group, chunk_to_lend(conn));

		if (!slice) {
			Py_CLEAR(list);
			break;
		}
		chunk_pop(conn); /* from here on the slice gives the buffer back */
		if (PyList_Append(list, slice) < 0)
			Py_CLEAR(list);
		Py_DECREF(slice);
	}
	return list;
}

void iox_recv_park(Connection *conn, Waiter *waiter, bool on_worker)
{
	conn->receive.reader = (Waiter *)Py_NewRef(waiter);
	iox_recv_start_clock(conn);
	/* The reactor may sleep beyond the clock that a worker has just set. */
	if (on_worker && iox_list_linked(&conn->receive.clock) &&
	    conn->receive.deadline < conn->driver->sleeping_until)
		iox_driver_wake(conn->driver);
}

static void recv_terminal(Connection *conn)
{
	iox_receive_set(conn, IOX_RECEIVE_IDLE);
	conn->life.kernel_refs--;
}

/* No buffer was left.  That is not the peer's fault, so its clock begins again; the receive waits for one. */
static void park_starved(Connection *conn)
{
	Driver *driver = conn->driver;

	/* A window that was too small is made larger after the batch, before the receive is armed again. */
	if (conn->receive.group->idle_count)
		conn->receive.group->refused++;
	else
		driver->counters.recv_enobufs++;
	if (iox_list_linked(&conn->receive.clock) && !conn->life.fin_sent)
		iox_recv_start_clock(conn); /* but not the clock of the peer's FIN: it would never run out */
	if (conn->receive.state != IOX_RECEIVE_IDLE)
		return; /* still armed: no kernel reports that */
	if (!conn->receive.group->incremental) {
		iox_receive_set(conn, IOX_RECEIVE_STARVED);
		iox_list_append(&driver->starved, &conn->receive.starved);
	} else if (!iox_group_free(conn->receive.group)) {
		iox_receive_set(conn, IOX_RECEIVE_STARVED);
	}
	/* Otherwise a buffer was given back meanwhile: iox_recv_complete() arms the receive again. */
}

/* Queues what a completion brought, one run for each buffer it lies in. */
static enum iox_recv_report take_in(Connection *conn, uint16_t bid, uint32_t length, bool more)
{
	Driver *driver = conn->driver;
	struct iox_group *group = conn->receive.group;
	enum iox_recv_report report = IOX_RECV_GOES_ON;
	unsigned runs = 0;

	driver->counters.bytes_received += length;
	while (length) {
		struct iox_chunk chunk = { .bid = bid };

		chunk.length = iox_group_take(group, bid, length, more, &chunk.offset, &bid);
		if (!chunk.length) {
			driver->counters.unknown_cqes++;
			driver->counters.bytes_unread += length;
			return IOX_RECV_IMPOSSIBLE;
		}
		length -= chunk.length;
		if (chunk.offset)
			driver->counters.recv_appends++;
		if (++runs == 2)
			driver->counters.recv_bundles++;
		if (conn->life.state != IOX_LIFE_OPEN || conn->receive.ended || report) {
			driver->counters.bytes_unread += chunk.length;
			iox_driver_release(driver, group, chunk.bid);
		} else if (!chunk_push(conn, chunk)) {
			driver->counters.bytes_unread += chunk.length;
			iox_driver_release(driver, group, chunk.bid);
			report = IOX_RECV_NO_MEMORY;
		}
	}
	iox_recv_wake(conn);
	return report;
}

/*
 * A multishot receive that comes to an urgent mark while a signal is pending is told EAGAIN, and then
 * waits for bytes to arrive although some are there (6.6 to 7.3, IOX-ERR-016).  The completion before says
 * that there are more (IORING_CQE_F_SOCK_NONEMPTY), and mostly another one follows in the same batch.  Where
 * none does, the connection is checked before the next enter.  That is soon: the signal ends this one.
 */
#define MARK_TRIES 8

static void watch_armed(Connection *conn)
{
	if (!iox_list_linked(&conn->receive.watched))
		iox_list_append(&conn->driver->watched, &conn->receive.watched);
}

static void watch(Connection *conn, bool more)
{
	conn->receive.tries = more ? MARK_TRIES : 0;
	conn->receive.checks = MARK_TRIES;
	if (more)
		watch_armed(conn);
}

void iox_recv_check_marks(Driver *driver)
{
	while (iox_list_linked(&driver->watched)) {
		Connection *conn = IOX_ENTRY(driver->watched.next, Connection, receive.watched);
		int at_mark = 0;

		iox_list_remove(&conn->receive.watched);
		/* A receive that is not armed is watched again once it is. */
		if (conn->receive.state != IOX_RECEIVE_ARMED || !conn->receive.tries)
			continue;
		if (ioctl(conn->fd, SIOCATMARK, &at_mark) < 0 || !at_mark) {
			conn->receive.tries = 0;
			continue;
		}
		/* A bound, because a peer may keep a connection at a mark without bytes behind it. */
		conn->receive.tries--;
		driver->counters.recv_marks++;
		iox_recv_cancel(conn); /* its end has it armed again */
	}
}

/*
 * Nothing is posted for a receive that begins at the mark.  But an enter that brings nothing else returns
 * EINTR, and then all armed receives are checked.  A check takes about 0.2 us, so that this many in a
 * millisecond are a hundredth of the time.
 */
#define CHECKS_PER_MS 50

void iox_recv_interrupted(Driver *driver)
{
	uint64_t earliest = driver->marks_checked + driver->connection_count / CHECKS_PER_MS;

	if (!driver->marks_at)
		driver->marks_at = earliest > driver->now ? earliest : driver->now;
}

void iox_recv_check_all_marks(Driver *driver)
{
	driver->marks_at = 0;
	driver->marks_checked = driver->now;
	for (uint32_t slot = 0; slot < driver->slot_count; slot++) {
		Connection *conn = driver->slots[slot];
		int at_mark = 0;

		if (!conn || conn->receive.state != IOX_RECEIVE_ARMED || !conn->receive.checks)
			continue;
		if (ioctl(conn->fd, SIOCATMARK, &at_mark) < 0 || !at_mark)
			continue;
		conn->receive.checks--;
		driver->counters.recv_marks++;
		iox_recv_cancel(conn); /* its end has it armed again */
	}
}

enum iox_recv_report iox_recv_complete(Connection *conn, int res, unsigned flags)
{
	enum iox_recv_report report = IOX_RECV_GOES_ON;

	if (!(flags & IOX_CQE_F_MORE))
		recv_terminal(conn);

	if (res > 0 && flags & IOX_CQE_F_BUFFER) {
		watch(conn, flags & IORING_CQE_F_SOCK_NONEMPTY);
		report = take_in(conn, (uint16_t)(flags >> IOX_CQE_BUFFER_SHIFT), (uint32_t)res,
				 flags & IOX_CQE_F_BUF_MORE);
		if (report)
			return report; /* its end comes next: nothing is paused or armed any more */
	} else if (res == 0) {
		conn->receive.at_eof = true;
		iox_recv_wake(conn);
	} else if (res == -ENOBUFS) {
		/* A full queue waits for its reader, not for a buffer: it stays paused. */
		if (!conn->receive.paused || !conn->receive.chunk_count)
			park_starved(conn);
	} else if (res == -ECANCELED && !iox_conn_over(conn)) {
		/* Our own cancel; below it is decided what follows. */
	} else if (res == -ENOMEM && !iox_conn_over(conn)) {
		/* Nothing was received: it is armed again below, after a delay. */
	} else if (res == -EAGAIN && iox_conn_block(conn)) {
		/* Another holder of the file had set O_NONBLOCK (not seen on 6.18): armed again below. */
	} else if (res < 0) {
		if (!conn->receive.error && conn->life.state != IOX_LIFE_CLOSING)
			conn->receive.error = -res;
		else
			conn->receive.at_eof = true;
		if (res == -ETIMEDOUT && conn->life.user_timeout_set)
			report = IOX_RECV_PEER_TIMED_OUT;
		iox_recv_wake(conn);
	}

	if (conn->receive.state == IOX_RECEIVE_ARMED) {
		/* Not submitted yet: where the queue is read within this tick, there is no pause. */
		if (queue_full(conn)) {
			conn->receive.paused = true;
			iox_recv_cancel(conn);
		}
	} else if (conn->receive.state == IOX_RECEIVE_IDLE && !conn->receive.at_eof && !conn->receive.error &&
		   !iox_conn_over(conn)) {
		/*
		 * The kernel ends a multishot for other reasons, too (a full CQ, a cancel that came late).  It is
		 * armed again unless the queue is full.  A pause ends when the queue is empty.
		 */
		if (queue_full(conn) && !conn->receive.paused) {
			conn->receive.paused = true;
			iox_want(conn, IOX_WANT_CANCEL); /* nothing is armed; this only counts the pause */
		}
		if (!conn->receive.chunk_count)
			conn->receive.paused = false;
		if (!conn->receive.paused && !conn->receive.held) {
			conn->driver->counters.recv_rearms++;
			if (res == -ENOMEM)
				iox_retry_later(conn, IOX_WANT_RECV);
			else
				iox_want(conn, IOX_WANT_RECV);
		}
	}
	return report;
}

bool iox_recv_submit(Connection *conn)
{
	struct io_uring_sqe *sqe = iox_driver_sqe(conn->driver);

	if (!sqe)
		return false;
	io_uring_prep_recv(sqe, conn->fd, NULL, 0, 0);
	sqe->ioprio |= IOX_RECV_MULTISHOT;
	sqe->flags |= IOSQE_BUFFER_SELECT;
	if (conn->driver->settings.recv_bundle)
		sqe->ioprio |= IOX_RECVSEND_BUNDLE;
	sqe->buf_group = conn->receive.group->id;
	sqe->user_data = iox_user_data(IOX_KIND_RECV, conn->generation, conn->slot);
	iox_receive_set(conn, IOX_RECEIVE_ARMED);
	conn->life.kernel_refs++;
	if (conn->receive.tries)
		watch_armed(conn);
	return true;
}

void iox_recv_close(Connection *conn)
{
	iox_recv_discard(conn);
	iox_recv_wake(conn);
	conn->receive.held = false; /* what the peer still sends is received and thrown away, up to its FIN */
	if (conn->receive.state == IOX_RECEIVE_IDLE && !conn->receive.at_eof && !conn->receive.error &&
	    !iox_conn_over(conn)) {
		/* Paused: only an armed receive sees the peer's FIN. */
		conn->receive.paused = false;
		iox_want(conn, IOX_WANT_RECV);
	}
}

/*
 * Reading ends now, as if the peer had sent FIN; what is queued is still delivered.  A stop of the server
 * ends the reads of its handlers' connections, not of those that handlers have opened.
 */
void iox_recv_end(Connection *conn)
{
	if (conn->receive.ended || conn->life.state == IOX_LIFE_GONE || !conn->for_handler)
		return;
	conn->receive.ended = true;
	iox_recv_wake(conn);
}
