# SPDX-License-Identifier: MIT
"""One ring and its tick; it starts no thread and makes no policy.

A tick is `wait()`, which submits and blocks, then `dispatch()`, which takes the batch in and
resumes every task it has woken; `take_in()` and `resume_batch()` are its two halves.  All of them
live in C; what is here keeps the queue of posted callbacks and gathers the counters.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ioxide._common import record
from ioxide._common.config import ServerConfig, given
from ioxide._common.counters import Counters
from ioxide._common.modes import ContinuationMode
from ioxide._driver.connection import Connection
from ioxide._driver.opening import open_driver
from ioxide._ring import _core
from ioxide.errors import StoppedError


class Driver:
    """Owner of one io_uring, used and closed on the thread that made it.

    When nothing is left on its ring, `move_here()` opens a new ring for another thread, or for a
    forked child; `ioxide.Loop` does that when it begins to run.

    Raises `RingError` when the kernel refuses the ring, `UnsupportedError` when it lacks what the
    configuration asks for.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = given(config)
        self._attached: dict[str, Any] | None = None
        self._counted: dict[str, int] = {}  # on rings before this one
        self._open()
        self.posts: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        """What `run_posts()` is to run."""
        self.runs_posts = self._config.context
        self._on_fault: Callable[[str, BaseException], object] | None = None
        self._lock = threading.RLock()  # a signal handler may post() inside a post()
        self._closed = False
        self._final: dict[str, int] | None = None
        self.mode = self._config.continuation_mode
        self.posts_run = 0
        self.callback_faults = 0
        self.handler_faults = 0
        self.timer_ticks = 0
        self.ticker_faults = 0
        self.stalls = 0
        self.task_faults = 0

    def _open(self) -> None:
        """Open a new ring, which the calling thread owns."""
        core = open_driver(self._config, Connection)
        self._core = core
        self.ring_fd: int = core.ring_fd
        self.features: int = core.features
        self.sq_entries: int = core.sq_entries
        self.cq_entries: int = core.cq_entries
        self.thread = threading.current_thread()
        # The tick's calls go straight to C.
        self.wait = core.wait
        self.wake = core.wake
        self.listen = core.listen
        self.unlisten = core.unlisten
        self.accept = core.accept
        self.adopt = core._adopt
        self.connections = core.connections
        self.dispatch = core.dispatch
        self.run_turns = core.run_turns
        self.take_in = core.take_in
        self.resume_batch = core.resume_batch
        self.begin_run = core.begin_run
        self.end_run = core.end_run

    @property
    def here(self) -> bool:
        """Whether the calling thread, of this very process, is the one that uses the ring."""
        return self._core.here

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of the process that made the ring."""
        return self._core.forked

    @property
    def ring_fd_registered(self) -> bool:
        """Whether the ring is entered by an index of its thread's instead of its descriptor."""
        return self._core.ring_fd_registered

    def check_movable(self) -> None:
        """Raise `RuntimeError`, which names what is left, unless `move_here()` can be called."""
        core = self._core
        left = [
            f"{what}: {count}"
            for count, what in (
                (core.connection_count, "connections"),
                (core.listener_count, "listeners"),
                (core.ready_count, "tasks and connections that are to go on"),
            )
            if count and not core.closed
        ]
        if left:
            owner = f"thread {self.thread.name!r}"
            if core.forked:
                owner += " of the process that this one was forked from"
            raise RuntimeError(
                f"this loop cannot run on thread {threading.current_thread().name!r}, because it "
                f"has run on {owner} and left there: {', '.join(left)}. Close them there, and let "
                "the loop run there until they have ended; or make a new loop here."
            )

    def move_here(self) -> None:
        """Replace the ring by a new one of the calling thread.

        For a loop that does not run: on another thread than the ring's, and in a forked child,
        which leaves the parent's ring alone.  Raises as `check_movable()` and the constructor do;
        after a `RingError` there is no ring, and it may be called again.
        """
        self.check_movable()
        old = self._core
        old.abandon()
        if old.forked:
            self._lock = threading.RLock()  # a thread that is not in this process may hold it
        self._open()
        for name, count in old.counters().items():
            if not name.endswith("_now"):  # those tell of what there is, not of what has been
                self._counted[name] = self._counted.get(name, 0) + count
        self._attach()
        self.wake()  # posts whose wake went to the old ring: the first tick must not block

    def attach(
        self,
        *,
        loop: Any,
        poll_fd: int,
        on_connection: Callable[[Connection], object],
        on_fault: Callable[[str, BaseException], object],
    ) -> None:
        """Name the loop whose tasks are resumed, and the callbacks for connections and faults."""
        self._on_fault = on_fault
        self._attached = {
            "loop": loop,
            "poll_fd": poll_fd,
            "on_connection": on_connection,
            "on_fault": on_fault,
        }
        self._attach()

    def _attach(self) -> None:
        if self._attached is None:
            return
        self._core.attach(**self._attached)
        mode = self.mode
        self._core.continue_by(
            self._post_resumption if mode is ContinuationMode.POSTED else None,
            mode is ContinuationMode.POOL,
        )

    @property
    def listeners_armed(self) -> int:
        """Listeners that the kernel still has an accept of."""
        return self._core.listeners_armed

    @property
    def wake_fd(self) -> int:
        """The eventfd that other threads' wakes are written to."""
        return self._core.wake_fd

    @property
    def tick(self) -> int | None:
        """Which tick's callbacks run now; None while the reactor waits. From any thread."""
        return self._core.tick

    @property
    def enters(self) -> int:
        """`Counters.enters` without the rest of a snapshot."""
        return self._core.enters

    @property
    def closed(self) -> bool:
        """Whether `close()` or `abandon()` has ended it."""
        return self._closed

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Queue ``callback(*args)`` for the reactor's thread; from any thread, never run inline.

        Raises `StoppedError` once the driver is closed, and `RuntimeError` when
        `ServerConfig.context` is off, because its queue is then not run.
        """
        if not self.runs_posts:
            raise RuntimeError(
                f"with ServerConfig.context=False no posts are run: {callback!r} was not queued. "
                "Use loop.call_soon_threadsafe()."
            )
        with self._lock:  # so that nothing is queued behind close()'s back and then forgotten
            if self._closed:
                raise StoppedError(
                    f"{self.thread.name} is stopped: {callback!r} was not queued and will not run"
                )
            self.posts.append((callback, args))
        self.wake()

    def run_posts(self) -> None:
        """Run what was queued before this call; later posts wait for the next tick."""
        for _ in range(len(self.posts)):
            callback, args = self.posts.popleft()
            self.posts_run += 1
            try:
                callback(*args)
            except (KeyboardInterrupt, SystemExit):
                if self.posts:
                    self.wake()  # kept for the next tick, which must not block
                raise
            except BaseException as error:  # CancelledError too, as in asyncio.Handle
                self.callback_fault(f"posted callback {callback!r} raised", error)
        if self.posts:
            self.wake()

    def callback_fault(self, message: str, error: BaseException) -> None:
        """Count and report a callback that raised; from any thread."""
        self.count_callback_fault()
        self.report(message, error)

    def count_callback_fault(self) -> None:
        """From any thread."""
        with self._lock:
            self.callback_faults += 1

    def count_task_fault(self) -> None:
        """From any thread: asyncio reports a lost exception where its task is collected."""
        with self._lock:
            self.task_faults += 1

    def count_stall(self) -> None:
        """On the watchdog's thread alone."""
        self.stalls += 1

    def count_reported(self, context: Mapping[str, Any]) -> None:
        """Count what was reported to `call_exception_handler()` of a loop of this reactor."""
        # Which keys mean what: asyncio.Handle, Future.__del__(), Task.__del__(), TaskGroup.
        if "handle" in context:
            self.count_callback_fault()
        elif context.keys() & {"task", "future", "asyncgen"}:
            self.count_task_fault()

    def report(self, message: str, error: BaseException) -> None:
        """Report an exception to the loop, because no caller gets it."""
        if self._on_fault is not None:
            self._on_fault(message, error)

    def tell_record(self, why: str) -> None:
        """Log the last submissions and completions, where IOXIDE_RECORD keeps them.

        From any thread.
        """
        record.tell(self.thread.name, self._core.record(), why)

    def check_thread(self, what: str) -> None:
        """Raise `RuntimeError` unless called on the driver's own thread."""
        # Not by ident: the ident of a thread that has ended is given to the next one.
        if threading.current_thread() is not self.thread:
            raise RuntimeError(
                f"{what} was called on thread {threading.current_thread().name!r}, but belongs to "
                f"{self.thread.name!r}: hand it over with Reactor.post()"
            )

    def handler_fault(self) -> None:
        """Count a handler that raised; from any thread."""
        with self._lock:
            self.handler_faults += 1

    def new_worker(self, loop: Any, on_connection: Callable[[Connection], object]) -> _core.Worker:
        """Make the calling thread, which runs `loop`, a worker (the pool modes)."""
        return _core.Worker(self._core, loop, on_connection)

    def _post_resumption(self, resume: Callable[[], object]) -> None:
        self.posts.append((resume, ()))  # from dispatch(), after which run_posts() is called

    def counters(self) -> Counters:
        """A snapshot; from any thread, also after close."""
        return Counters(
            **(self._final or self._count()),
            posts=self.posts_run,
            callback_faults=self.callback_faults,
            handler_faults=self.handler_faults,
            timer_ticks=self.timer_ticks,
            ticker_faults=self.ticker_faults,
            task_faults=self.task_faults,
            stalls=self.stalls,
        )

    def close(self) -> bool:
        """End every operation and free the ring.

        Posted callbacks that have not run are dropped.  False when the kernel did not let go of an
        operation within 5 s: its memory is then left mapped, for ever.
        """
        kept = self._core.record()
        released = self._core.close()  # refuses another thread, and a call from inside dispatch()
        record.keep(self.thread.name, kept)
        self._end()
        return released

    def abandon(self) -> None:
        """`close()` on another thread than the ring's, or in a forked child.

        Frees all that this process has of the ring; the kernel ends by itself what was on it.
        Raises `RuntimeError` while its loop runs, and in a child for a ring with connections.
        """
        self._core.abandon()
        self._end()

    def _end(self) -> None:
        with self._lock:
            self._closed = True
            self.posts.clear()
        self._attached = None
        self._final = self._count()

    def _count(self) -> dict[str, int]:
        counted = self._core.counters()
        for name, count in self._counted.items():
            counted[name] += count
        return counted
