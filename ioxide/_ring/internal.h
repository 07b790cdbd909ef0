/* SPDX-License-Identifier: MIT */
/*
 * The CPython types of the hot path and how they hang together.
 *
 *   Driver      the ring's owner: table, queues, clocks, counters; wait() and dispatch()
 *   Connection  one accepted socket: receive queue, write slabs, its life
 *   Await       what recv(), read() and flush() return
 *   Waiter      the future-like that an Await yields to asyncio's Task, privately
 *   Slice       one received buffer lent out without copying
 *
 * Everything here belongs to the reactor thread.  The GIL is held throughout but for what may block in
 * the kernel: io_uring_enter(2) in wait() and close(), and the registration of the receive buffers; the
 * few calls that other threads may make say so.
 */
#ifndef IOX_INTERNAL_H
#define IOX_INTERNAL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef Py_GIL_DISABLED
#error "ioxide relies on the GIL between wait() and other threads' wakes, returns and counters"
#endif

#include "group.h"
#include "memory.h"
#include "ring.h"

/*
 * Until 3.11 allocating an object that the collector tracks may run the collector, and that finalizers,
 * which may do anything to anything here.  So the core allocates with the collector held: what it has
 * looked at before is still so afterwards.  The collection then comes with the interpreter's next
 * allocation.  From 3.12 on an allocation only asks for one, which the interpreter runs later.
 *
 * Raising an exception allocates, too, and is not held: it is the last thing that a function does.
 */
static inline int iox_collector_hold(void)
{
#if PY_VERSION_HEX < 0x030C0000
	return PyGC_Disable();
#else
	return 0;
#endif
}

static inline void iox_collector_release(int held)
{
	if (held)
		PyGC_Enable();
}

/* user_data of every submission: kind (8 bits) | generation (24) | slot (32) */
enum iox_kind {
	IOX_KIND_ACCEPT = 1,
	IOX_KIND_RECV,
	IOX_KIND_SEND,
	IOX_KIND_WAKE,
	IOX_KIND_POLL,
	IOX_KIND_CANCEL,
};

#define IOX_GENERATION_MASK 0xffffffU

static inline uint64_t iox_user_data(enum iox_kind kind, uint32_t generation, uint32_t slot)
{
	return (uint64_t)kind << 56 | (uint64_t)generation << 32 | slot;
}

/*
 * Counted on the reactor thread, read from any (a torn read is impossible: aligned 64-bit words
 * under the GIL).  The order here is the order of ioxide.Counters.
 */
