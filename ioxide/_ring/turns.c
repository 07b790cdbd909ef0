/* SPDX-License-Identifier: MIT */
/*
 * Turns of the loop, as asyncio's _run_once() (CPython 3.11 to 3.14): timers that were cancelled are dropped,
 * the ring's tick, timers that are due, and the callbacks that are ready by then.  Ticks of which nothing
 * comes but what the core does itself follow each other without a turn.
 *
 * Debug mode, a _process_events() or a _run_once() that somebody has put into the loop end the turns here:
 * asyncio's own code, or theirs, goes on.
 */
#include "turns.h"

#include "clock.h"
#include "dispatch.h"
#include "handles.h"
#include "scheduling.h"
#include "wake.h"

/* What run_turns() is given. */
enum { LOOP, SELECTOR, DRIVER, MANY, ARGUMENTS };

/* A loop that runs: all of them strong references. */
struct run {
	PyObject *loop, *selector, *driver; /* ioxide.Driver */
	PyObject *dict;                     /* of the loop */
	PyObject *ready, *scheduled, *posts; /* as they are in this turn */
	PyObject *run_once;          /* of the loop's class, when it began */
	uint64_t paused;             /* ms, see pause_between() */
};

/* How often other threads may run between callbacks, in ms: as often as Python code lets them. */
enum { PAUSE_MS = 5 };

/* What a turn's ticks came to. */
enum came { FAILED = -1, BATCH, BATCH_AND_POLL, READY_FIRST };

static Py_ssize_t most_timers;  /* of which so many as... */
static double most_cancelled;   /* ...this fraction may be cancelled (asyncio.base_events) */
static double longest_wait;     /* s */
static PyObject *pause_function; /* of Python, which does nothing */

static PyObject *str_asleep, *str_rouse, *str_watchdog, *str_stopping, *str_debug, *str_process_events;
static PyObject *str_ready, *str_scheduled, *str_run_once, *str_popleft, *str_append, *str_cancelled_count;
static PyObject *str_posts, *str_resolution, *str_drop_cancelled, *str_queue_due, *str_follow;

/* The watchdog rests while nothing happens; what happens now is a reason to look again. */
static int rouse(PyObject *selector)
{
	PyObject *watchdog = PyObject_GetAttr(selector, str_watchdog), *asleep, *result;
	int rests;

	if (!watchdog)
		return -1;
	asleep = PyObject_GetAttr(watchdog, str_asleep);
	rests = asleep ? PyObject_IsTrue(asleep) : -1;
	Py_XDECREF(asleep);
	if (rests > 0) {
		result = PyObject_CallMethodNoArgs(watchdog, str_rouse);
		rests = result ? 0 : -1;
		Py_XDECREF(result);
	}
	Py_DECREF(watchdog);
	return rests;
}

/* 1 true, 0 false or not there, -1 an exception */
static int truth(PyObject *dict, PyObject *name)
{
	PyObject *value = PyDict_GetItemWithError(dict, name);

	if (!value)
		return PyErr_Occurred() ? -1 : 0;
	return value == Py_False ? 0 : value == Py_True ? 1 : PyObject_IsTrue(value);
}

/* Whether the loop is not to go on here; 1, 0 or -1. */
static int asked(const struct run *run)
{
	int ret = truth(run->dict, str_stopping);

	if (!ret)
		ret = truth(run->dict, str_debug);
	if (!ret)
		ret = PyDict_Contains(run->dict, str_process_events);
	return ret;
}

/* The timers as they were: how many, and which is due first. */
struct timers {
	Py_ssize_t count;
	PyObject *first; /* only compared */
};

static struct timers timers_of(PyObject *scheduled)
{
	struct timers found = { .count = PyList_GET_SIZE(scheduled) };

	if (found.count)
		found.first = PyList_GET_ITEM(scheduled, 0);
	return found;
}

/* Whether there is nothing but the next tick to be run; 1, 0 or -1. */
static int nothing_else(const struct run *run, const struct timers *before)
{
	struct timers now = timers_of(run->scheduled);
	Py_ssize_t waiting;
	int ret;

	if (now.count != before->count || now.first != before->first)
		return 0;
	waiting = PyObject_Size(run->ready);
	if (waiting == 0)
		waiting = PyObject_Size(run->posts);
	if (waiting)
		return waiting < 0 ? -1 : 0;
	ret = asked(run);
	if (ret || !now.count)
		return ret < 0 ? -1 : !ret;
	return iox_loop_time_is_real(run->loop, run->dict); /* or a callback may have moved it */
}

/* `timeout` is in seconds; negative: for ever. */
static PyObject *as_timeout(double seconds)
{
	return seconds < 0 ? Py_NewRef(Py_None) : PyFloat_FromDouble(seconds);
}

