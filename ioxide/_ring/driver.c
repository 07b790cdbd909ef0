/* SPDX-License-Identifier: MIT */
/*
 * The Python type of a ring's owner: made, told of its loop, asked for figures, and closed.  What it
 * does in between, tick by tick, is in dispatch.c and tick.c.
 */
#include "driver.h"

#include "adopt.h"
#include "clock.h"
#include "close.h"
#include "connection.h"
#include "counters.h"
#include "dispatch.h"
#include "errors.h"
#include "listeners.h"
#include "owner.h"
#include "submit.h"
#include "wake.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

PyDoc_STRVAR(driver_adopt_doc,
"_adopt(fd, lent)\n--\n\n"
"Take a connected TCP socket over; None, and nothing has changed, when there is no room for it.\n"
"`fd` is the connection's to close from then on.  A `lent` one stays the caller's, who may close it\n"
"at any time: the connection then works on a duplicate.");

static PyObject *driver_adopt(Driver *self, PyObject *const *args, Py_ssize_t nargs)
{
	return iox_driver_adopt(self, args, nargs);
}

static PyObject *driver_wake(Driver *self, PyObject *Py_UNUSED(ignored))
{
	iox_driver_wake(self);
	Py_RETURN_NONE;
}

static PyObject *driver_attach(Driver *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "loop", "poll_fd", "on_connection", "on_fault", NULL };
	PyObject *loop, *on_connection, *on_fault;
	int poll_fd;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OiOO:attach", names, &loop, &poll_fd,
					 &on_connection, &on_fault) ||
	    iox_driver_check_owner(self) < 0)
		return NULL;
	self->poll_fd = poll_fd;
	self->poll_enabled = poll_fd >= 0;
	Py_XSETREF(self->home.loop, Py_NewRef(loop));
	Py_XSETREF(self->on_connection, Py_NewRef(on_connection));
	Py_XSETREF(self->on_fault, Py_NewRef(on_fault));
	Py_RETURN_NONE;
}

PyDoc_STRVAR(driver_continue_doc,
"continue_by(on_resume, wake_each)\n--\n\n"
"How parked tasks go on when it is not inline: on_resume(call) is given each task's resumption;\n"
"wake_each makes every call from another thread write a wake of its own.");

static PyObject *driver_continue_by(Driver *self, PyObject *args)
{
	PyObject *on_resume;
	int wake_each;

	if (!PyArg_ParseTuple(args, "Op:continue_by", &on_resume, &wake_each) || iox_driver_check_owner(self) < 0)
		return NULL;
	self->wake_each = wake_each;
	Py_XSETREF(self->on_resume, on_resume == Py_None ? NULL : Py_NewRef(on_resume));
	Py_RETURN_NONE;
}

static PyObject *driver_connections(Driver *self, PyObject *Py_UNUSED(ignored))
{
	PyObject *list = PyList_New(0);

	for (uint32_t slot = 0; list && slot < self->slot_count; slot++)
		if (self->slots[slot] && PyList_Append(list, (PyObject *)self->slots[slot]) < 0)
			Py_CLEAR(list);
	return list;
}

static PyObject *driver_counters(Driver *self, PyObject *Py_UNUSED(ignored))
{
	return iox_driver_counters(self);
}

static int driver_traverse(Driver *self, visitproc visit, void *arg)
{
	Py_VISIT(self->home.loop);
	Py_VISIT(self->on_connection);
	Py_VISIT(self->on_fault);
	Py_VISIT(self->on_resume);
	Py_VISIT(self->connection_type);
	return iox_listeners_traverse(self, visit, arg);
}

static int driver_clear(Driver *self)
{
	Py_CLEAR(self->on_resume);
	Py_CLEAR(self->home.loop);
	Py_CLEAR(self->on_connection);
	Py_CLEAR(self->on_fault);
	iox_listeners_clear(self);
	return 0;
}

