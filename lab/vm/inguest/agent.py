# SPDX-License-Identifier: MIT
# Importing pathlib would cost a fifth of a second in an emulated guest.
# ruff: noqa: PTH102, PTH103, PTH106, PTH123, PTH208
"""The lab's agent in a guest: runs processes there and carries their words to the host.

One file, standard library only, put into the initramfs beside whatever Python the root image has.
It speaks in frames on a virtio-serial port of its own, one thread, one poll loop. It proves
nothing and decides nothing: every judgement is the host's.

A frame is a big-endian length and CRC-32 of the payload, then the payload: a JSON object with
"seq", counted up by one from 1 in each direction. Bytes travel in base64.
"""

from __future__ import annotations

import binascii
import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios
import time
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:  # the name alone: importing typing is a twentieth of a second in a guest
    from typing import Any

MAX_PAYLOAD = 1 << 20
"""No frame is longer, in bytes; whoever says so lies."""
CHUNK = 192 << 10
"""Most bytes of a stream in one frame: with base64 and the rest well below MAX_PAYLOAD."""
PORT = "lab.agent"
STRAY = "lab.stray"
LAST_READS = 256
"""How often an output is read before it is closed: a terminal gives 4 KiB a time, and a pipe, which
holds 1 MiB at the most unless root has raised that (pipe(7)), as much as it has."""
KMSG_RECORD = 16 << 10
"""More than a record of /dev/kmsg can be long (CONSOLE_EXT_LOG_MAX, 8 KiB in 6.1)."""
SPIN = 20_000

_HEADER = struct.Struct(">II")


class FrameError(Exception):
    """The other side sent something that is no frame, or not the next one."""