#define IOX_COUNTERS(X)                                                                        \
	X(accepts)            /* connections taken */                                          \
	X(adoptions)          /* connected descriptors taken over from asyncio */              \
	X(accepts_shed)       /* closed at once: the cap was reached, or no memory */          \
	X(accept_pauses)      /* listeners parked by EMFILE, ENFILE, ENOBUFS or ENOMEM */      \
	X(accept_rearms)      /* multishot accepts ended by the kernel and armed again */      \
	X(accept_wakes)       /* a listener that others may hold was ready: one accept4(2) */  \
	X(accept_misses)      /* of these, found nobody: another process was faster */         \
	X(closes)             /* connections whose descriptor was closed */                    \
	X(closes_eof)         /* of these, ended in order: FIN both ways, or reading was over */ \
	X(closes_error)       /* by a reset, a lost peer, or for want of memory */             \
	X(closes_read_timeout)                                                                 \
	X(closes_send_timeout)                                                                 \
	X(closes_fault)       /* the handler raised, or could not be started */                \
	X(closes_abort)       /* by abort() */                                                 \
	X(closes_stop)        /* what was left when the reactor stopped */                     \
	X(aborts)             /* of these, cut off: timeout, abort(), stop */                  \
	X(read_timeouts)      /* read clocks that ran out */                                   \
	X(send_timeouts)      /* send clocks, and the kernel's on a FIN's way, that ran out */ \
	X(bytes_received)                                                                      \
	X(bytes_unread)       /* of these received, thrown away with nobody to read them */     \
	X(bytes_sent)                                                                          \
	X(bytes_unsent)       /* staged on connections that ended before they were taken */     \
	X(recv_rearms)        /* multishot receives armed again */                             \
	X(recv_enobufs)       /* receives parked because no buffer was left */                 \
	X(recv_bundles)       /* completions that spanned more than one buffer */              \
	X(recv_appends)       /* completions that went on in a part-filled buffer */           \
	X(recv_pauses)        /* receives paused: their queue was full, or buffers were short */ \
	X(recv_copies)        /* runs copied out of shared buffers because these were short */ \
	X(sends)              /* sends submitted, of any kind */                               \
	X(sends_vectored)     /* of these, messages of more than one slab: SENDMSG(_ZC) */     \
	X(sends_zc)           /* of these, zero-copy ones that took the memory */              \
	X(zc_fallbacks)       /* SEND_ZC refused and done again as SEND */                     \
	X(zc_notifs)          /* notifications of SEND_ZC */                                   \
	X(zc_copied)          /* of these, telling that the kernel copied after all (6.2) */   \
	X(partial_sends)      /* of these, continued after a short result */                   \
	X(wakeups)            /* parked tasks resumed */                                       \
	X(wakeup_faults)      /* resumptions that raised */                                    \
	X(enters)             /* io_uring_enter(2) calls */                                    \
	X(enters_timed)       /* of these, waits with a deadline: clock, timer, ticker */      \
	X(enter_eintr)                                                                         \
	X(enter_eagain)                                                                        \
	X(enter_ebusy)                                                                         \
	X(cqes)               /* completions reaped */                                         \
	X(cq_overflow_events) /* batches that found IORING_SQ_CQ_OVERFLOW set */               \
	X(cqes_dropped)       /* completions the kernel had no memory to keep */               \
	X(stale_cqes)         /* completions of a connection that is gone */                   \
	X(unknown_cqes)       /* completions of no known kind, slot or buffer */               \
	X(sq_full_flushes)    /* submissions forced early by a full submission queue */        \
	X(wake_writes)        /* eventfd writes */                                             \
	X(wake_cqes)          /* eventfd reads completed */                                    \
	X(wakes_coalesced)    /* wakes that found one already pending */                       \
	X(poll_rearms)        /* polls of the loop's epoll instance that fired */              \
	X(foreign_writes)     /* writes queued by other threads */                             \
	X(foreign_flushes)    /* flushes queued by other threads */                            \
	X(foreign_closes)     /* closes queued by other threads */                             \
	X(foreign_returns)    /* buffers given back by other threads */                        \
	X(handoffs)           /* times a worker was told of tasks to resume (pool modes) */    \
	X(foreign_drops)      /* queued writes whose connection had ended when they ran */     \
	X(memory_faults)      /* operations that ended with EFAULT: memory given up too early */ \
	X(slab_hits)                                                                           \
	X(slab_misses)                                                                         \
	X(slab_grows)

struct iox_counters {
#define X(name) uint64_t name;
	IOX_COUNTERS(X)
#undef X
};

/* Doubly linked list node; a node that points at itself is in no list. */
struct iox_node {
	struct iox_node *prev, *next;
};

static inline void iox_list_init(struct iox_node *node)
{
	node->prev = node->next = node;
}

static inline bool iox_list_linked(const struct iox_node *node)
{
	return node->next != node;
}

static inline void iox_list_remove(struct iox_node *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	iox_list_init(node);
}

static inline void iox_list_append(struct iox_node *head, struct iox_node *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/* Moves all of `from` to the front of `head`. */
static inline void iox_list_put_first(struct iox_node *head, struct iox_node *from)
{
	if (!iox_list_linked(from))
		return;
	from->prev->next = head->next;
	head->next->prev = from->prev;
	head->next = from->next;
	from->next->prev = head;
	iox_list_init(from);
}

#define IOX_LISTS_INIT(...)                                                              \
	do {                                                                             \
		struct iox_node *nodes[] = { __VA_ARGS__ };                              \
									                 \
		for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++)            \
			iox_list_init(nodes[i]);                                         \
	} while (0)

