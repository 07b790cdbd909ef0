# SPDX-License-Identifier: MIT
"""Runs one program to its end, whatever it does."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from .confinement import Confinement, NoControlGroup, confinement
from .tap import Reader, Reading

MOST_OUTPUT = 64 << 20
"""A program that writes more, in bytes, is ended."""
TAIL_BYTES = 16 << 10
DRAIN_S = 2.0
"""So long what is still in the pipes is waited for when a program has ended: something that it
started and that got away may hold them open."""
_CHUNK = 1 << 16
_SHARED = ("/tmp", "/var/tmp", "/dev/shm")


class CannotRun(Exception):
    """The program did not start; the message says why, as a sentence."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a program said, and how it ended."""

    status: int
    """As `subprocess.Popen.returncode`: negated signals."""
    said: Reading
    stdout: bytes
    """The last of it."""
    stderr: bytes
    why: str = ""
    """Why the lab ended it; empty if it ended by itself."""

    @property
    def last_line(self) -> str:
        """The last line with something in it: of stderr, or else of stdout."""
        for text in (self.stderr, self.stdout):
            if lines := text.decode("utf-8", "backslashreplace").split("\n"):
                for line in reversed(lines):
                    if line.strip():
                        return line.strip()
        return ""


def run(
    path: Path,
    *,
    directory: Path,
    seconds: float,
    tidy: bool = False,
    heard: Callable[[bytes], object] = lambda _: None,
) -> Ended:
    """Run a program that is a test. Raises CannotRun.

    What it writes is given to `heard` as it comes. It has an empty standard input, a session and a
    TMPDIR of its own. When it has ended, or has used up its seconds, everything that it started is
    killed. With `tidy`, in a guest, what is new in its directory and in those that all share is
    removed: the next test finds room.
    """
    try:
        with _as_before(directory) if tidy else nullcontext():
            with confinement(needed=tidy) as confined, _scratch() as scratch:
                env = {**os.environ, "TMPDIR": scratch}
                return _run(path, directory, seconds, env, confined, heard)
    except NoControlGroup as error:
        raise CannotRun(str(error)) from error


def _run(
    path: Path,
    directory: Path,
    seconds: float,
    env: Mapping[str, str],
    confined: Confinement,
    heard: Callable[[bytes], object],
) -> Ended:
    try:
        process = subprocess.Popen(
            [str(path)],
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=confined.enter,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CannotRun(_why_not(path, directory, error)) from error
    confined.of(process.pid)
    readers = {1: Reader(), 2: Reader()}
    tails, written = {1: bytearray(), 2: bytearray()}, 0
    assert process.stdout is not None
    assert process.stderr is not None
    pipes = {process.stdout.fileno(): 1, process.stderr.fileno(): 2}
    pidfd = os.pidfd_open(process.pid)
    poll = select.poll()
    for descriptor in (*pipes, pidfd):
        poll.register(descriptor, select.POLLIN)
    why, gone = "", False
    deadline = time.monotonic() + seconds
    try:
        while pipes or not gone:
            left = deadline - time.monotonic()
            ready = poll.poll(max(0.0, left) * 1000)
            for descriptor, _ in ready:
                if descriptor == pidfd:
                    # What it started goes with it; what is in the pipes is read first.
                    gone = True
                    poll.unregister(pidfd)
                    process.wait()
                    confined.kill()
                    deadline = time.monotonic() + DRAIN_S
                    continue
                data = os.read(descriptor, _CHUNK)
                if not data:
                    poll.unregister(descriptor)
                    del pipes[descriptor]
                    continue
                written += len(data)
                heard(data)
                _keep(tails[pipes[descriptor]], data)
                readers[pipes[descriptor]].feed(data)
            if written > MOST_OUTPUT and not why:
                why = f"it wrote more than {MOST_OUTPUT >> 20} MiB and was killed"
            elif time.monotonic() >= deadline and not gone and not why:
                why = f"it did not end within {seconds:.0f} s and was killed"
            elif gone and time.monotonic() >= deadline:
                break
            if why and not gone:
                confined.kill()
                _kill(process)
                deadline = time.monotonic() + DRAIN_S
                if written > MOST_OUTPUT:
                    process.wait()
                    break
    finally:
        os.close(pidfd)
        _kill(process)
        confined.kill()
        for pipe in (process.stdout, process.stderr):
            pipe.close()
    said, other = readers[1].end(), readers[2].end()
    if other.recognised and not said.recognised:
        said = other  # some print their TAP there
    return Ended(process.wait(), said, bytes(tails[1]), bytes(tails[2]), why)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()


def _keep(tail: bytearray, data: bytes) -> None:
    tail += data
    if len(tail) > 4 * TAIL_BYTES:
        del tail[:-TAIL_BYTES]


def _why_not(path: Path, directory: Path, error: Exception) -> str:
    if not directory.is_dir():
        return f"there is no directory {directory}"
    if not path.is_file():
        return f"there is no file {path}"
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT:
        return f"its interpreter {interpreter(path) or '(the dynamic loader)'} is not here"
    if number == errno.EACCES:
        return f"{path.name} is not executable (chmod +x)"
    if number == errno.ENOEXEC:
        return f"{path.name} is no program of this machine, and has no #! line"
    return f"it did not start: {error}"


def in_guest() -> bool:
    """Whether this machine is a guest of the lab, by what its kernel itself was told."""
    return "lab.nonce=" in Path("/proc/cmdline").read_text()


def interpreter(path: Path) -> str:
    """The interpreter that a script names in its first line; empty for what is no script."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return ""
    if not head.startswith(b"#!"):
        return ""
    words = head[2:].split(b"\n")[0].split()
    return os.fsdecode(words[0]) if words else ""


@contextmanager
def _scratch() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="lab-program-")
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _as_before(directory: Path) -> Iterator[None]:
    """Remove what is new afterwards in this directory and in those that all programs share."""
    places = dict.fromkeys((str(directory), *_SHARED))
    before = {place: _names(place) for place in places}
    try:
        yield
    finally:
        for place, names in before.items():
            for name in _names(place) - names:
                _remove(os.path.join(place, name))  # noqa: PTH118  (importing no more than needed)


def _names(place: str) -> set[str]:
    try:
        return set(os.listdir(place))  # noqa: PTH208
    except OSError:
        return set()


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)  # noqa: PTH108