/*
 * wait() and dispatch(), and again while there is nothing else to do.  Callbacks that are ready after a wait
 * were scheduled before the batch came in, and come first: that batch is not dispatched.
 */
static enum came run_ticks(Driver *self, const struct run *run, double seconds)
{
	struct timers before = timers_of(run->scheduled);
	int64_t until = seconds < 0 ? -1 : iox_clock_ns() + (seconds > 1e9 ? (int64_t)1e18 : (int64_t)(seconds * 1e9));
	PyObject *timeout = as_timeout(seconds), *result = NULL;
	enum came came = FAILED;
	int go_on = timeout ? 1 : -1;

	while (go_on > 0) {
		Py_ssize_t waiting;

		go_on = -1;
		Py_XSETREF(result, iox_driver_wait(self, timeout));
		if (!result || rouse(run->selector) < 0 || (waiting = PyObject_Size(run->ready)) < 0)
			break;
		if (waiting) {
			came = READY_FIRST;
			go_on = 0;
			break;
		}
		Py_SETREF(result, iox_driver_dispatch(self, NULL));
		if (!result)
			break;
		came = result == Py_True ? BATCH_AND_POLL : BATCH;
		go_on = came == BATCH ? nothing_else(run, &before) : 0;
		if (go_on > 0 && until >= 0) {
			int64_t left = until - iox_clock_ns();

			go_on = left > 0;
			if (go_on) {
				Py_SETREF(timeout, PyFloat_FromDouble((double)left / 1e9));
				go_on = timeout ? 1 : -1;
			}
		}
	}
	Py_XDECREF(timeout);
	Py_XDECREF(result);
	return go_on < 0 ? FAILED : came;
}

static int call_loop(const struct run *run, PyObject *name)
{
	PyObject *result = PyObject_CallMethodNoArgs(run->loop, name);

	Py_XDECREF(result);
	return result ? 0 : -1;
}

/* One fewer in the heap that is cancelled. */
static int count_dropped(const struct run *run)
{
	PyObject *count = PyDict_GetItemWithError(run->dict, str_cancelled_count), *less;
	long value = count ? PyLong_AsLong(count) : -1;
	int ret;

	if (!count || (value == -1 && PyErr_Occurred())) {
		if (!PyErr_Occurred())
			PyErr_SetObject(PyExc_AttributeError, str_cancelled_count);
		return -1;
	}
	less = PyLong_FromLong(value - 1);
	ret = less ? PyDict_SetItem(run->dict, str_cancelled_count, less) : -1;
	Py_XDECREF(less);
	return ret;
}

/* Takes the first timer out of the heap; NULL with an exception set. */
static PyObject *pop_timer(const struct run *run)
{
	PyObject *timer = iox_heap_pop(run->scheduled);

	if (timer && iox_handle_is_timer(timer))
		iox_timer_set_scheduled(timer, false);
	return timer;
}

/* Timers at the head of the heap that were cancelled; all of them, where they are too many. */
static int drop_cancelled(struct run *run)
{
	PyObject *count;

	if (PyList_GET_SIZE(run->scheduled) > most_timers) {
		count = PyDict_GetItemWithError(run->dict, str_cancelled_count);
		if (!count || PyLong_AsDouble(count) / (double)PyList_GET_SIZE(run->scheduled) > most_cancelled)
			return PyErr_Occurred() ? -1 : call_loop(run, str_drop_cancelled);
	}
	while (PyList_GET_SIZE(run->scheduled)) {
		PyObject *first = PyList_GET_ITEM(run->scheduled, 0);

		if (!iox_handle_is_timer(first))
			return call_loop(run, str_drop_cancelled);
		if (!iox_timer_cancelled(first))
			break;
		if (count_dropped(run) < 0 || !(first = pop_timer(run)))
			return -1;
		Py_DECREF(first);
	}
	return 0;
}

/* How long the loop may wait, in seconds; negative: for ever.  -1 with an exception set. */
static int next_timeout(const struct run *run, double *seconds)
{
	Py_ssize_t waiting = PyObject_Size(run->ready);
	int stopping = waiting ? 0 : truth(run->dict, str_stopping);
	PyObject *first, *when;
	double now, due;

	*seconds = waiting || stopping ? 0 : -1;
	if (waiting < 0 || stopping < 0)
		return -1;
	if (*seconds == 0 || !PyList_GET_SIZE(run->scheduled))
		return 0;
	first = PyList_GET_ITEM(run->scheduled, 0);
	if (iox_handle_is_timer(first)) {
		due = iox_timer_when(first);
	} else {
		when = PyObject_GetAttrString(first, "_when");
		due = when ? PyFloat_AsDouble(when) : -1.0;
		Py_XDECREF(when);
		if (due == -1.0 && PyErr_Occurred())
			return -1;
	}
	if (iox_loop_time(run->loop, run->dict, &now) < 0)
		return -1;
	*seconds = due - now > longest_wait ? longest_wait : due - now > 0 ? due - now : 0;
	return 0;
}

