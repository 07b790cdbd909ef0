/* SPDX-License-Identifier: MIT */
/* Where connections come from: accepted by the ring, or connected by asyncio and taken over. */
#include "adopt.h"

#include "buffers.h"
#include "owner.h"
#include "sockets.h"
#include "submit.h"
#include "table.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct iox_group *take_group(Driver *self)
{
	return self->shared ? self->shared : iox_driver_take_group(self);
}

Connection *iox_conn_new(Driver *self, int fd, bool for_handler)
{
	int held = iox_collector_hold();
	struct iox_group *group;
	Connection *conn;

	conn = (Connection *)self->connection_type->tp_alloc(self->connection_type, 0);
	iox_collector_release(held);
	if (!conn)
		return NULL;
	group = self->free_count || iox_table_reserve(self) ? take_group(self) : NULL;
	if (!group) {
		Py_DECREF(conn);
		return NULL;
	}
	conn->receive.group = group;
	if (group->incremental)
		group->owner = conn;
	conn->driver = (Driver *)Py_NewRef(self);
	conn->slot = self->free_slots[--self->free_count];
	conn->generation = iox_driver_generation(self);
	conn->fd = fd;
	conn->for_handler = for_handler;
	conn->receive.chunks = conn->receive.inline_chunks;
	conn->receive.chunk_capacity = IOX_INLINE_CHUNKS;
	IOX_LISTS_INIT(&conn->send.flushes, &conn->send.silent, &conn->starting, &conn->life.staged, &conn->receive.starved, &conn->receive.clock,
		       &conn->receive.watched, &conn->send.clock);
	iox_list_init(&conn->life.retrying);
	self->slots[conn->slot] = conn; /* the table's reference */
	self->connection_count++;
	self->handler_connections += for_handler;
	/*
	 * A transport begins to read after connection_made(), which may pause it: asyncio adds its reader
	 * by a later callback.  A handler's connection receives at once.
	 */
	conn->receive.held = !for_handler;
	if (for_handler)
		iox_want(conn, IOX_WANT_RECV);
	return conn;
}

/*
 * Makes a connection of a connected TCP socket.  The owner of a lent socket may close it at any time, and its
 * number may then become another file's; so the connection works on a duplicate.  None when there is no room
 * (incremental mode has a limited number of group ids) or no descriptor for the duplicate; the socket is then
 * unchanged.
 */
PyObject *iox_driver_adopt(Driver *self, PyObject *const *args, Py_ssize_t nargs)
{
	int fd, flags, lent;
	Connection *conn;

	if (nargs != 2) {
		PyErr_SetString(PyExc_TypeError, "_adopt(fd, lent)");
		return NULL;
	}
	fd = PyObject_AsFileDescriptor(args[0]);
	lent = PyObject_IsTrue(args[1]);
	/* The owner is checked last: the object's fileno() may close the driver. */
	if (fd < 0 || lent < 0 || iox_driver_check_owner(self) < 0)
		return NULL;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	if (lent) {
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			Py_RETURN_NONE;
	}
	conn = iox_conn_new(self, fd, false);
	if (!conn) {
		if (lent)
			close(fd);
		if (PyErr_Occurred())
			return NULL;
		Py_RETURN_NONE;
	}
	self->counters.adoptions++;
	if (flags & O_NONBLOCK)
		iox_conn_block(conn);
	if (!lent)
		conn->nonblock = false; /* no other process or object has the file */
	return Py_NewRef(conn);
}
