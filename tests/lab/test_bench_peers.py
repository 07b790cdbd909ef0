# SPDX-License-Identifier: MIT
"""The comparison with other loops: all serve each scene, and the tables are true."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench import peers, peers_page
from bench.counts import Instructions, Program
from bench.errors import Void
from bench.native import ROOT
from bench.peers import CONTESTANTS, Contestant, Environment, answered, started
from bench.process import running
from bench.scenes import PLAIN, SCENES, Scene

pytestmark = pytest.mark.lab

HERE = Environment(sys.executable, ROOT, ROOT)
SERVERS = [
    one
    for one in CONTESTANTS
    # What is left out takes libraries that only `make bench-peers` installs.
    if one.style != "uvicorn" and one.loop in ("ioxide", "asyncio", "") and not one.newer
    if one.style != "granian"
]


@pytest.mark.parametrize("scene", SCENES.values(), ids=lambda scene: scene.name)
def test_each_scene_is_served_by_all(scene: Scene) -> None:
    """Every answer is right; what has no TLS is in no scene with it."""
    served = [one for one in SERVERS if one.serves(scene)]
    assert len(SERVERS) == 7
    assert len(served) == (4 if scene.tls else 7)
    for one in served:
        with started(one, scene, HERE) as server:
            before = server.settled()
            requests = 2 * scene.connections * scene.depth
            load = server.load(requests=requests, connections=scene.connections)
            assert load.requests == requests
            assert server.settled()["cpu_s"] > before["cpu_s"]


@pytest.mark.parametrize(
    ("scene", "answer"),
    [
        (SCENES["1 MiB down"], SCENES["1 MiB down"].answer.replace(b"1048576", b"1048577")),
        (SCENES["TLS"], b"HTTP/1.1 500"),
        (SCENES["short connections"], b"HTTP/1.1 500"),
    ],
    ids=["down", "tls", "short"],
)
def test_wrong_answer_is_void(scene: Scene, answer: bytes) -> None:
    """The load generator compares in each kind of scene."""
    with started(Contestant(name="", loop="asyncio", style="protocol"), scene, HERE) as server:
        server.answer = answer
        with pytest.raises(Void, match=r"not the one that was expected|more came|of \d+ bytes"):
            server.load(requests=scene.connections, connections=scene.connections, patience=2)


def test_short_connections_are_short() -> None:
    """Each request has a connection of its own."""
    scene = SCENES["short connections"]
    with running({}, scene=scene) as server:
        before = server.settled()["accepts"]
        server.load(requests=2 * scene.connections, connections=scene.connections)
        assert server.settled()["accepts"] - before == 2 * scene.connections


def test_answer_with_headers_of_its_own() -> None:
    """What a foreign server answers first is what its later answers are compared with."""
    with running({}) as server:
        assert answered(server, PLAIN) == PLAIN.answer


def cell(server: str, scene: str, placement: str, rate: list[float]) -> dict[str, Any]:
    other = {field: [1.0] * len(rate) for field in ("cpu_us", "p50_us", "p99_us")}
    return {"server": server, "scene": scene, "placement": placement, "rate": rate, **other}


def results(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    return {
        "version": peers_page.VERSION,
        "date": "2026-11-29",
        "machine": "a machine",
        "versions": {"uvloop": "1"},
        "rounds": len(ours),
        "seconds": 1,
        "load_average": 1.0,
        "absent": {"rloop protocol": "nothing of it installs for this Python"},
        "cells": [
            cell("ioxide protocol", "1 connection", "one core", ours),
            cell("uvloop protocol", "1 connection", "one core", theirs),
        ],
        "instructions": [
            {"server": "ioxide protocol", "connections": 1, "low": 11680, "high": 11700}
        ],
        "uncounted": [{"server": "ioxide protocol", "connections": 64, "why": "instructions vary"}],
    }


def test_interval_of_a_median() -> None:
    """By order alone: of 15 values it is from the fourth to the twelfth (binomial, 96.5 %), of
    seven all of them (98.4 %; without the outer ones 87.5 %)."""
    found = peers_page.interval([float(n) for n in range(15, 0, -1)])
    assert (found.median, found.low, found.high) == (8, 4, 12)
    found = peers_page.interval([float(n) for n in range(7)])
    assert (found.median, found.low, found.high) == (3, 0, 6)
    found = peers_page.interval([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high) == (2, 1, 3)
    with pytest.raises(Void, match="too few"):
        peers_page.interval([1.0, 2.0])


def test_aim_is_missed_where_the_whole_interval_is_below() -> None:
    """Ratios are of rounds, not of medians: two servers that drift alike are equal."""
    drifting = [100.0, 200.0, 400.0, 100.0, 200.0, 400.0, 100.0]
    equal = (
        "| 1 connection | ioxide protocol | uvloop protocol | 1.00 [1.00 .. 1.00] | 1.00 reached"
    )
    assert equal in peers_page.aims(results(drifting, drifting))
    slower = [0.9 * rate for rate in drifting]
    assert "0.90 [0.90 .. 0.90] | 1.00 missed | - | 1.00 |" in peers_page.aims(
        results(slower, drifting)
    )
    slower[0] = 1.1 * drifting[0]
    assert "0.90 [0.90 .. 1.10] | 1.00 reached" in peers_page.aims(results(slower, drifting))


def test_tables_have_what_was_measured_and_name_what_was_not() -> None:
    text = peers_page.tables(results([100.0, 110.0, 120.0], [90.0, 90.0, 90.0]))
    assert "| server | 1 connection |" in text
    assert "| ioxide protocol | 110 |" in text
    assert "| ioxide protocol | 11680 | - |" in text
    assert "ioxide protocol, 64 connections, is not counted: instructions vary." in text
    assert "rloop protocol is not measured: nothing of it installs for this Python." in text


def test_a_count_that_fails_loses_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """What varies is named, and the others are counted."""

    def instructions(program: Program) -> Instructions:
        if program.connections == 1:
            raise Void("instructions per request vary from 1 to 2")
        return Instructions.of([100.0, 100.0, 101.0])

    monkeypatch.setattr(peers, "instructions", instructions)
    found, failed = peers._counted(HERE)
    assert found
    assert {64} == {cell["connections"] for cell in found}
    assert len(found) == len(failed)
    assert all("vary from 1 to 2" in cell["why"] for cell in failed)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "is no result of make bench-peers"),
        ("{", "is no result of make bench-peers"),
        ("[]", "is no result of make bench-peers"),
        ('{"version": 99}', "has version 99 of that form; this program reads 1"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str | None, why: str) -> None:
    """A file that is not there, cut off, another one, or of another version: a sentence."""
    path = tmp_path / "peers.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Void, match=why):
        peers_page.read(path)


def test_command_reads_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--from` measures nothing; a scene that does not exist is a usage error."""
    path = tmp_path / "peers.json"
    path.write_text(json.dumps(results([1.0] * 3, [1.0] * 3)))
    monkeypatch.setattr(sys, "argv", ["bench", "peers", "--print-only", "--from", str(path)])
    assert command.main() == 0
    assert "| ioxide protocol | 1 |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["bench", "peers", "--scene", "2 connections"])
    with pytest.raises(SystemExit) as raised:
        command.main()
    assert raised.value.code == 2
    assert "2 connections" in capsys.readouterr().err