/* Timers whose time has come join the callbacks that are ready. */
static int queue_due(const struct run *run)
{
	PyObject *resolution = PyDict_GetItemWithError(run->dict, str_resolution), *timer, *result;
	double end;

	if (!resolution || !PyFloat_CheckExact(resolution))
		return PyErr_Occurred() ? -1 : call_loop(run, str_queue_due);
	if (iox_loop_time(run->loop, run->dict, &end) < 0)
		return -1;
	end += PyFloat_AS_DOUBLE(resolution);
	while (PyList_GET_SIZE(run->scheduled)) {
		if (!iox_handle_is_timer(PyList_GET_ITEM(run->scheduled, 0)))
			return call_loop(run, str_queue_due);
		if (iox_timer_when(PyList_GET_ITEM(run->scheduled, 0)) >= end)
			break;
		timer = pop_timer(run);
		result = timer ? PyObject_CallMethodOneArg(run->ready, str_append, timer) : NULL;
		Py_XDECREF(timer);
		Py_XDECREF(result);
		if (!result)
			return -1;
	}
	return 0;
}

/*
 * Between two callbacks: signals, and from time to time what the interpreter does between two instructions
 * of Python code (it lets other threads run, and raises what PyThreadState_SetAsyncExc() has asked for).
 * Callbacks may be functions in C, which never do that.
 */
static int pause_between(struct run *run)
{
	PyObject *result;
	uint64_t now;

	if (PyErr_CheckSignals() < 0)
		return -1;
	now = iox_clock_coarse_ms();
	if (now - run->paused < PAUSE_MS)
		return 0;
	run->paused = now;
	result = PyObject_CallNoArgs(pause_function);
	Py_XDECREF(result);
	return result ? 0 : -1;
}

/* The callbacks that are ready now; what these schedule comes with the next turn. */
static int run_ready(struct run *run)
{
	Py_ssize_t count = PyObject_Size(run->ready);

	for (; count > 0; count--) {
		PyObject *ready = PyDict_GetItemWithError(run->dict, str_ready), *handle; /* it may be another one now */
		int ret;

		if (!ready && !PyErr_Occurred())
			PyErr_SetObject(PyExc_AttributeError, str_ready);
		handle = ready ? PyObject_CallMethodNoArgs(ready, str_popleft) : NULL;
		if (!handle) {
			if (!PyErr_ExceptionMatches(PyExc_IndexError))
				return -1;
			PyErr_Clear(); /* a nested turn has run what was left */
			return 0;
		}
		ret = iox_handle_run(handle);
		Py_DECREF(handle);
		if (ret < 0 || (count > 1 && pause_between(run) < 0))
			return -1;
	}
	return count < 0 ? -1 : 0;
}

/* The queues of the loop and of its driver, which may have been replaced since the last turn. */
static int look_up_queues(struct run *run)
{
	PyObject *ready = PyDict_GetItemWithError(run->dict, str_ready), *scheduled;

	Py_XSETREF(run->posts, PyObject_GetAttr(run->driver, str_posts));
	if (!run->posts)
		return -1;
	Py_XINCREF(ready);
	Py_XSETREF(run->ready, ready);
	scheduled = ready ? PyDict_GetItemWithError(run->dict, str_scheduled) : NULL;
	Py_XINCREF(scheduled);
	Py_XSETREF(run->scheduled, scheduled);
	if (scheduled && PyList_Check(scheduled))
		return 0;
	if (!PyErr_Occurred())
		PyErr_SetString(PyExc_TypeError, "the loop's _ready or _scheduled is not what asyncio makes it");
	return -1;
}

/*
 * What else a batch brings: posts, and descriptors that epoll has found ready.  A batch that comes in behind
 * callbacks that are ready is resumed behind them, if there is anything to be resumed.
 */
static int follow(Driver *self, struct run *run, enum came came)
{
	bool polled = came == BATCH_AND_POLL, behind = false;
	Py_ssize_t posts = PyObject_Size(run->posts);
	PyObject *result;

	if (posts < 0)
		return -1;
	if (came == READY_FIRST) {
		result = iox_driver_take_in(self, NULL);
		if (!result)
			return -1;
		polled = result == Py_True;
		Py_DECREF(result);
		behind = posts || iox_driver_has_batch(self);
	}
	if (!posts && !polled && !behind)
		return 0;
	result = PyObject_CallMethodObjArgs(run->loop, str_follow, polled ? Py_True : Py_False,
					    behind ? Py_True : Py_False, NULL);
	Py_XDECREF(result);
	return result ? look_up_queues(run) : -1; /* a post may have run a nested turn */
}

