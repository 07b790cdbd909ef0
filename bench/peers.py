# SPDX-License-Identifier: MIT
"""``python -m bench peers``: the same servers on ioxide, uvloop, asyncio and others, and in bare C.

Paired rounds in each scene of `bench.scenes`, with server and load generator on one core and on a
core each. All that was measured goes into docs/peers.json, from which `bench.peers_page` makes the
tables and the plot.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import peers_page
from bench.affinity import machine
from bench.counts import Program, instructions
from bench.errors import Void
from bench.native import BUILD, ROOT, bare
from bench.process import Load, Server, running
from bench.rounds import interleaved
from bench.scenes import PLAIN, SCENES, Scene
from tools import pythons

ROUNDS = 7
SECONDS = 0.5
FEW = ("1 connection", PLAIN.name)
"""The scenes of who is not measured in all of them."""
NEWER = "3.13"
OPTIONAL = ("rloop", "uringcore", "granian")
"""What is measured where it installs: each is there for some Pythons only."""
COUNTED = ("handler", "protocol", "streams")
"""The styles whose instructions are counted too, at 1 and at 64 connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One server of the table."""

    name: str
    loop: str = ""
    """Of `bench.peer`; empty where there is none to choose."""
    style: str
    """Of `bench.peer`; or ``handler`` (`ioxide.Server`), ``granian``, ``uring``, ``epoll``."""
    everywhere: bool = True
    """Whether it is measured in each scene, or in `FEW`."""
    newer: bool = False
    """Whether it runs under Python `NEWER`."""

    def serves(self, scene: Scene) -> bool:
        """Whether it is measured in that scene: TLS is asyncio's, a Server's handler has none."""
        if scene.tls and self.style in ("handler", "uring", "epoll"):
            return False
        return self.everywhere or scene.name in FEW


def _contestants() -> tuple[Contestant, ...]:
    found = [Contestant(name="ioxide handler", style="handler")]
    for loop in ("ioxide", "uvloop", "asyncio"):
        for style in ("protocol", "streams", "uvicorn"):
            found.append(Contestant(name=f"{loop} {style}", loop=loop, style=style))
    for loop in ("ioxide", "uvloop"):
        name = f"{loop} protocol, {NEWER}"
        found.append(
            Contestant(name=name, loop=loop, style="protocol", everywhere=False, newer=True)
        )
    found += [
        Contestant(name="rloop protocol", loop="rloop", style="protocol", everywhere=False),
        Contestant(
            name=f"uringcore protocol, {NEWER}",
            loop="uringcore",
            style="protocol",
            everywhere=False,
            newer=True,
        ),
        Contestant(name="granian", style="granian", everywhere=False),
        Contestant(name="C, io_uring", style="uring"),
        Contestant(name="C, epoll", style="epoll"),
    ]
    return tuple(found)


CONTESTANTS = _contestants()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One server in one round."""

    rate: float
    """Requests a second."""
    cpu_us: float
    """Of the server, a request."""
    p50_us: float
    p99_us: float

    @classmethod
    def of(cls, load: Load, before: Mapping[str, float], after: Mapping[str, float]) -> Sample:
        """What the load and the server's processor time say; raises `Void` without either."""
        cpu = after["cpu_s"] - before["cpu_s"]
        if cpu <= 0 or load.seconds <= 0:
            raise Void("the server's processor time did not move: another one has answered")
        return cls(
            rate=load.requests / load.seconds,
            cpu_us=cpu / load.requests * 1e6,
            p50_us=load.p50_us,
            p99_us=load.p99_us,
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python with what its peers need."""

    python: str
    directory: Path
    """Where servers run: ``bench`` is found there, and ioxide as it is built for this Python."""
    libraries: Path

    def version(self, name: str) -> str | None:
        """Of a distribution in `libraries`, or of one beside this program."""
        for found in metadata.distributions(name=name, path=[str(self.libraries)]):
            return found.version
        return None

    def has(self, contestant: Contestant) -> bool:
        """Whether what it needs is installed."""
        needed = contestant.loop if contestant.loop in OPTIONAL else contestant.style
        return needed not in OPTIONAL or self.version(needed) is not None

    def fault(self, contestant: Contestant) -> str:
        """Why somebody else's server cannot be measured; empty for a sound one, and for ours."""
        if contestant.loop not in OPTIONAL and contestant.style not in OPTIONAL:
            return ""
        try:
            for scene in (SCENES[name] for name in FEW):
                with started(contestant, scene, self) as server:
                    server.load(seconds=2, connections=scene.connections, patience=5)
        except Void as error:
            return f"it does not get through two seconds of {scene.name} ({error})"
        return ""


def _install(python: str, target: Path, *what: str, optional: bool = False) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(target)]
    command += ["--root-user-action", "ignore"]
    done = subprocess.run(
        [*command, *what],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if optional else None,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0"},
    )
    if done.returncode and not optional:
        raise Void(f"pip could not install {' '.join(what)}; see above")


def _prepared(python: str, *, ours: bool) -> Environment:
    """The directory of that Python's libraries, made when first needed.

    `ours`: this program's own Python, for which ioxide is built in the tree.
    """
    code = "import sysconfig; print(sysconfig.get_config_var('SOABI'))"
    try:
        asked = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Void(f"{python} does not run: {error}") from None
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["peers"]
    key = hashlib.sha256(repr((group, OPTIONAL)).encode()).hexdigest()[:8]
    target = BUILD / f"peers-{asked.stdout.strip()}-{key}"
    if not target.exists():
        new = target.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        # pip knows --group since 25.1.
        _install(python, new, *group, *([] if ours else [str(ROOT)]))
        for name in OPTIONAL:
            _install(python, new, "--only-binary", ":all:", name, optional=True)
        if not ours:
            (new / "bench").symlink_to(ROOT / "bench")
        new.rename(target)
    elif not ours:  # as the tree is now
        _install(python, target, "--no-deps", str(ROOT))
    return Environment(python, ROOT if ours else target, target)