#define IOX_ENTRY(node, type, member) ((type *)((char *)(node) - offsetof(type, member)))

struct Connection;
struct Driver;

/* Why a connection ended; what happened first counts. */
enum iox_cause {
	IOX_CAUSE_NONE,
	IOX_CAUSE_EOF,
	IOX_CAUSE_ERROR,
	IOX_CAUSE_READ_TIMEOUT,
	IOX_CAUSE_SEND_TIMEOUT,
	IOX_CAUSE_FAULT,
	IOX_CAUSE_ABORT,
	IOX_CAUSE_STOP,
};

enum iox_waiter_state {
	IOX_WAITER_IDLE,
	IOX_WAITER_PENDING,   /* a task is parked on it */
	IOX_WAITER_WOKEN,     /* completed; its task is resumed at the end of the batch */
	IOX_WAITER_CANCELLED, /* cancelled; likewise */
	IOX_WAITER_DONE,
};

typedef struct Waiter {
	PyObject_HEAD
	struct Driver *driver;   /* strong */
	struct Worker *home;     /* strong; where its task lives, NULL: on the reactor */
	PyObject *callback;      /* the Task's wake-up, while parked */
	PyObject *context;
	PyObject *cancel_message;
	struct iox_node ready;   /* in the queue of its home, which then holds a reference */
	struct iox_node flushes; /* in conn->flushes */
	uint64_t target;         /* flush: bytes that must have been sent */
	enum iox_waiter_state state;
	bool cancelled, blocking;
	bool settles;            /* the callback settles a future, which close() must not forget */
	bool standing;           /* a transport's: called anew each time it is woken */
} Waiter;

/* A target that is set when the reactor takes the flush: all that was written until then. */
#define IOX_TARGET_NOW UINT64_MAX

enum iox_await_kind { IOX_AWAIT_RECV, IOX_AWAIT_READ, IOX_AWAIT_FLUSH };
enum iox_await_state { IOX_AWAIT_FRESH, IOX_AWAIT_PARKED, IOX_AWAIT_FINISHED };

typedef struct Await {
	PyObject_HEAD
	struct Connection *conn; /* strong */
	Waiter *waiter;          /* strong, while parked */
	PyObject *origin;        /* where it was made, when that is tracked; see cr_origin */
	Py_ssize_t limit;        /* recv: at most so many bytes; -1 = all there is */
	uint64_t target;
	enum iox_await_kind kind;
	enum iox_await_state state;
	bool finalized;          /* tp_finalize is called once for an object: not recycled */
} Await;

/* The id of the shared group; those of connections (incremental mode) begin after it. */
#define IOX_SHARED_GROUP 1
#define IOX_FIRST_GROUP  2

/*
 * A run of received bytes: in one buffer of the connection's group, on which it holds a reference, or
 * copied out of such buffers into memory of its own.
 */
struct iox_chunk {
	uint32_t offset, length;
	uint16_t bid;
	char *memory; /* PyMem_RawMalloc(), offset + length bytes; NULL: in a buffer */
};

/* What another thread asks of the reactor. */
enum iox_op_kind {
	IOX_OP_RETURN,
	IOX_OP_WRITE,
	IOX_OP_FLUSH,
	IOX_OP_CLOSE,
	IOX_OP_ABORT,
	IOX_OP_UNPAUSE, /* the queue of a paused receive was emptied */
};

struct iox_op {
	enum iox_op_kind kind;
	uint16_t bid;                    /* RETURN: a run released, in a buffer of `group` */
	union {
		struct iox_group *group; /* with a reference */
		struct Connection *conn; /* strong, the others */
	};
	PyObject *load;                  /* strong; WRITE: bytes, FLUSH: Waiter */
};

/*
 * In order: operations that were done and still hold their references, then those to be done.  A
 * reference is dropped where Python code may run, which is not where operations are done.
 */
struct iox_ops {
	struct iox_op *ops;
	uint32_t dropped, done, count, capacity;
};

#define IOX_INLINE_CHUNKS 4