def encode(message: dict[str, Any]) -> bytes:
    """The frame that carries a message."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a message of {len(payload)} bytes; at most {MAX_PAYLOAD} fit")
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


class Decoder:
    """Cuts a stream of bytes into messages and checks each; raises FrameError at the first bad one.

    After that it stays broken: where the next frame starts is not known any more.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._seq = 0

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages completed by `data`."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _HEADER.size:
            length, crc = _HEADER.unpack_from(self._buffer)
            if length > MAX_PAYLOAD:
                raise FrameError(f"a frame of {length} bytes; at most {MAX_PAYLOAD} are allowed")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            messages.append(self._message(payload, crc))
        return messages

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def _message(self, payload: bytes, crc: int) -> dict[str, Any]:
        if zlib.crc32(payload) != crc:
            raise FrameError(f"a broken frame: its CRC-32 is not {crc:#010x}")
        try:
            message = json.loads(payload)
        except ValueError as error:
            raise FrameError(f"a frame that is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise FrameError("a frame that holds no JSON object")
        seq = message.pop("seq", None)
        expected = self._seq + 1
        if type(seq) is not int or seq != expected:
            kind = "a duplicate" if isinstance(seq, int) and 0 < seq < expected else "an unexpected"
            raise FrameError(f"{kind} frame: number {seq!r}, expected {expected}")
        self._seq = expected
        return message


def to_text(data: bytes) -> str:
    """Bytes as they stand in a message."""
    return binascii.b2a_base64(data, newline=False).decode()


def to_bytes(text: str) -> bytes:
    """The bytes behind `to_text`; raises ValueError for anything else."""
    return binascii.a2b_base64(text, strict_mode=True)


def spin(rounds: int) -> float:
    """Seconds of CPU this machine needs for a fixed piece of Python; host and guest compare."""
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        total = 0
        for number in range(rounds):
            total += number & 7
        best = min(best, time.thread_time() - start)
    return best


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


class Agent:
    """The loop between one port and any number of children."""

    GRACE_S = 5.0
    """How long after its end a process may keep its output open or its group populated: a child
    that left the group can hold the one, a process stuck in the kernel the other."""

    def __init__(self, port: int, *, cgroups: str | None) -> None:
        self.port = port
        self.cgroups = cgroups
        self.decoder = Decoder()
        self.sent = 0
        self.poll = select.poll()
        self.poll.register(port, select.POLLIN)
        self.children: dict[int, Child] = {}
        self.owner: dict[int, Child] = {}
        self.tar: Any = None
        self.kmsg = -1

    # -- talking to the host ---------------------------------------------------------------------

    def send(self, message: dict[str, Any]) -> None:
        """Write one frame; the port blocks while the host does not read, and that is wanted."""
        self.sent += 1
        view = memoryview(encode({"seq": self.sent, **message}))
        while view:
            view = view[os.write(self.port, view) :]

    def run(self) -> None:
        """Serve the host until it is gone."""
        while True:
            for fd, events in self.poll.poll(self._patience_ms()):
                if fd == self.port:
                    if not self._from_host():
                        return
                elif fd in self.owner:
                    self._from_child(fd, events)
            self._end_children()

    def end(self) -> None:
        """Kill what still runs: nobody will ever hear of it."""
        for child in self.children.values():
            self._kill_group(child)

    def _patience_ms(self) -> int | None:
        # Nothing tells when the last of a killed group is gone; it is a matter of milliseconds.
        ending = any(child.status is not None for child in self.children.values())
        return 10 if ending else None

    def _from_host(self) -> bool:
        data = os.read(self.port, 1 << 16)
        if not data:  # virtio-serial reads nothing once the host has closed its side
            return False
        for message in self.decoder.feed(data):
            answer: dict[str, Any] = {"re": message.get("id")}
            try:
                operation = getattr(self, "do_" + str(message.get("op")), None)
                if operation is None:
                    raise ValueError(f"unknown operation {message.get('op')!r}")
                answer.update(operation(message) or {})
            except (OSError, ValueError, KeyError, TypeError) as error:
                answer["error"] = f"{type(error).__name__}: {error}"
            self.send(answer)
        return True

    # -- what the host may ask -------------------------------------------------------------------

    def do_start(self, message: dict[str, Any]) -> dict[str, Any]:
        """Set the clock, open the console's ear, and tell how fast this machine is."""
        if message.get("own_machine"):
            time.clock_settime(time.CLOCK_REALTIME, float(message["time"]))
            # From here on informational messages reach the serial console too (a segfault's line
            # is one); during boot they would cost time on an emulated serial port.
            with open("/proc/sys/kernel/printk", "w") as printk:
                printk.write("7")
        return {"spin": spin(SPIN)}

    def do_ping(self, message: dict[str, Any]) -> None:
        """Answer."""

    def do_kernel_log(self, message: dict[str, Any]) -> dict[str, Any]:
        """The records of the kernel log that were not yet told; "more" if there are others. Behind
        the last of them "mark" is written into the log, unless it is empty."""
        if self.kmsg < 0:
            self.kmsg = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        data = bytearray()
        more = True
        while more and len(data) < CHUNK:
            try:
                data += os.read(self.kmsg, KMSG_RECORD)
            except BlockingIOError:
                more = False
            except BrokenPipeError:
                pass  # records were overwritten before we came; the host misses their numbers
        if message["mark"] and not more:
            # Priority 5 is above the console level set by do_start, so it is there, too.
            with open("/dev/kmsg", "wb", buffering=0) as kmsg:
                kmsg.write(b"<5>" + str(message["mark"]).encode() + b"\n")
        return {"data": to_text(bytes(data)), "more": more}

    def do_tar(self, message: dict[str, Any]) -> None:
        """Take a piece of a tar; with the last one, unpack all of it."""
        import tarfile
        import tempfile

        if message["first"]:
            self.tar = tempfile.TemporaryFile()  # noqa: SIM115  (it lives until the last piece)
        self.tar.write(to_bytes(message["data"]))
        if not message["last"]:
            return
        self.tar.seek(0)
        directory = message["directory"]
        os.makedirs(directory, exist_ok=True)
        try:
            with self.tar, tarfile.open(fileobj=self.tar) as archive:
                # The filter came with 3.11.4 and 3.12; the tar is the host's own, so it is no
                # guard, it only keeps later Pythons from warning.
                if hasattr(tarfile, "fully_trusted_filter"):
                    archive.extractall(directory, filter="fully_trusted")
                else:
                    archive.extractall(directory)
        except tarfile.TarError as error:
            raise ValueError(f"no tar: {error}") from error
        finally:
            self.tar = None

    def do_spawn(self, message: dict[str, Any]) -> None:
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

    def do_stdin(self, message: dict[str, Any]) -> dict[str, Any]:
        """Feed a process's standard input; "last" closes it behind this piece. The answer's "left"
        is how many bytes it has not taken yet."""
        child = self.children.get(int(message["process"]))
        if child is None or child.stdin < 0:
            return {"left": 0}  # it ended, or closed its input, while the host was still writing
        child.stdin_left += to_bytes(message["data"])
        child.stdin_ends = bool(message["last"])
        self._flush_stdin(child)
        return {"left": len(child.stdin_left)}

    def do_window(self, message: dict[str, Any]) -> None:
        """Tell a process on a terminal the terminal's size, [rows, columns]."""
        child = self.children.get(int(message["process"]))
        if child is not None and child.stdin >= 0:
            set_window(child.stdin, message["size"])

    def do_control(self, message: dict[str, Any]) -> None:
        """Write to a process's control socket."""
        child = self.children.get(int(message["process"]))
        if child is None or child.control is None:
            return
        child.control_left += to_bytes(message["data"])
        self._flush_control(child)

    def do_kill(self, message: dict[str, Any]) -> None:
        """Send a signal; SIGKILL takes everything the process started with it."""
        child = self.children.get(int(message["process"]))
        if child is None or child.status is not None:
            return
        if int(message["signal"]) == signal.SIGKILL:
            self._kill_group(child)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, int(message["signal"]))

    # -- children --------------------------------------------------------------------------------

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

    def _from_child(self, fd: int, events: int) -> None:
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
            self._from_child(fd, select.POLLIN)
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

    def _end_children(self) -> None:
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


