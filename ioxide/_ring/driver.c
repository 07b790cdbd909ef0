/* SPDX-License-Identifier: MIT */
/*
 * The Python type of a ring's owner: made, told of its loop, asked for figures, and closed.  What it
 * does in between, tick by tick, is in dispatch.c and tick.c; what it is made of, in open.c.
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
#include "modes.h"
#include "open.h"
#include "owner.h"
#include "submit.h"
#include "turns.h"
#include "wake.h"

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

static PyObject *driver_continue_by(Driver *self, PyObject *args)
{
	PyObject *on_resume;
	int wake_each;

	if (!PyArg_ParseTuple(args, "Op:continue_by", &on_resume, &wake_each) || iox_driver_check_owner(self) < 0)
		return NULL;
	iox_modes_set(self, on_resume, wake_each);
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
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(self->home.loop);
	Py_VISIT(self->on_connection);
	Py_VISIT(self->on_fault);
	Py_VISIT(self->connection_type);
	return iox_modes_traverse(self, visit, arg) || iox_listeners_traverse(self, visit, arg);
}

static int driver_clear(Driver *self)
{
	iox_modes_clear(self);
	Py_CLEAR(self->home.loop);
	Py_CLEAR(self->on_connection);
	Py_CLEAR(self->on_fault);
	iox_listeners_clear(self);
	return 0;
}

static void driver_dealloc(Driver *self)
{
	PyTypeObject *own = Py_TYPE(self);
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
		iox_driver_free(self);
	}
	PyMem_Free(self->slots);
	PyMem_Free(self->free_slots);
	PyMem_Free(self->free_groups);
	PyMem_Free(self->foreign.ops);
	PyObject_GC_Del(self);
	Py_DECREF(own);
}

PyDoc_STRVAR(driver_doc,
"Driver(connection_type, **settings)\n--\n\n"
"The owner of one ring, which it opens; the calling thread is the one that uses it.\n\n"
"`settings` are those that SETTINGS names, all of them.  ioxide.Driver is the face with the\n"
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
	if (!PyType_IsSubtype((PyTypeObject *)connection_type, iox_ConnectionType)) {
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
	IOX_LISTS_INIT(&self->home.ready, &self->home.notify, &self->next, &self->starting, &self->ended, &self->staged,
		       &self->starved, &self->watched, &self->silent, &self->read_clocks, &self->send_clocks);
	iox_list_init(&self->retrying);
	iox_modes_init(self);
	if (!iox_driver_open(self)) {
		Py_DECREF(self);
		return NULL;
	}
	self->closed = false;
	return (PyObject *)self;
}

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

PyDoc_STRVAR(driver_attach_doc,
"attach($self, /, loop, poll_fd, on_connection, on_fault)\n"
"--\n"
"\n"
"Name the loop that runs on this ring.\n"
"\n"
"`poll_fd` is its selector's descriptor, which the ring watches; -1 for none.  `on_connection(connection)` is\n"
"called for what a listener without one of its own accepts, `on_fault(message, error)` with exceptions that\n"
"nobody else will see.");

PyDoc_STRVAR(driver_set_napi_doc,
"set_napi($self, busy_poll_us, prefer, /)\n"
"--\n"
"\n"
"Poll the network device for `busy_poll_us` microseconds before the ring sleeps.\n"
"\n"
"`prefer` keeps the device's interrupts off meanwhile.  Raises OSError: EINVAL before Linux 6.9\n"
"(IORING_REGISTER_NAPI), EOPNOTSUPP from a kernel built without CONFIG_NET_RX_BUSY_POLL.");

PyDoc_STRVAR(driver_continue_by_doc,
"continue_by($self, on_resume, wake_each, /)\n"
"--\n"
"\n"
"Say how parked tasks go on where it is not inline.\n"
"\n"
"`on_resume(call)` is given each task's resumption, None resumes inline; `wake_each` makes every call from\n"
"another thread write a wake of its own.");

PyDoc_STRVAR(driver_wait_doc,
"wait($self, timeout, /)\n"
"--\n"
"\n"
"Submit what is staged and wait for a completion, at most `timeout` seconds (None: for ever).\n"
"\n"
"Raises OSError when io_uring_enter(2) fails, and RuntimeError when the kernel dropped completions or the\n"
"ring is another thread's.");

PyDoc_STRVAR(driver_dispatch_doc,
"dispatch($self, /)\n"
"--\n"
"\n"
"Take in the batch and resume inline every task it has woken.\n"
"\n"
"True when the loop's own selector has something ready.");

PyDoc_STRVAR(driver_run_turns_doc,
"run_turns($self, loop, selector, driver, many, /)\n"
"--\n"
"\n"
"A turn of `loop`, as asyncio's loop._run_once(): timers, wait(), dispatch(), callbacks that are ready.\n"
"\n"
"With `many` turns follow each other until the loop is to stop, to be debugged, or has a _run_once() or a\n"
"_process_events() that are not its class's.  `driver.posts` end the ticks of a turn; `selector.watchdog` is roused by each\n"
"tick if it is asleep.  Raises as wait() and dispatch() do, and what ends a loop: KeyboardInterrupt and\n"
"SystemExit of a callback.");

PyDoc_STRVAR(driver_record_doc,
"record($self, /)\n"
"--\n"
"\n"
"The last submissions and completions, oldest first, as ioxide._common.record.entries() reads them.\n"
"\n"
"Empty without the setting `record`, and after close().  From any thread; an entry that the ring's thread\n"
"writes meanwhile may be half written.");

PyDoc_STRVAR(driver_take_in_doc,
"take_in($self, /)\n"
"--\n"
"\n"
"The first half of dispatch(): take in the batch, and resume nothing.\n"
"\n"
"True when the loop's own selector has something ready.  resume_batch() has to follow before the next\n"
"wait() may block.");

PyDoc_STRVAR(driver_resume_batch_doc,
"resume_batch($self, /)\n"
"--\n"
"\n"
"The second half of dispatch(): resume inline every task that take_in() has woken.");

PyDoc_STRVAR(driver_feed_doc,
"_feed($self, batch, /)\n"
"--\n"
"\n"
"For tests: take each (user_data, res, flags) of `batch` in as if the kernel had completed it.");

PyDoc_STRVAR(driver_listen_doc,
"listen($self, fd, on_connection=None, on_error=None, /)\n"
"--\n"
"\n"
"Accept on a listening socket that nobody else accepts on.\n"
"\n"
"Its connections go to `on_connection`, as connections of asyncio without clocks and limits; to the driver's\n"
"own on_connection, with both, when there is none.  While accept(2) fails for want of descriptors or memory,\n"
"or because `fd` is no listening socket, the listener rests 100 ms at a time and `on_error` is called with\n"
"the OSError, at most once a second.  Raises RuntimeError for the 65th listener of a driver.");

PyDoc_STRVAR(driver_unlisten_doc,
"unlisten($self, fd=None, /)\n"
"--\n"
"\n"
"Stop accepting, on one listening socket or on all.\n"
"\n"
"One may be closed at once, and its port is then free; all of them may be closed once listeners_armed is 0.\n"
"On another thread, while the loop does not run, and in a forked child: the ring that there is holds the\n"
"sockets until it ends.");

PyDoc_STRVAR(driver_accept_doc,
"accept($self, fd, /)\n"
"--\n"
"\n"
"Take one connection of the listening socket `fd`, which other processes may hold as well.\n"
"\n"
"It must be O_NONBLOCK.  The result is a connection of asyncio, with TCP_NODELAY set; None when there is\n"
"none: another process was faster, or there is no room for it and it was closed (Counters.accepts_shed).\n"
"Raises the OSError of accept4(2); EMFILE, ENFILE, ENOBUFS and ENOMEM are counted (Counters.accept_pauses).");

PyDoc_STRVAR(driver_adopt_doc,
"_adopt($self, fd, lent, /)\n"
"--\n"
"\n"
"Take a connected TCP socket over; None, and nothing has changed, when there is no room for it.\n"
"\n"
"`fd` is the connection's to close from then on.  A `lent` one stays the caller's, who may close it at any\n"
"time: the connection then works on a duplicate.");

PyDoc_STRVAR(driver_wake_doc,
"wake($self, /)\n"
"--\n"
"\n"
"End a wait(); from any thread.");

PyDoc_STRVAR(driver_connections_doc,
"connections($self, /)\n"
"--\n"
"\n"
"A list of the connections that have not ended.");

PyDoc_STRVAR(driver_counters_doc,
"counters($self, /)\n"
"--\n"
"\n"
"What the core has counted, by the names of ioxide.Counters.  From any thread.");

PyDoc_STRVAR(driver_begin_run_doc,
"begin_run($self, /)\n"
"--\n"
"\n"
"The loop runs on the calling thread, which is the ring's, until end_run().\n"
"\n"
"The ring is entered by an index of that thread's, if it was opened so.");

PyDoc_STRVAR(driver_end_run_doc,
"end_run($self, /)\n"
"--\n"
"\n"
"The loop has stopped: nothing of the ring is left in the thread's keeping.\n"
"\n"
"Does nothing where the ring is not the caller's: a child that was forked inside a run leaves it, too.");

PyDoc_STRVAR(driver_close_doc,
"close($self, /)\n"
"--\n"
"\n"
"End every operation, give back buffers and slabs, close the ring and the eventfd.\n"
"\n"
"False when the kernel did not let go of an operation within 5 s; its memory then stays mapped.  Raises\n"
"RuntimeError on another thread, and from inside another of these calls.");

PyDoc_STRVAR(driver_abandon_doc,
"abandon($self, /)\n"
"--\n"
"\n"
"close() on another thread than the ring's, and in a forked child.\n"
"\n"
"The kernel ends by itself what it still has.  Raises RuntimeError while the ring's loop runs, and in a child\n"
"for connections of the parent's, which it shares.");

PyDoc_STRVAR(driver_listeners_armed_doc,
"Listeners that the kernel still has an accept of.");

PyDoc_STRVAR(driver_connection_count_doc,
"Connections that have not ended.");

PyDoc_STRVAR(driver_listener_count_doc,
"Listening sockets that are accepted on.");

PyDoc_STRVAR(driver_here_doc,
"Whether the calling thread, of this very process, is the one that uses the ring.");

PyDoc_STRVAR(driver_closed_doc,
"Whether close() or abandon() has ended it.");

PyDoc_STRVAR(driver_ready_count_doc,
"Tasks and connections that are to go on.");

PyDoc_STRVAR(driver_forked_doc,
"Whether this is a forked child of the process that made it.");

PyDoc_STRVAR(driver_ring_fd_registered_doc,
"Whether the ring is entered by an index of its thread's instead of its descriptor.");

PyDoc_STRVAR(driver_ring_fd_doc,
"The ring's descriptor.  Raises RuntimeError when the driver is closed, as the next three do.");

PyDoc_STRVAR(driver_features_doc,
"The IORING_FEAT_ bits that io_uring_setup(2) returned.");

PyDoc_STRVAR(driver_sq_entries_doc,
"Entries of the submission queue, as the kernel rounded them.");

PyDoc_STRVAR(driver_cq_entries_doc,
"Entries of the completion queue, as the kernel rounded them.");

PyDoc_STRVAR(driver_wake_fd_doc,
"The eventfd that other threads' wakes are written to.");

PyDoc_STRVAR(driver_loop_doc,
"The loop of attach(); None before, and after close().");

PyDoc_STRVAR(driver_tick_doc,
"Which tick's callbacks run now; None while the ring waits.  From any thread.");

PyDoc_STRVAR(driver_enters_doc,
"How often io_uring_enter(2) was called.");

PyDoc_STRVAR(driver_generation_doc,
"For tests: the generation that was given out last; 24 bits, then from 1 again.");

static PyMethodDef driver_methods[] = {
	{ "attach", (PyCFunction)(void *)driver_attach, METH_VARARGS | METH_KEYWORDS, driver_attach_doc },
	{ "set_napi", (PyCFunction)driver_set_napi, METH_VARARGS, driver_set_napi_doc },
	{ "continue_by", (PyCFunction)driver_continue_by, METH_VARARGS, driver_continue_by_doc },
	{ "wait", (PyCFunction)iox_driver_wait, METH_O, driver_wait_doc },
	{ "dispatch", (PyCFunction)iox_driver_dispatch, METH_NOARGS, driver_dispatch_doc },
	{ "run_turns", (PyCFunction)(void *)iox_driver_run_turns, METH_FASTCALL, driver_run_turns_doc },
	{ "take_in", (PyCFunction)iox_driver_take_in, METH_NOARGS, driver_take_in_doc },
	{ "resume_batch", (PyCFunction)iox_driver_resume_batch, METH_NOARGS, driver_resume_batch_doc },
	{ "_feed", (PyCFunction)iox_driver_feed, METH_O, driver_feed_doc },
	{ "listen", (PyCFunction)(void *)iox_driver_listen, METH_FASTCALL, driver_listen_doc },
	{ "unlisten", (PyCFunction)(void *)iox_driver_unlisten, METH_FASTCALL, driver_unlisten_doc },
	{ "accept", (PyCFunction)iox_driver_accept, METH_O, driver_accept_doc },
	{ "_adopt", (PyCFunction)(void *)driver_adopt, METH_FASTCALL, driver_adopt_doc },
	{ "wake", (PyCFunction)driver_wake, METH_NOARGS, driver_wake_doc },
	{ "connections", (PyCFunction)driver_connections, METH_NOARGS, driver_connections_doc },
	{ "record", (PyCFunction)iox_driver_record, METH_NOARGS, driver_record_doc },
	{ "counters", (PyCFunction)driver_counters, METH_NOARGS, driver_counters_doc },
	{ "begin_run", (PyCFunction)iox_driver_begin_run, METH_NOARGS, driver_begin_run_doc },
	{ "end_run", (PyCFunction)iox_driver_end_run, METH_NOARGS, driver_end_run_doc },
	{ "close", (PyCFunction)iox_driver_close, METH_NOARGS, driver_close_doc },
	{ "abandon", (PyCFunction)iox_driver_abandon, METH_NOARGS, driver_abandon_doc },
	{ NULL },
};

static PyGetSetDef driver_getset[] = {
	{ "listeners_armed", (getter)driver_get_listeners_armed, NULL, driver_listeners_armed_doc, NULL },
	{ "connection_count", (getter)driver_get_connection_count, NULL, driver_connection_count_doc, NULL },
	{ "listener_count", (getter)driver_get_listener_count, NULL, driver_listener_count_doc, NULL },
	{ "here", (getter)driver_get_here, NULL, driver_here_doc, NULL },
	{ "closed", (getter)driver_get_closed, NULL, driver_closed_doc, NULL },
	{ "ready_count", (getter)driver_get_ready_count, NULL, driver_ready_count_doc, NULL },
	{ "forked", (getter)driver_get_forked, NULL, driver_forked_doc, NULL },
	{ "ring_fd_registered", (getter)driver_get_ring_fd_registered, NULL, driver_ring_fd_registered_doc, NULL },
	{ "ring_fd", (getter)driver_get_ring_fd, NULL, driver_ring_fd_doc, NULL },
	{ "features", (getter)driver_get_features, NULL, driver_features_doc, NULL },
	{ "sq_entries", (getter)driver_get_sq_entries, NULL, driver_sq_entries_doc, NULL },
	{ "cq_entries", (getter)driver_get_cq_entries, NULL, driver_cq_entries_doc, NULL },
	{ "wake_fd", (getter)driver_get_wake_fd, NULL, driver_wake_fd_doc, NULL },
	{ "loop", (getter)driver_get_loop, NULL, driver_loop_doc, NULL },
	{ "tick", (getter)driver_get_tick, NULL, driver_tick_doc, NULL },
	{ "enters", (getter)driver_get_enters, NULL, driver_enters_doc, NULL },
	{ "_generation", (getter)driver_get_generation, (setter)driver_set_generation,
	  driver_generation_doc, NULL },
	{ NULL },
};

static PyType_Slot driver_slots[] = {
	{ Py_tp_doc, (void *)driver_doc },
	{ Py_tp_new, (void *)driver_new },
	{ Py_tp_dealloc, (void *)driver_dealloc },
	{ Py_tp_traverse, (void *)driver_traverse },
	{ Py_tp_clear, (void *)driver_clear },
	{ Py_tp_methods, (void *)driver_methods },
	{ Py_tp_getset, (void *)driver_getset },
	{ 0, NULL },
};

PyType_Spec iox_DriverSpec = {
	.name = "ioxide._ring._core.Driver",
	.basicsize = sizeof(Driver),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
	.slots = driver_slots,
};

PyTypeObject *iox_DriverType;