/* What a connection still has to submit; a set bit keeps it in driver->staged. */
#define IOX_WANT_RECV   0x1
#define IOX_WANT_CANCEL 0x2 /* of the armed receive */
#define IOX_WANT_SEND   0x4
#define IOX_WANT_CANCEL_SEND 0x8
#define IOX_WANT_PLAIN_SEND  0x10 /* with WANT_SEND: not as SEND_ZC */

typedef struct Connection {
	PyObject_HEAD
	struct Driver *driver; /* strong */
	uint32_t slot, generation;
	int fd;

	/* Receive */
	struct iox_group *group;  /* the driver's, or in incremental mode our own; NULL at the end */
	struct iox_chunk *chunks, inline_chunks[IOX_INLINE_CHUNKS];
	uint32_t chunk_head, chunk_count, chunk_capacity;
	size_t queued_bytes;      /* in these runs */
	bool recv_armed, recv_cancelling, recv_paused;
	bool recv_starved;        /* incremental: parked until a buffer of our own group is free */
	bool at_eof;
	int recv_errno;
	const char *abort_reason; /* a literal; with recv_errno ECONNABORTED */
	Waiter *reader;           /* strong, from parking until its task is resumed */
	bool recv_held;           /* a transport that does not read, or not yet: not armed */

	/* Send: `staging` takes writes while `sending` belongs to the kernel */
	struct iox_batch staging, sending;
	size_t sent;              /* bytes of `sending` the kernel has taken */
	struct iox_batch notified; /* sent by SEND_ZC, ours again with its notification */
	bool notification_due;
	bool send_zc;             /* the SEND in flight, or the last one, is a SEND_ZC */
	uint64_t bytes_written, bytes_acked;
	size_t foreign_bytes;     /* written by other threads and not staged yet */
	uint64_t bytes_dropped;   /* of these, come too late for the connection */
	struct iox_node flushes;
	bool send_armed;
	int send_errno;
	bool eof_wanted, eof_sent; /* write_eof(): FIN after what is staged, reading goes on */

	/* The other face: an asyncio transport instead of a handler; see face.c */
	Waiter *face;             /* strong; called for whatever happens to the connection */
	bool face_reads;          /* it takes received bytes now */
	uint64_t face_acked;      /* it wants to hear when so many bytes were sent */

	/* Life */
	unsigned kernel_refs;     /* operations whose terminal completion is still to come */
	uint8_t want;
	bool nonblock;            /* other holders of the file know it as O_NONBLOCK: set at the end */
	bool served;              /* a handler's: clocks, write_limit and max_connections hold */
	PyObject *on_start;       /* whom it is handed to, once, if not to the driver's on_connection */
	bool reads_ended, closing, fin_sent, aborted;
	bool ending;              /* another thread has queued its close or abort */
	bool bounded;             /* after our FIN: the kernel drops what the peer does not take */
	uint8_t cause;            /* enum iox_cause */
	struct iox_node starting; /* in driver->starting, or in driver->over */
	struct iox_node staged, starved, read_clock, send_clock;
	uint64_t read_deadline, send_deadline; /* ms */

	PyObject *weakrefs;
} Connection;

typedef struct Slice {
	PyObject_HEAD
	struct Driver *driver; /* strong, until given back */
	struct iox_group *group; /* likewise with a reference */
	struct iox_chunk chunk;
	int exports;
	bool ended;            /* no new views */
} Slice;

struct iox_listener {
	int fd;
	uint32_t generation;
	bool used, armed, stopping;
	bool polls_late;   /* this kernel refused IOX_ACCEPT_POLL_FIRST */
	uint64_t retry_at; /* ms; 0 = not parked */
	PyObject *on_connection; /* asyncio's create_server(); NULL: the connections are handlers' */
	PyObject *on_error; /* called with an OSError; NULL: failures are only counted */
	int error;         /* an errno that on_error has not been told of, or 0 */
	uint64_t told_at;  /* ms; when on_error was last told, 0 = never */
};

#define IOX_MAX_LISTENERS 64