static int run_turn(Driver *self, struct run *run)
{
	enum came came;
	double seconds;

	if (look_up_queues(run) < 0)
		return -1;
	if (PyList_GET_SIZE(run->scheduled) && (drop_cancelled(run) < 0 || look_up_queues(run) < 0))
		return -1;
	if (next_timeout(run, &seconds) < 0)
		return -1;
	came = run_ticks(self, run, seconds);
	if (came == FAILED) {
		iox_driver_wake(self); /* posts whose wake was in this batch: the next tick must not block */
		return -1;
	}
	if (follow(self, run, came) < 0)
		return -1;
	if (PyList_GET_SIZE(run->scheduled) && queue_due(run) < 0)
		return -1;
	return run_ready(run);
}

/* Whether the next turn is to follow here; 1, 0 or -1. */
static int go_on(const struct run *run)
{
	int ret = asked(run);

	if (!ret)
		ret = _PyType_Lookup(Py_TYPE(run->loop), str_run_once) != run->run_once ||
		      PyDict_Contains(run->dict, str_run_once);
	return ret < 0 ? -1 : !ret;
}

PyObject *iox_driver_run_turns(Driver *self, PyObject *const *args, Py_ssize_t nargs)
{
	struct run run = { NULL };
	int ret = -1;

	if (nargs != ARGUMENTS) {
		PyErr_SetString(PyExc_TypeError, "run_turns(loop, selector, driver, many)");
		return NULL;
	}
	run.dict = PyObject_GenericGetDict(args[LOOP], NULL);
	if (!run.dict)
		return NULL;
	run.loop = Py_NewRef(args[LOOP]);
	run.selector = Py_NewRef(args[SELECTOR]);
	run.driver = Py_NewRef(args[DRIVER]);
	run.run_once = Py_XNewRef(_PyType_Lookup(Py_TYPE(run.loop), str_run_once));
	do {
		ret = run_turn(self, &run);
		if (ret == 0 && args[MANY] == Py_True)
			ret = go_on(&run);
	} while (ret > 0);
	Py_DECREF(run.loop);
	Py_DECREF(run.selector);
	Py_DECREF(run.driver);
	Py_DECREF(run.dict);
	Py_XDECREF(run.posts);
	Py_XDECREF(run.ready);
	Py_XDECREF(run.scheduled);
	Py_XDECREF(run.run_once);
	return ret < 0 ? NULL : Py_NewRef(Py_None);
}

static double constant_of(PyObject *module, const char *name)
{
	PyObject *value = PyObject_GetAttrString(module, name);
	double number = value ? PyFloat_AsDouble(value) : -1.0;

	Py_XDECREF(value);
	return number;
}

static int make_pause(void)
{
	PyObject *names = PyDict_New(), *result;

	result = names ? PyRun_String("def pause(): pass", Py_file_input, names, names) : NULL;
	pause_function = result ? Py_XNewRef(PyDict_GetItemString(names, "pause")) : NULL;
	Py_XDECREF(result);
	Py_XDECREF(names);
	return pause_function ? 0 : -1;
}

/* asyncio's own limits, which are private there. */
static int read_limits(void)
{
	PyObject *module = PyImport_ImportModule("asyncio.base_events");

	if (!module)
		return -1;
	most_timers = (Py_ssize_t)constant_of(module, "_MIN_SCHEDULED_TIMER_HANDLES");
	most_cancelled = constant_of(module, "_MIN_CANCELLED_TIMER_HANDLES_FRACTION");
	longest_wait = constant_of(module, "MAXIMUM_SELECT_TIMEOUT");
	Py_DECREF(module);
	return PyErr_Occurred() ? -1 : 0;
}

int iox_turns_init(void)
{
	static const struct {
		PyObject **place;
		const char *name;
	} names[] = {
		{ &str_asleep, "asleep" },
		{ &str_rouse, "rouse" },
		{ &str_watchdog, "watchdog" },
		{ &str_stopping, "_stopping" },
		{ &str_debug, "_debug" },
		{ &str_process_events, "_process_events" },
		{ &str_ready, "_ready" },
		{ &str_scheduled, "_scheduled" },
		{ &str_run_once, "_run_once" },
		{ &str_popleft, "popleft" },
		{ &str_append, "append" },
		{ &str_cancelled_count, "_timer_cancelled_count" },
		{ &str_posts, "posts" },
		{ &str_resolution, "_clock_resolution" },
		{ &str_drop_cancelled, "_drop_cancelled_timers" },
		{ &str_queue_due, "_queue_due_timers" },
		{ &str_follow, "_follow" },
	};

	for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++)
		if (!(*names[i].place = PyUnicode_InternFromString(names[i].name)))
			return -1;
	return make_pause() < 0 ? -1 : read_limits();
}