static void driver_dealloc(Driver *self)
{
	PyObject *type, *value, *traceback;

	PyObject_GC_UnTrack(self);
	driver_clear(self);
	Py_CLEAR(self->connection_type);
	if (!self->closed && self->ring) {
		/* Nobody called close(), perhaps on another thread; there are no connections, see close.c. */
		PyErr_Fetch(&type, &value, &traceback);
		if (PyErr_WarnEx(PyExc_ResourceWarning, "a driver was dropped without close()", 1) < 0)
			PyErr_WriteUnraisable(NULL);
		PyErr_Restore(type, value, traceback);
		close(self->wake_fd);
		iox_ring_close(self->ring, iox_driver_is_here(self));
		if (self->shared) {
			self->shared->registered = false;
			iox_group_unref(self->shared);
		}
		iox_slab_pool_clear(&self->slabs);
	}
	PyMem_Free(self->slots);
	PyMem_Free(self->free_slots);
	PyMem_Free(self->free_groups);
	PyMem_Free(self->foreign.ops);
	PyObject_GC_Del(self);
}

static bool open_ring(Driver *self)
{
	int error;

	self->ring = iox_ring_open(self->settings.ring_entries, self->settings.cq_entries,
				   self->settings.register_ring_fd, &error);
	if (!self->ring)
		iox_raise_os_error(-error, "io_uring_setup(2)");
	return self->ring;
}

static bool init_groups(Driver *self)
{
	uint32_t groups = self->settings.groups;
	int ret;

	if (groups) {
		self->free_groups = PyMem_Calloc(groups, sizeof(*self->free_groups));
		if (!self->free_groups) {
			PyErr_NoMemory();
			return false;
		}
		for (unsigned i = groups; i; i--)
			self->free_groups[self->free_group_count++] = (uint16_t)(IOX_FIRST_GROUP + i - 1);
		return true;
	}
	self->shared = iox_group_new(self->settings.recv_slots, self->settings.recv_buffer_size, false,
				     self->settings.recv_bundle);
	ret = -ENOMEM;
	if (self->shared) {
		Py_BEGIN_ALLOW_THREADS
		ret = iox_group_register_waiting(self->shared, self->ring->uring.ring_fd, IOX_SHARED_GROUP);
		Py_END_ALLOW_THREADS
	}
	if (ret < 0)
		iox_raise_os_error(-ret, "IORING_REGISTER_PBUF_RING");
	return ret >= 0;
}

static bool init_slabs(Driver *self)
{
	const struct iox_settings *settings = &self->settings;

	if (iox_slab_pool_init(&self->slabs, settings->write_slab_size, settings->write_limit, settings->pool_max,
			       settings->segmented))
		return true;
	PyErr_NoMemory();
	return false;
}

static bool open_wake_fd(Driver *self)
{
	self->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (self->wake_fd < 0)
		iox_raise_os_error(errno, "eventfd(2)");
	return self->wake_fd >= 0;
}

PyDoc_STRVAR(driver_doc,
"Driver(connection_type, **settings)\n--\n\n"
"The owner of one ring, which it opens; the calling thread is the one that uses it.\n\n"
"`settings` are those that SETTINGS names, all of them.  ioxide.driver.Driver is the face with the\n"
"documentation.  Raises TypeError for a setting that is missing, unknown or of another type, OverflowError\n"
"for a number that does not fit, and OSError, whose strerror names the call that the kernel refused:\n"
"io_uring_setup(2), IORING_REGISTER_PBUF_RING or eventfd(2).");

static PyObject *driver_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
	struct iox_settings settings;
	PyObject *connection_type;
	Driver *self;

	if (!PyArg_ParseTuple(args, "O!:Driver", &PyType_Type, &connection_type) ||
	    iox_settings_take(&settings, keywords) < 0)
		return NULL;
	if (!PyType_IsSubtype((PyTypeObject *)connection_type, &iox_ConnectionType)) {
		PyErr_SetString(PyExc_TypeError, "connection_type must be a subclass of Connection");
		return NULL;
	}
	self = (Driver *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->closed = true; /* until everything is there */
	self->wake_fd = self->poll_fd = -1;
	self->settings = settings;
	self->zero_copy_report = settings.zero_copy_send;
	self->connection_type = (PyTypeObject *)Py_NewRef(connection_type);
	self->owner = iox_thread_number();
	self->thread = PyThread_get_thread_ident();
	self->forks = iox_forks;
	self->home.driver = self;
	self->now = iox_clock_ms();
	IOX_LISTS_INIT(&self->home.ready, &self->home.handing, &self->next, &self->handing, &self->starting, &self->over,
		       &self->staged, &self->starved, &self->read_clocks, &self->send_clocks);
	if (!open_ring(self) || !init_groups(self) || !init_slabs(self) || !open_wake_fd(self)) {
		if (self->shared) {
			iox_group_unregister(self->shared, self->ring->uring.ring_fd);
			iox_group_unref(self->shared);
		}
		iox_slab_pool_clear(&self->slabs);
		if (self->ring)
			iox_ring_close(self->ring, true);
		self->ring = NULL;
		Py_DECREF(self);
		return NULL;
	}
	self->closed = false;
	return (PyObject *)self;
}