typedef struct Driver {
	PyObject_HEAD
	iox_ring *ring;
	uint64_t owner;           /* iox_thread_number() of the thread that made it: its ring's for good */
	unsigned long thread;     /* its ident, for messages */
	unsigned forks;           /* iox_forks when it was made */
	PyObject *loop, *on_connection, *on_fault;
	PyTypeObject *connection_type;

	/* Limits; see ServerConfig */
	uint32_t recv_queue_entries, max_connections;
	size_t recv_queue_bytes, write_limit;
	uint64_t read_timeout, send_timeout; /* ms; 0 = off */
	unsigned min_wait_us, min_wait_nr;
	bool zero_copy, zero_copy_report;

	Connection **slots;
	uint32_t *free_slots;
	uint32_t slot_count, free_count, connection_count, generation;
	uint32_t served_count;    /* of the connections, those that max_connections is about */

	struct iox_node ready;    /* Waiters whose task is to be resumed */
	struct iox_node next;     /* standing Waiters to be called again with the next tick */
	struct iox_node starting; /* Connections to hand to on_connection */
	struct iox_node over;     /* Connections that have ended, each with the table's reference */
	struct iox_node staged;   /* Connections with something to submit */
	struct iox_node starved;  /* shared: Connections parked without a buffer, oldest first */
	struct iox_node read_clocks, send_clocks; /* soonest deadline first */
	uint64_t now;             /* ms, read once a batch */

	struct iox_listener listeners[IOX_MAX_LISTENERS];
	unsigned listeners_armed;
	bool accepting;
	bool accepts_failed;      /* a listener has an error to tell of */

	struct iox_group *shared; /* NULL in incremental mode */
	uint32_t vacated;         /* slot of the connection whose runs were copied out last */
	size_t copied_bytes;      /* memory of runs that were copied out */
	uint64_t trim_at;         /* ms; when unused memory is given back, 0: there is none */
	bool bundle;
	uint32_t group_slots, group_size;  /* incremental: buffers of a connection, and their bytes */
	uint16_t *free_groups;    /* ids */
	uint32_t free_group_count;
	struct iox_ops foreign;   /* from other threads */
	uint32_t slices_out;

	int wake_fd;
	uint64_t wake_value;
	int wake_pending;         /* atomic: a wake is written and not yet read */
	bool wake_armed;
	bool nudged;              /* wake() on the reactor's own thread */
	bool wake_each;           /* every foreign call writes a wake of its own (mode pool) */
	uint64_t sleeping_until;  /* ms; 0: not in wait(), UINT64_MAX: until something completes */
	uint32_t drops_told;      /* completions that the kernel dropped, and wait() has raised for */

	PyObject *on_resume;      /* posted: gets what resumes a task, instead of resuming it now */
	struct iox_node handing;  /* Workers that have not been told of something */
	unsigned workers;

	int poll_fd;              /* the loop's epoll instance, or -1 */
	bool poll_armed, poll_ready, poll_enabled;

	struct iox_slab_pool slabs;
	struct iox_counters counters;
	bool running;             /* between begin_run() and end_run() */
	bool waiting;             /* in io_uring_enter(2), without the GIL */
	const char *inside;       /* which of wait(), dispatch(), its halves and close() runs, or NULL */
	bool closed;
} Driver;

/* A thread with a loop of its own, where handlers live in the pool modes; see worker.c. */
typedef struct Worker {
	PyObject_HEAD
	Driver *driver;           /* strong */
	PyObject *loop;           /* NULL once it has ended */
	PyObject *on_connection;
	PyObject *starting;       /* connections to hand to on_connection */
	struct iox_node ready;    /* Waiters whose task is to be resumed */
	struct iox_node handing;  /* in driver->handing */
	bool scheduled;           /* its loop will call drain() */
} Worker;

extern PyTypeObject iox_DriverType, iox_ConnectionType, iox_WaiterType, iox_AwaitType, iox_SliceType,
	iox_WorkerType;

