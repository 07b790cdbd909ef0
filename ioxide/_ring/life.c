/* SPDX-License-Identifier: MIT */
/*
 * A connection's life, from the first submission to the closed descriptor.
 *
 * A connection's descriptor, slabs and object are held until the terminal completion of every
 * operation the kernel has on them (kernel_refs).  Its end is decided in one place, iox_conn_progress():
 * once the kernel side has ended with EOF or an error, and the handler's side with close().
 *
 *   close()   no more writes; what is staged is sent, then FIN; the peer's remaining bytes are
 *             thrown away until it closes too, or the read clock runs out
 *   abort()   nothing more is sent; what the kernel still has is cancelled, then RST
 */
#include "life.h"

#include "buffers.h"
#include "clocks.h"
#include "driver_state.h"
#include "notify.h"
#include "receive.h"
#include "retry.h"
#include "send.h"
#include "sockets.h"
#include "submit.h"
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

static bool submit_cancel(Connection *conn, enum iox_kind kind)
{
	struct io_uring_sqe *sqe = iox_driver_sqe(conn->driver);

	if (!sqe)
		return false;
	io_uring_prep_cancel64(sqe, iox_user_data(kind, conn->generation, conn->slot), 0);
	sqe->user_data = iox_user_data(IOX_KIND_CANCEL, 0, 0);
	return true;
}

bool iox_conn_submit(Connection *conn)
{
	if (conn->life.want & IOX_WANT_CANCEL) {
		if (iox_recv_in_kernel(conn) && !submit_cancel(conn, IOX_KIND_RECV))
			return false;
		/* A full queue is a pause also where the receive has ended by itself. */
		conn->driver->counters.recv_pauses += conn->receive.paused && !iox_conn_over(conn);
		conn->life.want &= ~IOX_WANT_CANCEL;
	}
	if (conn->life.want & IOX_WANT_CANCEL_SEND) {
		if (conn->send.armed && !submit_cancel(conn, IOX_KIND_SEND))
			return false;
		conn->life.want &= ~IOX_WANT_CANCEL_SEND;
	}
	if (conn->life.want & IOX_WANT_RECV) {
		if (conn->receive.state == IOX_RECEIVE_IDLE && !conn->receive.held && !iox_conn_over(conn) &&
		    !iox_recv_submit(conn))
			return false;
		conn->life.want &= ~IOX_WANT_RECV;
	}
	if (conn->life.want & IOX_WANT_SEND) {
		if (!conn->send.armed && iox_send_unsent(conn) && !iox_conn_over(conn) && !iox_send_submit(conn))
			return false;
		conn->life.want &= ~IOX_WANT_SEND;
	}
	return true;
}

static void count_close(const Connection *conn)
{
	struct iox_counters *counters = &conn->driver->counters;

	counters->closes++;
	switch ((enum iox_cause)conn->life.cause) {
	case IOX_CAUSE_NONE:
		if (conn->receive.error)
			counters->closes_error++;
		else
			counters->closes_eof++;
		break;
	case IOX_CAUSE_EOF:
		counters->closes_eof++;
		break;
	case IOX_CAUSE_ERROR:
		counters->closes_error++;
		break;
	case IOX_CAUSE_READ_TIMEOUT:
		counters->closes_read_timeout++;
		break;
	case IOX_CAUSE_SEND_TIMEOUT:
		counters->closes_send_timeout++;
		break;
	case IOX_CAUSE_FAULT:
		counters->closes_fault++;
		break;
	case IOX_CAUSE_ABORT:
		counters->closes_abort++;
		break;
	case IOX_CAUSE_STOP:
		counters->closes_stop++;
		break;
	}
}

