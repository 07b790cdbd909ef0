# SPDX-License-Identifier: MIT
"""A server under test as the one who measures sees it: started, asked, loaded and ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import Void
from bench.native import ROOT, loadgen
from bench.scenes import PLAIN, Scene

TIMEOUT = 120.0
"""Seconds for one answer; a server in valgrind takes a few to start."""
CONNECTIONS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the load generator says of one run."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_s: float
    rounds: int

    @classmethod
    def parse(cls, text: str, status: int) -> Load:
        """Its line of JSON; raises `Void` unless every request had its right answer."""
        try:
            said: dict[str, Any] = json.loads(text)
            error = said.pop("error")
            load = cls(**said)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Void(f"the load generator said {text!r} and ended with {status}") from None
        if error or status:
            raise Void(f"the load generator ended with {status}: {error or 'no reason given'}")
        if not load.requests:
            raise Void("the load generator made no request")
        return load


@contextlib.contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """So many different ports of 127.0.0.1 for servers that set SO_REUSEADDR.

    Until the block ends, a bound socket keeps each from whoever asks the kernel for any free port,
    the source port of a connection included: SO_REUSEADDR lets a server listen beside a socket that
    is bound and does not listen (socket(7)).
    """
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            sock.bind(("127.0.0.1", 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ports.append(int(sock.getsockname()[1]))
        yield ports


def same_core() -> int:
    """The core that server and load generator share, so that they alternate in whole batches."""
    return max(os.sched_getaffinity(0))


def other_core() -> int:
    """The load generator's where each has its own; raises `Void` where there is one only."""
    core = min(os.sched_getaffinity(0))
    if core == same_core():
        raise Void("one core is not enough to give server and load generator a core each")
    return core


def _prepare(core: int, policy: int = os.SCHED_OTHER) -> None:
    os.sched_setaffinity(0, {core})
    if policy != os.SCHED_OTHER:
        with contextlib.suppress(
            PermissionError
        ):  # SCHED_FIFO needs CAP_SYS_NICE; a quiet core does
            os.sched_setscheduler(0, policy, os.sched_param(policy == os.SCHED_FIFO))