/* core.c */
extern unsigned iox_forks; /* grows in the child of a fork(2), where the ring is still the parent's */
/*
 * Who calls: never 0, and never anybody else's, while a thread's ident is given to the next one when it
 * has ended.  A forked child's only thread has another than the one that it is a copy of.
 */
uint64_t iox_thread_number(void);

static inline bool iox_driver_is_here(const Driver *driver)
{
	return driver->owner == iox_thread_number();
}

/* waiter.c */
int iox_waiter_init(void); /* -1 with an exception set */
Waiter *iox_waiter_new(Driver *driver, PyObject *callback); /* NULL: a Task adds its own */
Waiter *iox_waiter_standing(Driver *driver, PyObject *callback, PyObject *context);
void iox_waiter_dismiss(Waiter *waiter); /* it is not called any more; drops the reference */
void iox_waiter_wake(Waiter *waiter);
void iox_waiter_wake_next(Waiter *waiter); /* with the next tick */
/* Resumes the waiter's task; -1 with an exception set when that raised. */
int iox_waiter_resume(Waiter *waiter);

/* awaitable.c */
PyObject *iox_await_new(Connection *conn, enum iox_await_kind kind, Py_ssize_t limit);

/* connection.c */
/* 0 on the reactor, 1 on one of its workers, -1 with an exception on any other thread. */
int iox_conn_check_thread(const Connection *conn);
/* -1 with an exception anywhere but on the reactor's own thread. */
int iox_conn_check_reactor(const Connection *conn);
void iox_raise_os_error(int error, const char *what); /* what: NULL for the error's own text */

/* life.c */
bool iox_conn_submit(Connection *conn); /* false: the submission queue is full */
void iox_conn_progress(Connection *conn);
void iox_conn_close(Connection *conn);
/* reason NULL: the stream was whole */
void iox_conn_abort(Connection *conn, enum iox_cause cause, const char *reason);
static inline void iox_conn_blame(Connection *conn, enum iox_cause cause)
{
	if (conn->cause == IOX_CAUSE_NONE)
		conn->cause = cause;
}
/* The kernel gave the peer up, which we had asked for after our FIN. */
void iox_conn_given_up(Connection *conn);

/* adopt.c */
Connection *iox_conn_new(Driver *driver, int fd, bool served); /* NULL: no room; fd stays the caller's */
PyObject *iox_driver_adopt(Driver *driver, PyObject *const *args, Py_ssize_t nargs);
bool iox_conn_block(Connection *conn); /* clears O_NONBLOCK; false: it was not set */

/* face.c */
void iox_face_received(Connection *conn);
void iox_face_sent(Connection *conn);
void iox_face_wake(Connection *conn);
bool iox_face_cut_off(const Connection *conn); /* what would be, were it ended now */
/* Methods of the type, for ioxide/transports.py */
PyObject *iox_face_attach(Connection *conn, PyObject *args);
PyObject *iox_face_detach(Connection *conn, PyObject *ignored);
PyObject *iox_face_read(Connection *conn, PyObject *reading);
PyObject *iox_face_take(Connection *conn, PyObject *limit);
PyObject *iox_face_take_into(Connection *conn, PyObject *buffer);
PyObject *iox_face_put(Connection *conn, PyObject *data);
PyObject *iox_face_watch(Connection *conn, PyObject *unsent);
PyObject *iox_face_check(Connection *conn, PyObject *ignored);
PyObject *iox_face_end_writes(Connection *conn, PyObject *ignored);
PyObject *iox_face_drop(Connection *conn, PyObject *ignored);

/* receive.c */
int iox_recv_ready(Connection *conn); /* 1 something to return, 0 wait, -1 exception */
PyObject *iox_recv_take(Connection *conn, Py_ssize_t limit);
size_t iox_recv_copy(Connection *conn, char *to, size_t limit); /* how many bytes it copied */
PyObject *iox_recv_take_slices(Connection *conn);
void iox_recv_park(Connection *conn, Waiter *waiter);
void iox_recv_wake(Connection *conn);
void iox_recv_discard(Connection *conn);
void iox_recv_unpause(Connection *conn); /* its queue was emptied; on the reactor */
void iox_recv_start_clock(Connection *conn);
uint64_t iox_recv_fin_timeout(const Connection *conn); /* ms a peer's FIN is waited for after ours */
void iox_recv_vacate(Connection *conn); /* copies its runs out of shared buffers, and pauses */
bool iox_recv_submit(Connection *conn);
void iox_recv_complete(Connection *conn, int res, unsigned flags);
void iox_recv_end(Connection *conn);   /* as if the peer had sent FIN; what is queued is delivered */
void iox_recv_close(Connection *conn); /* on close(): what is queued is thrown away */