def open_port(name: str) -> int:
    """Open the virtio-serial port called `name`; there is no udev to make links by name."""
    directory = "/sys/class/virtio-ports"
    for entry in os.listdir(directory):
        with open(f"{directory}/{entry}/name") as file:
            if file.read().strip() == name:
                return os.open(f"/dev/{entry}", os.O_RDWR)
    raise SystemExit(f"lab: no virtio-serial port is called {name}")


def command_line() -> dict[str, str]:
    """The lab's own words on the kernel's command line."""
    with open("/proc/cmdline") as file:
        words = file.read().split()
    return dict(word[4:].split("=", 1) for word in words if word.startswith("lab.") and "=" in word)


def main() -> None:
    """Serve the host on the guest's port, or for tests on the descriptor named by --fd."""
    if sys.argv[1:2] == ["--fd"]:
        port, cgroups, nonce = int(sys.argv[2]), None, sys.argv[3]
        os.set_inheritable(port, False)
    else:
        stray = open_port(STRAY)
        os.dup2(stray, 1)
        os.dup2(stray, 2)
        port, cgroups = open_port(PORT), "/sys/fs/cgroup"
        nonce = command_line().get("nonce", "")
        # Writing to a full port must wait, and the agent must be the last to go when memory is.
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("-1000")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    agent = Agent(port, cgroups=cgroups)
    release = os.uname().release
    hello: dict[str, Any] = {"event": "hello", "nonce": nonce, "release": release}
    hello["python"] = sys.version
    # Left as the kernel gives it: what a ring may lock is part of what is tested.
    hello["memlock"] = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    agent.send(hello)
    try:
        with contextlib.suppress(ConnectionError):  # a host that died does not say goodbye
            agent.run()
        agent.end()
    except BaseException as error:
        # The port may be what is broken: the console is the other way out.
        if cgroups is not None:
            with open("/dev/kmsg", "w") as kmsg:
                kmsg.write(f"<3>lab: agent: {type(error).__name__}: {error}")
        raise


if __name__ == "__main__":
    main()