class Server:
    """One server process, pinned to `same_core()`."""

    def __init__(
        self,
        process: subprocess.Popen[str],
        ports: Sequence[int] | None = None,
        scene: Scene = PLAIN,
    ) -> None:
        self.process = process
        self.scene = scene
        self.answer = scene.answer
        """What it answers, without what follows in a download."""
        self._control: socket.socket | None = None
        if ports is None:
            self.port = int(self._line()["port"])
        else:
            self.port = ports[0]
            self._control = self._connect(ports[1])

    def _connect(self, port: int) -> socket.socket:
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
            except ConnectionRefusedError:
                time.sleep(0.05)
                continue
            if sock.getsockname() != sock.getpeername():
                return sock
            sock.close()  # TCP's simultaneous open with itself: nobody listens on that port yet
        raise Void(f"the server does not listen (status {self.process.poll()})")

    def close(self) -> None:
        """Let go of the connection that commands go through, if there is one."""
        if self._control is not None:
            self._control.close()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], TIMEOUT)[0]:
            raise Void(f"the server said nothing for {TIMEOUT:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise Void(f"the server ended with {self.process.wait(TIMEOUT)}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str) -> dict[str, Any]:
        """Carry out a command of `bench.serve`."""
        if self._control is not None:
            try:
                self._control.sendall(command.encode() + b"\n")
                data = b""
                while not data.endswith(b"\n"):
                    part = self._control.recv(1 << 16)
                    if not part:
                        raise Void(f"the server ended at {command!r}")
                    data += part
            except OSError as error:
                raise Void(f"the server did not answer {command!r}: {error}") from error
            answer: dict[str, Any] = json.loads(data)
        else:
            assert self.process.stdin is not None
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            answer = self._line()
        if "error" in answer:
            raise Void(f"the server: {answer['error']}")
        return answer

    def settled(self) -> dict[str, Any]:
        """The counts once the connections of a load have ended, and what belongs to them."""
        deadline = time.monotonic() + TIMEOUT
        expected = 0 if self._control is None else 1
        while time.monotonic() < deadline:
            counts = self.ask("stats")
            if counts["connections_now"] == expected:
                return counts
            time.sleep(0.01)
        raise Void("connections of the load generator did not end")

    def load(
        self,
        *,
        requests: int | None = None,
        seconds: float | None = None,
        connections: int = CONNECTIONS,
        batches: bool = False,
        apart: bool = False,
        patience: float = 60,
    ) -> Load:
        """Run the load generator against it; raises `Void` on a wrong answer.

        It runs on the same core, or with `apart` on another one, and waits for an answer for
        `patience` seconds.

        With `batches`, on a busy machine too, it has sent a whole batch before the server sees the
        first request of it: nothing preempts a SCHED_FIFO thread, and a SCHED_BATCH server that is
        woken preempts nobody (sched(7)).
        """
        amount = ["--requests", str(requests)] if requests else ["--seconds", str(seconds)]
        scene = self.scene
        command = [str(loadgen(tls=scene.tls)), "--port", str(self.port), *amount]
        command += ["--connections", str(connections), "--timeout-ms", str(round(1000 * patience))]
        command += ["--request", scene.request.decode(), "--request-fill", str(scene.upload)]
        command += ["--answer", self.answer.decode(), "--answer-fill", str(scene.download)]
        command += ["--depth", str(scene.depth)]
        command += [*(["--reconnect"] * scene.reconnect), *(["--tls"] * scene.tls)]
        core = other_core() if apart else same_core()
        try:
            done = subprocess.run(
                [*command, *(["--batches"] if batches else [])],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT + (seconds or 0),
                preexec_fn=lambda: _prepare(core, os.SCHED_FIFO if batches else os.SCHED_OTHER),
            )
        except subprocess.TimeoutExpired:
            raise Void("the load generator did not end") from None
        return Load.parse(done.stdout, done.returncode)


@contextlib.contextmanager
def running(
    settings: Mapping[str, object],
    *,
    wrapper: Sequence[str] = (),
    arguments: Sequence[str] = (),
    batch: bool = False,
    in_band: bool = False,
    module: str = "bench.serve",
    paths: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    scene: Scene = PLAIN,
    program: Sequence[str] | None = None,
    python: str = sys.executable,
    directory: Path = ROOT,
) -> Iterator[Server]:
    """A server process with these `ServerConfig` values; ended however the block ends.

    `program` is a command that runs instead of `module` of `python`, and `directory` where either
    runs.
    """
    if program is None:
        program = [python, "-m", module]
        arguments = [*arguments, "--scene", scene.name]
    reserved = contextlib.ExitStack()
    ports = reserved.enter_context(reserved_ports(2)) if in_band else None
    if ports is not None:
        arguments = [*arguments, "--port", str(ports[0]), "--control", str(ports[1])]
    pairs = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    core = same_core()
    process = subprocess.Popen(
        [*wrapper, *program, *pairs, *arguments],
        cwd=directory,
        env={
            **os.environ,
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            **(environment or {}),
            **({"PYTHONPATH": os.pathsep.join(map(str, paths))} if paths else {}),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: _prepare(core, os.SCHED_BATCH if batch else os.SCHED_OTHER),
    )
    server = None
    try:
        server = Server(process, ports, scene)
        yield server
        if not in_band:
            assert process.stdin is not None
            process.stdin.close()
            if process.wait(TIMEOUT):
                raise Void(f"the server ended with {process.returncode}; see above")
    except subprocess.TimeoutExpired:
        raise Void("the server did not end at the end of its input") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # valgrind holds every other signal back
        process.wait()
        reserved.close()
        if server is not None:
            server.close()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