PyDoc_STRVAR(driver_napi_doc,
"set_napi($self, busy_poll_us, prefer, /)\n--\n\n"
"Poll the network device for `busy_poll_us` microseconds before the ring sleeps; `prefer` keeps the device's\n"
"interrupts off meanwhile.  Raises OSError: EINVAL before Linux 6.9 (IORING_REGISTER_NAPI), EOPNOTSUPP from\n"
"a kernel that was built without CONFIG_NET_RX_BUSY_POLL.");

static PyObject *driver_set_napi(Driver *self, PyObject *args)
{
	unsigned int busy_poll_us;
	int prefer, ret;

	if (!PyArg_ParseTuple(args, "Ip:set_napi", &busy_poll_us, &prefer) || iox_driver_check_owner(self) < 0)
		return NULL;
	ret = iox_ring_napi(self->ring, busy_poll_us, prefer);
	if (ret < 0) {
		iox_raise_os_error(-ret, "IORING_REGISTER_NAPI");
		return NULL;
	}
	Py_RETURN_NONE;
}

static PyObject *driver_get_listeners_armed(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(self->listeners_armed);
}

static PyObject *driver_get_connection_count(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(self->connection_count);
}

static PyObject *driver_get_wake_fd(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromLong(self->wake_fd);
}

/* For the watchdog: which tick's callbacks run now; None while waiting for the next one. */
static PyObject *driver_get_tick(Driver *self, void *Py_UNUSED(closure))
{
	if (self->waiting)
		Py_RETURN_NONE;
	return PyLong_FromUnsignedLongLong(self->counters.enters);
}

static int ring_info(Driver *self, struct iox_ring_info *info)
{
	if (!self->ring || self->closed) {
		PyErr_SetString(PyExc_RuntimeError, "this driver is closed");
		return -1;
	}
	iox_ring_info(self->ring, info);
	return 0;
}

#define RING_GETTER(name, member, convert)                                         \
	static PyObject *driver_get_##name(Driver *self, void *Py_UNUSED(closure)) \
	{                                                                          \
		struct iox_ring_info info;                                         \
									           \
		return ring_info(self, &info) < 0 ? NULL : convert(info.member);   \
	}

RING_GETTER(ring_fd, fd, PyLong_FromLong)
RING_GETTER(features, features, PyLong_FromUnsignedLong)
RING_GETTER(sq_entries, sq_entries, PyLong_FromUnsignedLong)
RING_GETTER(cq_entries, cq_entries, PyLong_FromUnsignedLong)

static PyObject *driver_get_enters(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLongLong(self->counters.enters);
}

static PyObject *driver_get_here(Driver *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(!self->closed && iox_driver_is_here(self));
}

static PyObject *driver_get_ready_count(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(iox_driver_ready_count(self));
}

static PyObject *driver_get_closed(Driver *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(self->closed);
}

static PyObject *driver_get_forked(Driver *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(self->forks != iox_forks);
}

static PyObject *driver_get_ring_fd_registered(Driver *self, void *Py_UNUSED(closure))
{
	return PyBool_FromLong(self->ring && self->ring->enter_flags & IOX_ENTER_REGISTERED_RING);
}

static PyObject *driver_get_listener_count(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(iox_driver_listener_count(self));
}

static PyObject *driver_get_loop(Driver *self, void *Py_UNUSED(closure))
{
	return Py_NewRef(self->home.loop ? self->home.loop : Py_None);
}

PyDoc_STRVAR(driver_generation_doc,
"For tests: the generation that was given out last; 24 bits, then from 1 again.");