static void finalize(Connection *conn)
{
	Driver *driver = conn->driver;

	/*
	 * RST instead of FIN: the peer must not take a cut-off stream for a whole one.  After our FIN the peer
	 * has been sent everything, and a reset could only destroy what it has not read yet.
	 */
	if (conn->life.abort_reason && !conn->life.fin_sent)
		iox_socket_reset(conn->fd);
	if (conn->nonblock)
		fcntl(conn->fd, F_SETFL, fcntl(conn->fd, F_GETFL) | O_NONBLOCK);
	close(conn->fd);
	conn->fd = -1;
	iox_life_set(conn, IOX_LIFE_GONE);
	count_close(conn);
	iox_recv_discard(conn);
	iox_list_remove(&conn->life.staged);
	iox_retry_forget(conn);
	if (conn->receive.state == IOX_RECEIVE_STARVED)
		iox_recv_unpark(conn);
	iox_list_remove(&conn->receive.clock);
	iox_list_remove(&conn->receive.watched);
	iox_list_remove(&conn->send.clock);
	conn->life.want = 0;
	driver->counters.bytes_unsent += conn->send.bytes_written - conn->send.bytes_acked;
	iox_batch_release(&driver->slabs, &conn->send.staging);
	iox_batch_release(&driver->slabs, &conn->send.sending);
	if (conn->receive.group->incremental)
		iox_driver_drop_group(driver, conn->receive.group);
	conn->receive.group = NULL;
	iox_recv_wake(conn);
	iox_send_wake(conn, true);
	iox_face_wake(conn);
	iox_driver_forget(driver, conn);
}

/*
 * After our FIN only the kernel knows what the peer has not acknowledged yet.  By default it retransmits for
 * a quarter of an hour, and holds the pages of a SEND_ZC meanwhile.  With TCP_USER_TIMEOUT (tcp(7)) it drops
 * a connection on which nothing is acknowledged for that long: the write queue is freed, so that the
 * notification comes, and the receive completes with ETIMEDOUT.  That costs a system call, so it is done only
 * where the clock of the peer's FIN would end later, or would cut off a SEND_ZC.
 */
static void set_user_timeout(Connection *conn)
{
	unsigned timeout = (unsigned)conn->driver->settings.send_timeout_ms;

	if (conn->for_handler && timeout &&
	    (timeout < iox_recv_fin_timeout(conn) || iox_send_zero_copy_pending(conn)))
		conn->life.user_timeout_set = !setsockopt(conn->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout,
					    sizeof(timeout));
}

/* The kernel dropped the connection because of TCP_USER_TIMEOUT. */
static void peer_timed_out(Connection *conn)
{
	conn->driver->counters.send_timeouts++;
	iox_conn_set_cause(conn, IOX_CAUSE_SEND_TIMEOUT);
}

/* Everything was sent, or nothing more can be. */
static bool all_sent(const Connection *conn)
{
	return !conn->send.armed && (!iox_send_unsent(conn) || conn->send.error);
}

static void end_writes(Connection *conn)
{
	if (!conn->send.eof_sent && !conn->send.error)
		shutdown(conn->fd, SHUT_WR);
	conn->send.eof_sent = true;
}

static void end_stream(Connection *conn)
{
	if (conn->send.error) {
		/* Something was cut off: FIN would call the stream whole. */
		iox_conn_abort(conn, IOX_CAUSE_ERROR, "what was written could not be sent");
		return;
	}
	if (!conn->life.fin_sent) {
		if (iox_socket_resets_on_close(conn->fd)) {
			iox_conn_abort(conn, IOX_CAUSE_ABORT, "the connection was closed with SO_LINGER at 0");
			return;
		}
		conn->life.fin_sent = true;
		if (!conn->receive.error) {
			shutdown(conn->fd, SHUT_WR);
			set_user_timeout(conn);
		}
	}
	/* With a SEND_ZC the clock of the peer's FIN begins later: an abort() would drop what is not acknowledged. */
	if (!iox_list_linked(&conn->receive.clock) &&
	    !(conn->life.user_timeout_set && iox_send_zero_copy_pending(conn)))
		iox_recv_start_clock(conn);
	if (!conn->life.kernel_refs && (conn->receive.at_eof || conn->receive.error))
		finalize(conn);
}

