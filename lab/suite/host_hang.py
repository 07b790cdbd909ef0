# SPDX-License-Identifier: MIT
"""What a test on this very machine is at that does not end: what a process may see of itself and of
those it has started, without root's rights.

A thread of its own gathers that, which is there only then. The test's thread goes back into its
wait meanwhile, where the kernel shows it: that was left for the signal of the time limit.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from ..facts.evidence import Part
from ..remote.log import Log
from .knows import failure, of_the_repository, part_of
from .memory import named, unused
from .waits import in_short, kernel_function, python_frames, python_line

LOOK_S = 0.5
"""So many seconds behind its limit a test is ended: the time to look at it."""
PATIENCE_S = 10.0
"""So long, in seconds, looking may take on a busy machine."""
RETURN_S = 0.05
"""In so many seconds the test's thread is back where it waits."""
MOST_KEPT = 20
"""So many files are kept of earlier hangs."""
DIRECTORY = "lab-hangs"
"""In pytest's cache."""
_NET = {"tcp": 9, "tcp6": 9, "udp": 9, "udp6": 9, "unix": 6}
"""Tables of sockets in /proc/net, and in which field the number of a socket is."""


class HostHang:
    """The evidence of one hang of the main thread."""

    def __init__(
        self,
        item: pytest.Item,
        why: str,
        directory: Path,
        base: Path,
    ) -> None:
        """Begin to gather what this test is at, because of `why`, into a new file in `directory`,
        which is named by its path from `base`."""
        self._item, self._why, self._directory, self._base = item, why, directory, base
        self._log: Log | None = None
        self._failed = ""
        self._short = ""
        self.part: Part | None = None
        """Where all of it is, once it is gathered."""
        self._thread = threading.Thread(target=self._run, name="lab-hang", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._failed = str(error)

    def told(self) -> str:
        """Where it waited, and which file has the rest, as a clause."""
        if not self._failed:
            self._thread.join(PATIENCE_S)
            if self._thread.is_alive():
                self._failed = f"it took more than {PATIENCE_S:g} s"
        if self._log is None or self.part is None:
            why = self._failed or "no file could be written"
            return f"what it was at could not be found: {why}"
        return f"{self._short}; {named(self._log.path, self._base)} has what was found"

    def forget(self) -> None:
        """It has ended after all."""
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)
        if self._log is not None:
            with suppress(OSError):
                self._log.path.unlink(missing_ok=True)

    # -- in the thread that gathers ----------------------------------------------------------

    def _run(self) -> None:
        try:
            self._gather()
        except Exception as error:
            self._failed = f"{type(error).__name__}: {error}"

    def _gather(self) -> None:
        time.sleep(RETURN_S)
        # What moves on is looked at first.
        stacks = _had(lambda: "\n".join(_kernel_stacks()))
        python = _had(lambda: "\n\n".join(_python_stacks()))
        self._directory.mkdir(parents=True, exist_ok=True)
        self._log = Log(unused(self._directory, f"hang-{os.getpid()}", ".txt"))
        self._write(f"{self._item.nodeid}: {self._why}\n")
        self._part("kernel stacks of its processes", lambda: stacks)
        self._part("its io_uring rings (fdinfo)", lambda: "\n".join((*_rings(), "these are all")))
        self._part("its open sockets", lambda: "\n".join((*_sockets(), "these are all")))
        self._part("Python stacks", lambda: python)
        self._part("asyncio's tasks", lambda: "\n".join((*_tasks(), "these are all")))
        for name, text in of_the_repository(self._item.config):
            self._write(part_of(name, text))
        frames, root = list(python_frames(python)), str(self._item.config.rootpath)
        line = python_line(frames, root, self._item.nodeid)
        self._short = in_short(line, kernel_function(stacks))
        end = self._write(f"\n==== in short\n{self._short}\n")
        self.part = None if end is None else Part(end.file, 0, end.end)

    def _part(self, name: str, have: Callable[[], str]) -> None:
        self._write(part_of(name, _had(have)))

    def _write(self, text: str) -> Part | None:
        assert self._log is not None
        return self._log.append(text.encode("utf-8", "backslashreplace"))