def libraries() -> Path:
    """The directory that has what this Python's peers need."""
    return _prepared(sys.executable, ours=True).libraries


@contextlib.contextmanager
def started(contestant: Contestant, scene: Scene, where: Environment) -> Iterator[Server]:
    """The server, in a process of its own."""
    style = contestant.style
    if style in ("uring", "epoll"):
        size = len(scene.request) + scene.upload
        command = [str(bare()), style, str(size), scene.answer.decode(), str(scene.download)]
        with running({}, program=command, scene=scene) as server:
            yield server
        return
    module, arguments = "bench.peer", [contestant.loop, style]
    if style == "handler":
        module, arguments = "bench.serve", []
    elif style == "granian":
        module, arguments = "bench.foreign", []
    with running(
        {},
        module=module,
        arguments=arguments,
        paths=[where.libraries],
        scene=scene,
        python=where.python,
        directory=where.directory,
    ) as server:
        if style == "uvicorn":
            server.answer = scene.asgi_answer
        elif style == "granian":
            server.answer = answered(server, scene)
        yield server


def answered(server: Server, scene: Scene) -> bytes:
    """What a server with headers of its own answers, to be compared with its later answers."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(scene.request)
        data = b""
        while not data.endswith(scene.body):
            part = client.recv(1 << 16)
            if not part:
                raise Void(f"the server's answer is not whole: {data!r}")
            data += part
    if not data.startswith(b"HTTP/1.1 200 "):
        raise Void(f"the server's answer is none: {data!r}")
    return data


def _counted(environment: Environment) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """User instructions of a request, where they are counted; and why the others could not be."""
    found, failed = [], []
    for contestant in CONTESTANTS:
        if contestant.style not in COUNTED or contestant.newer or not contestant.everywhere:
            continue
        for connections in (1, PLAIN.connections):
            program = Program(
                style=contestant.style,
                loop=contestant.loop or "ioxide",
                connections=connections,
                paths=(environment.libraries,),
            )
            cell = {"server": contestant.name, "connections": connections}
            try:
                cost = instructions(program)
            except Void as error:  # what the rounds have measured is kept
                failed.append({**cell, "why": str(error)})
                print(f"{contestant.name}, {connections}: not counted: {error}", flush=True)
                continue
            print(f"{contestant.name}, {connections}: {cost.low:.0f} instructions", flush=True)
            found.append({**cell, "low": round(cost.low), "high": round(cost.high)})
    return found, failed


def measured(
    rounds: int, seconds: float, scenes: Sequence[str], newer: str | None, *, counted: bool
) -> dict[str, Any]:
    """All cells of the table, in the form of docs/peers.json."""
    ours = _prepared(sys.executable, ours=True)
    other = _prepared(newer, ours=False) if newer else None
    environments = {False: ours, True: other}
    absent = {}
    present: list[tuple[Contestant, Environment]] = []
    for contestant in CONTESTANTS:
        environment = environments[contestant.newer]
        if environment is None:
            absent[contestant.name] = f"there is no python{NEWER}"
        elif not environment.has(contestant):
            absent[contestant.name] = "nothing of it installs for this Python"
        elif why := environment.fault(contestant):
            absent[contestant.name] = why
        else:
            present.append((contestant, environment))
    cells = []
    for scene in (SCENES[name] for name in scenes):
        with contextlib.ExitStack() as stack:
            servers = {
                contestant.name: stack.enter_context(started(contestant, scene, environment))
                for contestant, environment in present
                if contestant.serves(scene)
            }
            for placement, apart in peers_page.PLACEMENTS.items():
                samples = interleaved(
                    servers,
                    Sample.of,
                    connections=scene.connections,
                    rounds=rounds,
                    seconds=seconds,
                    apart=apart,
                    told=functools.partial(_tell, f"{scene.name}, {placement}", rounds),
                )
                for name, found in samples.items():
                    cell: dict[str, Any] = {"server": name, "scene": scene.name}
                    cell["placement"] = placement
                    for field in ("rate", "cpu_us", "p50_us", "p99_us"):
                        cell[field] = [round(getattr(one, field), 3) for one in found]
                    cells.append(cell)
    counts, uncounted = _counted(ours) if counted else ([], [])
    versions = {name: ours.version(name) for name in ("uvloop", "httptools", "rloop", "granian")}
    versions["uvicorn"] = metadata.version("uvicorn")
    versions["uringcore"] = other.version("uringcore") if other else None
    return {
        "version": peers_page.VERSION,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {name: found for name, found in versions.items() if found},
        "rounds": rounds,
        "seconds": seconds,
        "load_average": round(os.getloadavg()[0], 1),
        "absent": absent,
        "cells": cells,
        "instructions": counts,
        "uncounted": uncounted,
    }


def _tell(what: str, of: int, number: int) -> None:
    print(f"{what}: round {number} of {of} is over", flush=True)


def run(
    rounds: int,
    seconds: float,
    *,
    write: bool,
    scenes: Sequence[str] = (),
    newer: str | None = None,
    counted: bool = True,
    saved: Path | None = None,
) -> int:
    """Measure, or read what was `saved`; print, and write the page with its plot."""
    if saved is not None:
        results = peers_page.read(saved)
    else:
        newer = newer or pythons.found(f"python{NEWER}")
        results = measured(rounds, seconds, scenes or tuple(SCENES), newer, counted=counted)
    text = peers_page.tables(results)
    print(text, flush=True)
    if write:
        peers_page.RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        sys.path.insert(0, str(libraries()))
        peers_page.write(results, text)
    return 0