/* send.c */
size_t iox_send_unsent(const Connection *conn);
bool iox_send_lent(const Connection *conn); /* the kernel reads memory of ours without a copy */
uint64_t iox_send_target(const Connection *conn); /* what acknowledges all written until now */
bool iox_send_pending(const Connection *conn, uint64_t target); /* it may still be reached */
int iox_send_check(Connection *conn, size_t length); /* -1: no so many bytes can be written */
bool iox_send_stage(Connection *conn, const void *data, size_t length); /* false: no memory */
PyObject *iox_send_write(Connection *conn, PyObject *data);
int iox_send_flush_state(Connection *conn, uint64_t target);
void iox_send_wake(Connection *conn, bool all);
void iox_send_drop(Connection *conn);
void iox_send_now(Connection *conn); /* by send(2), what is staged, when nothing is in flight */
bool iox_send_submit(Connection *conn);
void iox_send_complete(Connection *conn, int res, unsigned flags);

/* slice.c */
PyObject *iox_slice_new(Driver *driver, struct iox_group *group, struct iox_chunk chunk);

/* driver.c */
int iox_driver_check_owner(Driver *driver); /* -1 with an exception: closed, or another thread */
/* The same, and begins `what`: -1 also from inside another; whoever began ends, with inside = NULL. */
int iox_driver_begin(Driver *driver, const char *what);
void iox_driver_wake(Driver *driver);

/* dispatch.c */
/* Drops the references of what is over.  Runs Python code: weakrefs' callbacks and finalizers. */
void iox_driver_let_go(Driver *driver);
void iox_driver_take_next(Driver *driver); /* what was to be called with the next tick is called now */
int iox_driver_resume(Driver *driver, Waiter *waiter); /* reports what that raises; -1: it unwinds */
int iox_driver_report(Driver *driver, const char *what); /* a pending exception; -1: it unwinds */
/* Methods of the driver's type */
PyObject *iox_driver_begin_run(Driver *driver, PyObject *ignored);
PyObject *iox_driver_end_run(Driver *driver, PyObject *ignored);
PyObject *iox_driver_wait(Driver *driver, PyObject *timeout);
PyObject *iox_driver_dispatch(Driver *driver, PyObject *ignored);
PyObject *iox_driver_take_in(Driver *driver, PyObject *ignored);
PyObject *iox_driver_resume_batch(Driver *driver, PyObject *ignored);
PyObject *iox_driver_feed(Driver *driver, PyObject *batch);

/* listeners.c */
bool iox_listeners_arm(Driver *driver); /* false: the submission queue is full */
void iox_listeners_complete(Driver *driver, uint32_t generation, uint32_t index, int res, unsigned flags);
uint64_t iox_listeners_soonest(const Driver *driver); /* ms; when one has rested, or UINT64_MAX */
void iox_listeners_expire(Driver *driver);
int iox_listeners_report(Driver *driver); /* errors of accepts; -1: it unwinds */
int iox_listeners_traverse(const Driver *driver, visitproc visit, void *arg);
void iox_listeners_clear(Driver *driver); /* of references to Python's objects */
/* Methods of the driver's type */
PyObject *iox_driver_listen(Driver *driver, PyObject *const *args, Py_ssize_t nargs);
PyObject *iox_driver_unlisten(Driver *driver, PyObject *const *args, Py_ssize_t nargs);
PyObject *iox_driver_accept(Driver *driver, PyObject *fd);