class HostHangs:
    """Looks at a test that pytest-timeout ends, before it does, if it does so by its signal."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._hang: HostHang | None = None

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_timeout_set_timer(
        self, item: pytest.Item, settings: Any
    ) -> Generator[None, object, object]:
        """The signal comes twice: first to look, then to end the test."""
        result = yield
        theirs = signal.getsignal(signal.SIGALRM)
        main = threading.current_thread() is threading.main_thread()
        if settings.method == "signal" and main and callable(theirs):
            signal.signal(signal.SIGALRM, self._twice(item, settings.timeout, theirs))
        return result

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_timeout_cancel_timer(self) -> Generator[None, object, object]:
        """It has ended by itself."""
        result = yield
        if self._hang is not None:
            self._hang.forget()
            self._hang = None
        return result

    def _twice(
        self, item: pytest.Item, seconds: float, theirs: Callable[[int, FrameType | None], Any]
    ) -> Callable[[int, FrameType | None], None]:
        def ring(number: int, frame: FrameType | None) -> None:
            __tracebackhide__ = True
            if self._hang is None:
                self._hang = self._look(item, f"no end within {seconds:g} s")
                signal.setitimer(signal.ITIMER_REAL, LOOK_S)
                return
            words = ""
            try:
                theirs(number, frame)
            except pytest.fail.Exception as failed:
                words = str(failed.msg)
            if words:  # pytest-timeout ends nothing while somebody debugs
                told, self._hang = self._hang.told(), None
                pytest.fail(f"{words}; {told}")

        return ring

    def _look(self, item: pytest.Item, why: str) -> HostHang:
        cache = getattr(self._config, "cache", None)
        directory = Path(tempfile.gettempdir()) if cache is None else cache.mkdir(DIRECTORY)
        _prune(directory)
        return HostHang(item, why, directory, self._config.rootpath)


def _prune(directory: Path) -> None:
    with suppress(OSError):
        files = sorted(directory.glob("hang-*.txt"), key=lambda file: file.stat().st_mtime)
        for file in files[: 1 - MOST_KEPT]:
            file.unlink(missing_ok=True)


def _had(have: Callable[[], str]) -> str:
    try:
        return have()
    except Exception as error:  # whatever /proc has not, or a test has made of Python
        return failure(error)


# -- the parts -------------------------------------------------------------------------------


def _family() -> Iterator[int]:
    """This process, and all that it and those have started."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError, StopIteration, ValueError):
            line = next(one for one in status.read_text().splitlines() if one.startswith("PPid:"))
            parents[int(status.parent.name)] = int(line.split()[1])
    todo = [os.getpid()]
    while todo:
        yield (process := todo.pop(0))
        todo += sorted(child for child, parent in parents.items() if parent == process)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="backslashreplace").strip()
    except OSError as error:
        return f"({error.strerror})"


def _kernel_stacks() -> Iterator[str]:
    ours = threading.get_native_id()
    for process in _family():
        for thread in sorted(Path(f"/proc/{process}/task").glob("*"), key=lambda t: int(t.name)):
            if int(thread.name) == ours or not thread.exists():
                continue
            name, where, call = (_read(thread / one) for one in ("comm", "wchan", "syscall"))
            yield (
                f"process {process}, thread {thread.name} ({name}): wchan {where}, "
                f"system call {call}"
            )
            yield _read(thread / "stack")


def _python_stacks() -> Iterator[str]:
    """As faulthandler writes them: the main thread is the current one."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    for ident, top in sorted(sys._current_frames().items(), key=lambda one: one[0] != main):
        if ident == threading.get_ident():
            continue
        word = "Current thread" if ident == main else "Thread"
        head = f"{word} {ident:#x} ({names.get(ident, 'unknown')}) (most recent call first):"
        frames = list(traceback.walk_stack(top))
        yield "\n".join(
            [head]
            + [
                f'  File "{frame.f_code.co_filename}", line {line} in {frame.f_code.co_name}'
                for frame, line in frames
            ]
        )


def _tasks() -> Iterator[str]:
    """The tasks that are not done, of whatever loop, each with the lines it waits in."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return
    for task in [one for one in gc.get_objects() if isinstance(one, asyncio.Task)]:
        if task.done():
            continue
        yield f"{task.get_name()}: {task.get_coro()!r}"
        for frame in task.get_stack():
            code = frame.f_code
            yield f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}'


def _descriptors(process: int) -> Iterator[tuple[str, str]]:
    """Each with what it is."""
    for one in sorted(Path(f"/proc/{process}/fd").glob("*"), key=lambda fd: int(fd.name)):
        with suppress(OSError):
            yield one.name, str(one.readlink())


def _rings() -> Iterator[str]:
    for process in _family():
        for number, what in _descriptors(process):
            if what == "anon_inode:[io_uring]":
                yield f"process {process}, descriptor {number}:"
                yield _read(Path(f"/proc/{process}/fdinfo/{number}"))


def _sockets() -> Iterator[str]:
    for process in _family():
        inodes = {
            what.removeprefix("socket:[").removesuffix("]"): number
            for number, what in _descriptors(process)
            if what.startswith("socket:[")
        }
        for kind, place in _NET.items() if inodes else ():
            head, *lines = _read(Path(f"/proc/{process}/net/{kind}")).splitlines() or [""]
            found = [
                (inodes.pop(words[place]), line)
                for line in lines
                if len(words := line.split()) > place and words[place] in inodes
            ]
            if found:
                yield f"process {process}, {kind}: {head.strip()}"
                yield from (f"  descriptor {number}: {line.strip()}" for number, line in found)
        for number in inodes.values():
            yield f"process {process}: descriptor {number} is a socket of another kind"