/* Does what follows from a change of state; the only place where a life ends. */
void iox_conn_progress(Connection *conn)
{
	switch (conn->life.state) {
	case IOX_LIFE_OPEN:
		if (conn->send.eof_wanted && all_sent(conn))
			end_writes(conn);
		break;
	case IOX_LIFE_CLOSING:
		if (all_sent(conn))
			end_stream(conn);
		break;
	case IOX_LIFE_ABORTED:
		if (!conn->life.kernel_refs)
			finalize(conn);
		break;
	case IOX_LIFE_GONE:
		break;
	}
}

void iox_conn_close(Connection *conn)
{
	if (conn->life.state == IOX_LIFE_CLOSING || conn->life.state == IOX_LIFE_GONE)
		return;
	if (conn->life.state == IOX_LIFE_OPEN)
		iox_life_set(conn, IOX_LIFE_CLOSING);
	iox_recv_close(conn);
	iox_conn_progress(conn);
}

void iox_conn_abort(Connection *conn, enum iox_cause cause, const char *reason)
{
	if (iox_conn_over(conn))
		return;
	iox_life_set(conn, IOX_LIFE_ABORTED);
	iox_conn_set_cause(conn, cause);
	conn->driver->counters.aborts += reason != NULL;
	conn->life.abort_reason = reason;
	if (!conn->receive.error)
		conn->receive.error = ECONNABORTED;
	if (!conn->send.error)
		conn->send.error = ECONNABORTED;
	iox_send_drop(conn);
	iox_recv_wake(conn);
	iox_send_wake(conn, true);
	iox_face_wake(conn);
	if (conn->receive.state == IOX_RECEIVE_STARVED)
		iox_recv_unpark(conn);
	iox_list_remove(&conn->receive.clock);
	iox_list_remove(&conn->receive.watched);
	iox_list_remove(&conn->send.clock);
	/*
	 * The ring holds the file, so close(2) alone would end nothing.  shutdown(2) would, but its FIN would
	 * reach the peer before the RST.  So both operations are cancelled, and the descriptor is closed with
	 * their last completion.
	 */
	conn->life.want &= ~(IOX_WANT_RECV | IOX_WANT_SEND);
	/*
	 * A SEND_ZC ends only when the kernel has released every page, which is when the peer has acknowledged
	 * them; shutdown(2) does not change that.
	 */
	if (iox_send_zero_copy_pending(conn))
		iox_socket_dissolve(conn->fd);
	if (conn->receive.state == IOX_RECEIVE_ARMED)
		iox_recv_cancel(conn);
	else if (conn->receive.state == IOX_RECEIVE_CANCELLING)
		iox_want(conn, IOX_WANT_CANCEL);
	if (conn->send.armed)
		iox_want(conn, IOX_WANT_CANCEL_SEND);
	iox_conn_progress(conn);
}

void iox_conn_received(Connection *conn, int res, unsigned flags)
{
	switch (iox_recv_complete(conn, res, flags)) {
	case IOX_RECV_GOES_ON:
		break;
	case IOX_RECV_PEER_TIMED_OUT:
		peer_timed_out(conn);
		break;
	case IOX_RECV_IMPOSSIBLE:
		iox_conn_abort(conn, IOX_CAUSE_ERROR, "the kernel reported bytes in a buffer it did not have");
		break;
	case IOX_RECV_NO_MEMORY:
		iox_conn_abort(conn, IOX_CAUSE_ERROR, "no memory to queue received bytes");
		break;
	}
	iox_conn_progress(conn);
}

void iox_conn_sent(Connection *conn, int res, unsigned flags)
{
	if (iox_send_complete(conn, res, flags) == IOX_SEND_PEER_TIMED_OUT)
		peer_timed_out(conn);
	iox_conn_progress(conn);
}