/* buffers.c */
void iox_driver_release(Driver *driver, struct iox_group *group, uint16_t bid);
/* The same for a slice, on any thread; takes over its reference to the group. */
void iox_driver_release_lent(Driver *driver, struct iox_group *group, uint16_t bid);
/* Memory of a run's own instead of a buffer; NULL when there is none.  Given back with its bytes. */
char *iox_driver_copy_new(Driver *driver, size_t bytes);
void iox_driver_copy_free(Driver *driver, char *memory, size_t bytes);
void iox_driver_provide(Driver *driver); /* buffers of the shared group, before an enter */
/* Gives memory that is not used any more back, when it is time: ms, UINT64_MAX when there is none. */
void iox_driver_trim(Driver *driver);
uint64_t iox_driver_trim_at(Driver *driver);
struct iox_group *iox_driver_take_group(Driver *driver); /* NULL: none free, or refused */
void iox_driver_drop_group(Driver *driver, struct iox_group *group);

/* foreign.c: what other threads call, but for the drain */
bool iox_foreign_return(Driver *driver, struct iox_group *group, uint16_t bid); /* false: no memory */
PyObject *iox_foreign_write(Connection *conn, PyObject *data);
int iox_foreign_flush(Connection *conn, Waiter *waiter);
int iox_foreign_close(Connection *conn, bool abort);
int iox_foreign_unpause(Connection *conn);
void iox_foreign_do(Driver *driver);   /* does what is queued; runs no Python code */
void iox_foreign_drop(Driver *driver); /* drops the references of what was done: may run Python code */

/* worker.c */
Worker *iox_worker_here(const Driver *driver); /* NULL: this thread is none of its workers */
void iox_worker_notify(Worker *worker);        /* on the reactor: it has something new */
int iox_worker_schedule(Worker *worker);       /* the same, on the worker itself */
int iox_workers_hand_over(Driver *driver); /* -1 with an exception set: the rest stays for later */

/* counters.c */
/* Tasks and transports that were woken and not called yet, and connections that were not taken in yet. */
unsigned long iox_driver_ready_count(const Driver *driver);
unsigned long iox_driver_listener_count(const Driver *driver); /* those that are not being closed */
PyObject *iox_driver_counters(Driver *driver);

/* drain.c */
bool iox_driver_drain(Driver *driver);

/* close.c: methods of the driver's type */
PyObject *iox_driver_close(Driver *driver, PyObject *ignored);
PyObject *iox_driver_abandon(Driver *driver, PyObject *ignored);

/* tick.c */
struct io_uring_sqe *iox_driver_sqe(Driver *driver); /* NULL: the queue stays full */
uint64_t iox_clock_ms(void);
uint64_t iox_clock_coarse_ms(void); /* behind by up to a jiffy, and a quarter of the price */
uint32_t iox_driver_generation(Driver *driver);
/* Frees the slot.  The table's reference goes with the next iox_driver_let_go(). */
void iox_driver_forget(Driver *driver, Connection *conn);
void iox_tick_stage(Driver *driver);
/* timeout < 0: none; idle: nothing is kept waiting by a rest after a refusal */
int iox_tick_enter(Driver *driver, bool block, bool idle, int64_t timeout_ns);
void iox_tick_complete(Driver *driver, uint64_t user_data, int res, unsigned flags);
void iox_tick_reap(Driver *driver);
void iox_tick_expire(Driver *driver);
int64_t iox_tick_next_clock(Driver *driver); /* ms until a clock runs out, or -1 */
bool iox_tick_has_work(Driver *driver);

/*
 * What this thread, or one that it has waited for, had queued comes before what it does now.  On the
 * reactor's thread, before the connection is looked at: it may run Python code.
 */
static inline void iox_foreign_first(Driver *driver)
{
	if (driver->foreign.count) {
		iox_foreign_do(driver);
		iox_foreign_drop(driver);
	}
}

static inline void iox_want(Connection *conn, uint8_t what)
{
	conn->want |= what;
	if (!iox_list_linked(&conn->staged))
		iox_list_append(&conn->driver->staged, &conn->staged);
}

#endif
