# SPDX-License-Identifier: MIT
"""A process for each loop, and what differs between what they see.

The processes stay, and run one scenario after the other on fresh loops; a scenario that forks gets
processes of its own. One that died or hung is a result, and is replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.differential.scenario import Scenario

ROOT = Path(__file__).parents[2]
LOOPS = ("asyncio", "ioxide")
LIMIT = 40.0
"""Seconds in which a scenario has to end, at a patience of 1."""
PATIENCE = (1.0, 2.0, 5.0)
"""A difference counts that is there each time, however long one waits for things to happen."""


class BrokenOracleError(Exception):
    """The oracle itself failed; nothing was proved about any loop."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the two loops do not have in common."""

    where: str
    """A path in what was seen: ``connections.0.peer.end``."""
    asyncio: Any
    ioxide: Any

    def __str__(self) -> str:
        return f"{self.where}: asyncio {self.asyncio!r}, ioxide {self.ioxide!r}"


def compare(one: Any, other: Any, where: str = "") -> Iterator[Difference]:
    """Where two observations differ, as deep as their shapes agree."""
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        for key in one:
            yield from compare(one[key], other[key], f"{where}.{key}" if where else key)
    elif (
        isinstance(one, list)
        and isinstance(other, list)
        and len(one) == len(other)
        and any(isinstance(each, dict) for each in one)
    ):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from compare(a, b, f"{where}.{number}")
    elif one != other:
        yield Difference(where, one, other)


class Worker:
    """A process that runs scenarios on one loop."""

    def __init__(self, loop: str, certificate: Path) -> None:
        self._loop, self._certificate = loop, certificate
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()

    def start(self, scenario: Scenario, patience: float) -> None:
        """Begin to run it."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.differential.worker", self._loop, self._certificate],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "PYTHONWARNINGS": "default"},
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            request = {"scenario": scenario.line(), "patience": patience}
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def result(self, patience: float) -> dict[str, Any]:
        """What was seen, or how the process ended; raises `BrokenOracleError`."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(LIMIT * patience):
                self.stop()
                return {"process": f"did not end within {LIMIT * patience:.0f} s"}
        line = process.stdout.readline()
        if not line:
            status = self.stop()
            return {"process": f"ended with status {status}: {self.errors()}"}
        seen: dict[str, Any] = json.loads(line)
        if "broken" in seen:
            raise BrokenOracleError(f"on {self._loop}:\n{seen['broken']}")
        return seen

    def errors(self) -> str:
        """The last lines that it wrote to stderr."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]

    def stop(self) -> int:
        """End the process; its status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0 if process.poll() is None else None)
        if process.poll() is None:
            process.kill()
        status = process.wait()
        for file in (process.stdin, process.stdout):
            assert file is not None
            with contextlib.suppress(BrokenPipeError):
                file.close()
        return status

    def close(self) -> None:
        self.stop()
        self._errors.close()


class Pair:
    """Both workers."""

    def __init__(self, certificate: Path) -> None:
        self._certificate = certificate
        self._workers = [Worker(loop, certificate) for loop in LOOPS]
        self.runs = 0

    def observe(self, scenario: Scenario, patience: float = 1.0) -> tuple[Any, Any]:
        """What asyncio shows and what ioxide shows, at the same time."""
        workers = self._workers
        if scenario.own_process():
            workers = [Worker(loop, self._certificate) for loop in LOOPS]
        self.runs += 1
        for worker in workers:
            worker.start(scenario, patience)
        one, other = (worker.result(patience) for worker in workers)
        if workers is not self._workers:
            for worker in workers:
                worker.close()
        if "process" in one:
            raise BrokenOracleError(f"asyncio itself: {one['process']}\n{scenario.line()}")
        return one, other

    def differences(
        self, scenario: Scenario, matters: Callable[[Difference], bool] = lambda _: True
    ) -> list[Difference]:
        """What differs in each of three runs and `matters`; the values are those of the last."""
        found: dict[str, Difference] = {}
        for number, patience in enumerate(PATIENCE):
            seen = compare(*self.observe(scenario, patience))
            now = {each.where: each for each in seen if matters(each)}
            found = {where: now[where] for where in now if not number or where in found}
            if not found:
                break
        return list(found.values())

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    """A `Pair`, and a certificate for its scenarios with TLS."""
    import trustme

    with tempfile.TemporaryDirectory() as directory:
        certificate = Path(directory) / "localhost.pem"
        made = trustme.CA().issue_cert("localhost")
        # A chain to trust and a key in one file: the leaf is its own anchor for the client.
        certificate.write_bytes(_pem(made))
        both = Pair(certificate)
        try:
            yield both
        finally:
            both.close()


def _pem(made: Any) -> bytes:
    parts: Mapping[str, Any] = {
        "key": made.private_key_pem.bytes(),
        "chain": b"".join(each.bytes() for each in made.cert_chain_pems),
    }
    return b"".join(parts.values())