static PyObject *driver_get_generation(Driver *self, void *Py_UNUSED(closure))
{
	return PyLong_FromUnsignedLong(self->generation);
}

static int driver_set_generation(Driver *self, PyObject *value, void *Py_UNUSED(closure))
{
	unsigned long generation = value ? PyLong_AsUnsignedLong(value) : 0;

	if (PyErr_Occurred() || iox_driver_check_owner(self) < 0)
		return -1;
	self->generation = (uint32_t)generation & IOX_GENERATION_MASK;
	return 0;
}

PyDoc_STRVAR(driver_begin_run_doc,
"begin_run()\n--\n\n"
"The loop runs on the calling thread, which is the ring's, until end_run(): the ring is entered by an\n"
"index of that thread's, if it was opened so.");

PyDoc_STRVAR(driver_end_run_doc,
"end_run()\n--\n\n"
"Nothing of the ring is left in the thread's keeping.  Does nothing where the ring is not the caller's:\n"
"a child that was forked inside a run leaves it, too.");

PyDoc_STRVAR(driver_close_doc,
"close()\n--\n\n"
"End every operation, give back buffers and slabs, close the ring and the eventfd.  False when the\n"
"kernel did not let go of an operation within 5 s; its memory then stays mapped.");

PyDoc_STRVAR(driver_abandon_doc,
"abandon()\n--\n\n"
"close() on another thread than the ring's, and in a forked child: the kernel ends by itself what it\n"
"still has.  Raises RuntimeError while the ring's loop runs, and in a child for connections of the\n"
"parent's, which it shares.");

PyDoc_STRVAR(driver_wait_doc,
"wait(timeout)\n--\n\n"
"Submit what is staged and wait for a completion, at most `timeout` seconds (None: for ever).");

PyDoc_STRVAR(driver_dispatch_doc,
"dispatch()\n--\n\n"
"Take in the batch and resume inline every task it has woken.  True when the loop's own selector\n"
"has something ready.");

PyDoc_STRVAR(driver_take_in_doc,
"take_in()\n--\n\n"
"The first half of dispatch(): take in the batch, and resume nothing.  True when the loop's own\n"
"selector has something ready.  resume_batch() has to follow before the next wait() may block.");

PyDoc_STRVAR(driver_resume_batch_doc,
"resume_batch()\n--\n\n"
"The second half of dispatch(): resume inline every task that take_in() has woken.");

PyDoc_STRVAR(driver_feed_doc,
"_feed(batch)\n--\n\n"
"For tests: take (user_data, res, flags) in as if the kernel had completed it.");

PyDoc_STRVAR(driver_listen_doc,
"listen(fd, on_connection=None, on_error=None)\n--\n\n"
"Accept on a listening socket that nobody else accepts on.  Its connections go to `on_connection`, as\n"
"connections of asyncio without clocks and limits; to the driver's own on_connection, with both, when\n"
"there is none.  While accept(2) fails for want of descriptors or memory, or because `fd` is no\n"
"listening socket, the listener rests 100 ms at a time and `on_error` is called with the OSError, at\n"
"most once a second.  Raises RuntimeError for the 65th listener of a driver.");

PyDoc_STRVAR(driver_accept_doc,
"accept(fd)\n--\n\n"
"Take one connection of the listening socket `fd`, which other processes may hold as well and which\n"
"must be O_NONBLOCK; a connection of asyncio, with TCP_NODELAY set.  None when there is none: another\n"
"process was faster, or there is no room for it and it was closed (Counters.accepts_shed).  Raises the\n"
"OSError of accept4(2); EMFILE, ENFILE, ENOBUFS and ENOMEM are counted (Counters.accept_pauses).");

PyDoc_STRVAR(driver_unlisten_doc,
"unlisten(fd=None)\n--\n\n"
"Stop accepting, on one listening socket or on all.  One may be closed at once, and its port is then\n"
"free; all of them may be closed once listeners_armed is 0.  On another thread, while the loop does not\n"
"run, and in a forked child: the ring that there is holds the sockets until it ends.");

