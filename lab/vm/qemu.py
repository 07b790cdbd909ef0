# SPDX-License-Identifier: MIT
"""One QEMU process: started so that it cannot outlive the run, watched, and ended."""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from .. import arch, tools
from ..errors import LabError

# The runner's death must be QEMU's. setpriv sets PR_SET_PDEATHSIG; a runner that died before that
# call is told by the shell's parent being another. preexec_fn could do the same, but Python 3.12
# warns about it in a process with threads.
_UNDERTAKER = 'test "$PPID" = "$1" || exit 3; shift; exec "$@"'


def program() -> Path:
    """Where QEMU for this kind of machine is. Raises MissingTool."""
    its = arch.here()
    return tools.find(its.qemu, package=its.qemu_package, fedora=its.qemu_fedora)


@cache
def version() -> arch.Version:
    """QEMU's version. Raises MissingTool, or LabError when it does not tell."""
    text = tools.run([program(), "--version"], what="asking QEMU for its version")
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        name = program().name
        raise LabError(f"{name} --version says {text.splitlines()[:1]}, which names no version")
    return int(match[1]), int(match[2]), int(match[3])


@cache
def devices() -> frozenset[str]:
    """The names that -device takes, aliases included. Raises MissingTool, LabError."""
    text = tools.run([program(), "-device", "help"], what="asking QEMU for its devices")
    return frozenset(re.findall(r'(?:name|alias) "([^"]+)"', text))


class Qemu:
    """A running QEMU, or the process that started it and ends with it; made by `running`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self.pidfd = os.pidfd_open(process.pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def seconds_without_processor(self) -> float:
        """How long it was ready to run and had to wait, added up over its threads and those of the
        processes that started it; 0 where the kernel does not count that (CONFIG_SCHED_INFO)."""
        waited = 0
        for task in _session_tasks(self.pid):
            with suppress(OSError, IndexError, ValueError):
                # run time, time on a run queue, in ns (Documentation/scheduler/sched-stats.rst)
                waited += int((task / "schedstat").read_text().split()[1])
        return waited / 1e9

    def ended(self, timeout_s: float = 0) -> bool:
        """Whether it has ended, waiting up to `timeout_s` seconds for that."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def how_it_ended(self) -> str:
        """A sentence about its end; only once it has ended."""
        status = self._process.wait()
        if status == 0:
            return "QEMU ended: the guest switched off or restarted"
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        words = [
            line
            for line in self._log.read_text(errors="replace").splitlines()
            if line.strip() and not line.startswith("#")
        ]
        return f"QEMU ended {how}" + (f": {' / '.join(words[-3:])}" if words else "")

    def _end(self) -> None:
        # Nothing in the guest outlives the run and its disks are read-only: no need to be gentle.
        self._process.kill()
        self._process.wait()
        os.close(self.pidfd)


def _session_tasks(leader: int) -> Iterator[Path]:
    """The threads of all processes in the session that this process began."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            # The name in brackets may hold anything; the session is the fourth word behind it.
            words = (process / "stat").read_text().rpartition(")")[2].split()
            if int(words[3]) == leader:
                yield from (process / "task").iterdir()


@contextmanager
def running(
    command: Sequence[str],
    *,
    log: Path,
    inherit: Sequence[socket.socket] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Qemu]:
    """The QEMU that `command` is, or starts and ends with: gone when the block is left, or when the
    calling thread or process dies.

    `log` takes its own words and, first, the whole command line. `inherit` are sockets named in
    the command by number; they are closed here once QEMU has them. Raises MissingTool.
    """
    setpriv = str(tools.find("setpriv"))
    with ExitStack() as stack:
        words = stack.enter_context(log.open("wb"))
        words.write(f"# {shlex.join(command)}\n".encode())
        words.flush()
        process = subprocess.Popen(
            [
                *(setpriv, "--pdeathsig", "KILL"),
                *("sh", "-c", _UNDERTAKER, "sh", str(os.getpid())),
                *command,
            ],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env=None if env is None else dict(env),
            pass_fds=[one.fileno() for one in inherit],
            # A Ctrl-C at the terminal is for the runner; it ends QEMU in its own order.
            start_new_session=True,
        )
        try:
            qemu = Qemu(process, log)
        except BaseException:
            process.kill()
            process.wait()
            raise
        stack.callback(qemu._end)
        for one in inherit:
            one.close()
        yield qemu
