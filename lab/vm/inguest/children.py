# SPDX-License-Identifier: MIT
# Importing pathlib would cost a fifth of a second in an emulated guest.
# ruff: noqa: PTH102, PTH106, PTH123
"""The processes that the host has asked a guest's agent for, with all their pipes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import termios
import time

from .frames import CHUNK, to_bytes, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:  # see frames.py
    from collections.abc import Callable
    from typing import Any

LAST_READS = 256
"""How often an output is read before it is closed: a terminal gives 4 KiB a time, and a pipe, which
holds 1 MiB at the most unless root has raised that (pipe(7)), as much as it has."""


class Child:
    """One process the host asked for, with all its pipes."""

    def __init__(self, number: int, pid: int, group: str | None) -> None:
        self.number = number
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.group = group
        self.outputs: dict[int, str] = {}
        self.stdin = -1
        self.stdin_left = bytearray()
        self.stdin_ends = False
        self.control: socket.socket | None = None
        self.control_left = bytearray()
        self.status: int | None = None
        self.grace_ends = 0.0


class Children:
    """Any number of processes, served by the poll loop of the agent."""

    GRACE_S = 5.0
    """How long after its end a process may keep its output open or its group populated: a child
    that left the group can hold the one, a process stuck in the kernel the other."""

    def __init__(
        self, poll: select.poll, send: Callable[[dict[str, Any]], None], *, cgroups: str | None
    ) -> None:
        """`send` tells the host something; each process has a group of its own below `cgroups`."""
        self.poll = poll
        self.send = send
        self.cgroups = cgroups
        self.children: dict[int, Child] = {}
        self.owner: dict[int, Child] = {}
        """Whose each descriptor is that the loop watches."""

    # -- what the host may ask; a message's fields as in `Guest` ---------------------------------

    def spawn(self, message: dict[str, Any]) -> None:
        """Start a process."""
        number = int(message["process"])
        if number in self.children:
            raise ValueError(f"process {number} exists")
        argv = [str(word) for word in message["argv"]]
        env = {**os.environ, **message["env"]}
        group = self._make_group(number)
        ours_err, its_err = os.pipe()
        if tty := message.get("tty"):
            ours_in, its_in = os.openpty()
            set_window(ours_in, tty)
            ours_out, its_out = os.dup(ours_in), os.dup(its_in)
        else:
            ours_out, its_out = os.pipe()
        if tty:
            pass
        elif message["stdin"]:
            its_in, ours_in = os.pipe()
        else:
            its_in, ours_in = os.open(os.devnull, os.O_RDONLY), -1
        ours_control, its_control = socket.socketpair()
        failed_read, failed_write = os.pipe()
        env["LAB_CONTROL_FD"] = str(its_control.fileno())
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                if group is not None:
                    with open(group + "/cgroup.procs", "w") as procs:
                        procs.write("0")
                    with open("/proc/self/oom_score_adj", "w") as score:
                        score.write("0")
                its_two = its_out if tty else its_err
                for theirs, number_in_child in ((its_in, 0), (its_out, 1), (its_two, 2)):
                    os.dup2(theirs, number_in_child)
                if tty:
                    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
                os.set_inheritable(its_control.fileno(), True)
                for caught in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
                    signal.signal(caught, signal.SIG_DFL)
                os.chdir(message["cwd"])
                os.execvpe(argv[0], argv, env)
            except BaseException as error:
                os.write(failed_write, f"{type(error).__name__}: {error}".encode()[:4000])
            finally:
                os._exit(127)
        os.close(failed_write)
        for theirs in (its_in, its_out, its_err):
            os.close(theirs)
        its_control.close()
        with open(failed_read, "rb") as pipe:
            failure = pipe.read()
        if failure:
            os.waitpid(pid, 0)
            for ours in (ours_out, ours_err, ours_in):
                if ours >= 0:
                    os.close(ours)
            ours_control.close()
            self._remove_group(group)
            raise ValueError(f"cannot run {argv[0]!r}: {failure.decode(errors='replace')}")
        child = Child(number, pid, group)
        self.children[number] = child
        child.outputs = {ours_out: "stdout", ours_err: "stderr"}
        child.control = ours_control
        child.stdin = ours_in
        ours_control.setblocking(False)
        # No descriptor may block the loop: one that was closed in this very round of the poll can
        # have its number again, and be taken for ready.
        for fd in (ours_out, ours_err, *((ours_in,) if ours_in >= 0 else ())):
            os.set_blocking(fd, False)
        for fd in (ours_out, ours_err, child.pidfd, ours_control.fileno()):
            self._watch(child, fd, select.POLLIN)

    def stdin(self, message: dict[str, Any]) -> dict[str, Any]:
        """Feed a process's standard input; "last" closes it behind this piece. The answer's "left"
        is how many bytes it has not taken yet."""
        child = self.children.get(int(message["process"]))
        if child is None or child.stdin < 0:
            return {"left": 0}  # it ended, or closed its input, while the host was still writing
        child.stdin_left += to_bytes(message["data"])
        child.stdin_ends = bool(message["last"])
        self._flush_stdin(child)
        return {"left": len(child.stdin_left)}

    def window(self, message: dict[str, Any]) -> None:
        """Tell a process on a terminal the terminal's size, [rows, columns]."""
        child = self.children.get(int(message["process"]))
        if child is not None and child.stdin >= 0:
            set_window(child.stdin, message["size"])

    def control(self, message: dict[str, Any]) -> None:
        """Write to a process's control socket."""
        child = self.children.get(int(message["process"]))
        if child is None or child.control is None:
            return
        child.control_left += to_bytes(message["data"])
        self._flush_control(child)

    def kill(self, message: dict[str, Any]) -> None:
        """Send a signal; SIGKILL takes everything the process started with it."""
        child = self.children.get(int(message["process"]))
        if child is None or child.status is not None:
            return
        if int(message["signal"]) == signal.SIGKILL:
            self._kill_group(child)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, int(message["signal"]))

    # -- what the loop asks ----------------------------------------------------------------------

    def patience_ms(self) -> int | None:
        """How long the loop may wait for events."""
        # Nothing tells when the last of a killed group is gone; it is a matter of milliseconds.
        ending = any(child.status is not None for child in self.children.values())
        return 10 if ending else None

    def end(self) -> None:
        """Kill what still runs: nobody will ever hear of it."""
        for child in self.children.values():
            self._kill_group(child)

    def _make_group(self, number: int) -> str | None:
        if self.cgroups is None:
            return None
        group = f"{self.cgroups}/lab-{number}"
        os.mkdir(group)
        return group

    def _remove_group(self, group: str | None) -> None:
        if group is not None:
            # A zombie its parent has not fetched yet keeps it; an empty cgroup disturbs nobody.
            with contextlib.suppress(OSError):
                os.rmdir(group)

    def _kill_group(self, child: Child) -> None:
        if child.group is not None:
            with open(child.group + "/cgroup.kill", "w") as kill:  # Linux 5.14
                kill.write("1")
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def _populated(self, child: Child) -> bool:
        """Whether anything the child started still runs."""
        if child.group is None:
            return False
        with open(child.group + "/cgroup.events") as events:
            return "populated 1" in events.read()

    def _watch(self, child: Child, fd: int, events: int) -> None:
        self.owner[fd] = child
        self.poll.register(fd, events)

    def _forget(self, fd: int) -> None:
        if self.owner.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def ready(self, fd: int, events: int) -> None:
        """Serve a descriptor of `owner` that is ready."""
        child = self.owner[fd]
        if fd in child.outputs:
            try:
                data = os.read(fd, CHUNK)
            except BlockingIOError:
                return
            except OSError:  # EIO: a terminal's last user has closed it (pty(7))
                data = b""
            if data:
                self._event(child, child.outputs[fd], data)
            else:
                self._forget(fd)
                del child.outputs[fd]
                os.close(fd)
        elif fd == child.pidfd:
            pid, raw = os.waitpid(child.pid, os.WNOHANG)
            if pid == 0:
                return
            self._forget(fd)
            child.status = os.waitstatus_to_exitcode(raw)
            self._kill_group(child)
            child.grace_ends = time.monotonic() + self.GRACE_S
        elif fd == child.stdin:
            self._flush_stdin(child)
        elif child.control is not None:
            if events & select.POLLOUT:
                self._flush_control(child)
            if events & ~select.POLLOUT:
                self._read_control(child)

    def _last_words(self, child: Child, fd: int) -> None:
        """Read what is in an output that somebody else still holds open, or that a host which does
        not read has kept us from: none of it may be lost. Then close it."""
        for _ in range(LAST_READS):
            if fd not in child.outputs or not select.select([fd], [], [], 0)[0]:
                break
            self.ready(fd, select.POLLIN)
        if fd in child.outputs:
            self._forget(fd)
            del child.outputs[fd]
            os.close(fd)

    def _event(self, child: Child, kind: str, data: bytes) -> None:
        self.send({"event": kind, "process": child.number, "data": to_text(data)})

    def _read_control(self, child: Child) -> None:
        assert child.control is not None
        try:
            data = child.control.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._event(child, "control", data)
        else:
            self._close_control(child)

    def _close_control(self, child: Child) -> None:
        if child.control is not None:
            self._forget(child.control.fileno())
            child.control.close()
            child.control = None

    def _flush_control(self, child: Child) -> None:
        assert child.control is not None
        try:
            while child.control_left:
                del child.control_left[: child.control.send(child.control_left)]
        except BlockingIOError:
            pass
        except OSError:
            child.control_left.clear()  # it closed its end; what it said last is still read
        more = select.POLLOUT if child.control_left else 0
        self.poll.modify(child.control.fileno(), select.POLLIN | more)

    def _flush_stdin(self, child: Child) -> None:
        try:
            while child.stdin_left:
                del child.stdin_left[: os.write(child.stdin, child.stdin_left)]
        except BlockingIOError:
            self._watch(child, child.stdin, select.POLLOUT)
            return
        except OSError:
            child.stdin_left.clear()
            child.stdin_ends = True
        self._forget(child.stdin)
        if child.stdin_ends:
            os.close(child.stdin)
            child.stdin = -1

    def bury(self) -> None:
        """Tell the end of those that have ended."""
        for child in [c for c in self.children.values() if c.status is not None]:
            if child.control is not None:
                # Everything it wrote is in our end already; read it before saying it is gone.
                while child.control is not None and select.select([child.control], [], [], 0)[0]:
                    self._read_control(child)
            if time.monotonic() < child.grace_ends and (child.outputs or self._populated(child)):
                continue
            for fd in list(child.outputs):
                self._last_words(child, fd)
            self._close_control(child)
            if child.stdin >= 0:
                self._forget(child.stdin)
                os.close(child.stdin)
            os.close(child.pidfd)
            self._remove_group(child.group)
            del self.children[child.number]
            self.send({"event": "exited", "process": child.number, "status": child.status})


def set_window(terminal: int, size: Any) -> None:
    """Set a terminal's size, [rows, columns]."""
    rows, columns = size
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