static PyMethodDef driver_methods[] = {
	{ "attach", (PyCFunction)(void *)driver_attach, METH_VARARGS | METH_KEYWORDS, NULL },
	{ "set_napi", (PyCFunction)driver_set_napi, METH_VARARGS, driver_napi_doc },
	{ "continue_by", (PyCFunction)driver_continue_by, METH_VARARGS, driver_continue_doc },
	{ "wait", (PyCFunction)iox_driver_wait, METH_O, driver_wait_doc },
	{ "dispatch", (PyCFunction)iox_driver_dispatch, METH_NOARGS, driver_dispatch_doc },
	{ "take_in", (PyCFunction)iox_driver_take_in, METH_NOARGS, driver_take_in_doc },
	{ "resume_batch", (PyCFunction)iox_driver_resume_batch, METH_NOARGS, driver_resume_batch_doc },
	{ "_feed", (PyCFunction)iox_driver_feed, METH_O, driver_feed_doc },
	{ "listen", (PyCFunction)(void *)iox_driver_listen, METH_FASTCALL, driver_listen_doc },
	{ "unlisten", (PyCFunction)(void *)iox_driver_unlisten, METH_FASTCALL, driver_unlisten_doc },
	{ "accept", (PyCFunction)iox_driver_accept, METH_O, driver_accept_doc },
	{ "_adopt", (PyCFunction)(void *)driver_adopt, METH_FASTCALL, driver_adopt_doc },
	{ "wake", (PyCFunction)driver_wake, METH_NOARGS, "wake()\n--\n\nEnd a wait(); from any thread." },
	{ "connections", (PyCFunction)driver_connections, METH_NOARGS, NULL },
	{ "counters", (PyCFunction)driver_counters, METH_NOARGS, NULL },
	{ "begin_run", (PyCFunction)iox_driver_begin_run, METH_NOARGS, driver_begin_run_doc },
	{ "end_run", (PyCFunction)iox_driver_end_run, METH_NOARGS, driver_end_run_doc },
	{ "close", (PyCFunction)iox_driver_close, METH_NOARGS, driver_close_doc },
	{ "abandon", (PyCFunction)iox_driver_abandon, METH_NOARGS, driver_abandon_doc },
	{ NULL },
};

static PyGetSetDef driver_getset[] = {
	{ "listeners_armed", (getter)driver_get_listeners_armed, NULL, NULL, NULL },
	{ "connection_count", (getter)driver_get_connection_count, NULL, NULL, NULL },
	{ "listener_count", (getter)driver_get_listener_count, NULL, NULL, NULL },
	{ "here", (getter)driver_get_here, NULL, NULL, NULL },
	{ "closed", (getter)driver_get_closed, NULL, NULL, NULL },
	{ "ready_count", (getter)driver_get_ready_count, NULL, NULL, NULL },
	{ "forked", (getter)driver_get_forked, NULL, NULL, NULL },
	{ "ring_fd_registered", (getter)driver_get_ring_fd_registered, NULL, NULL, NULL },
	{ "ring_fd", (getter)driver_get_ring_fd, NULL, NULL, NULL },
	{ "features", (getter)driver_get_features, NULL, NULL, NULL },
	{ "sq_entries", (getter)driver_get_sq_entries, NULL, NULL, NULL },
	{ "cq_entries", (getter)driver_get_cq_entries, NULL, NULL, NULL },
	{ "wake_fd", (getter)driver_get_wake_fd, NULL, NULL, NULL },
	{ "loop", (getter)driver_get_loop, NULL, NULL, NULL },
	{ "tick", (getter)driver_get_tick, NULL, NULL, NULL },
	{ "enters", (getter)driver_get_enters, NULL, NULL, NULL },
	{ "_generation", (getter)driver_get_generation, (setter)driver_set_generation,
	  driver_generation_doc, NULL },
	{ NULL },
};

PyTypeObject iox_DriverType = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ioxide._ring._core.Driver",
	.tp_basicsize = sizeof(Driver),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_doc = driver_doc,
	.tp_new = driver_new,
	.tp_dealloc = (destructor)driver_dealloc,
	.tp_traverse = (traverseproc)driver_traverse,
	.tp_clear = (inquiry)driver_clear,
	.tp_methods = driver_methods,
	.tp_getset = driver_getset,
};
