# SPDX-License-Identifier: MIT
"""The flight recorder: what is kept, what is told of it and when, and what a saved one says."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import ioxide
from ioxide import __main__
from ioxide._common import record
from ioxide._common.record import Entry
from ioxide._ring import _core
from tests.support import connect, echo, read_exactly, serve, until

RECV, SEND = _core.KINDS.index("recv"), _core.KINDS.index("send")


@pytest.fixture(name="on")
def on_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(record.VARIABLE, "1")


def asked(server: ioxide.Server, times: int = 1) -> None:
    with connect(server) as client:
        for _ in range(times):
            client.sendall(b"ping")
            assert b"ping" == read_exactly(client, 4)


def kept(server: ioxide.Server) -> list[Entry]:
    return record.entries(server.reactors[0].driver._core.record())


@pytest.mark.usefixtures("on")
def test_submissions_and_completions_are_kept_in_their_order() -> None:
    """Of one request: its receive, its bytes, the send, and how many went out."""
    with serve(echo) as server:
        asked(server)
        until(lambda: any(one.kind == "send" and not one.is_submission for one in kept(server)), "")
        found = [one for one in kept(server) if one.kind in ("recv", "send")]
    times = [one.at_ns for one in found]
    assert times == sorted(times)
    number = found[0].slot
    shown = [one.describe() for one in found if one.result or one.is_submission]
    of = f"of connection {number} (generation {found[0].generation})"
    assert shown[0].startswith(f"submitted recv {of} on descriptor ")
    assert shown[1].startswith(f"completed recv {of}: 4 bytes, buffer ")
    assert shown[1].endswith("more to come")
    assert shown[2].startswith(f"submitted send {of} on descriptor ")
    assert shown[3] == f"completed send {of}: 4 bytes"


@pytest.mark.usefixtures("on")
def test_the_last_are_kept() -> None:
    """No more than 4,096 of them, and the newest."""
    with serve(echo) as server:
        asked(server, times=1500)
        first = kept(server)
        asked(server)
        second = kept(server)
    assert 4096 == len(first) == len(second)
    assert second[-1].at_ns > first[-1].at_ns
    assert second[0].at_ns >= first[0].at_ns
    assert [one.at_ns for one in second] == sorted(one.at_ns for one in second)


@pytest.mark.parametrize("value", ["", "0"])
def test_nothing_is_kept_unless_asked(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(record.VARIABLE, value)
    with serve(echo) as server:
        asked(server)
        assert b"" == server.reactors[0].driver._core.record()
    assert [] == record.ended()


@pytest.mark.usefixtures("on")
def test_a_handlers_fault_tells_what_came_before(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        raise RuntimeError("of this test")

    with caplog.at_level(logging.ERROR), serve(handler) as server, connect(server) as client:
        client.sendall(b"ping")
        assert b"" == client.recv(1)
    (told,) = [text for text in caplog.messages if "The last of its ring" in text]
    assert "a handler raised an exception" in told
    assert "completed recv of connection" in told


@pytest.mark.usefixtures("on")
def test_a_stall_tells_what_came_before(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        release.wait(20)

    def told() -> list[str]:
        return [text for text in caplog.messages if "The last of its ring" in text]

    with caplog.at_level(logging.ERROR):
        with serve(handler, stall_warning_ms=100) as server, connect(server) as client:
            client.sendall(b"ping")
            until(lambda: bool(told()), "the record of a stall")
            release.set()
    assert "its callbacks keep it" in told()[0]


@pytest.mark.usefixtures("on")
def test_a_reactors_end_tells_what_came_before(caplog: pytest.LogCaptureFixture) -> None:
    def end() -> None:
        raise SystemExit("of this test")

    def run() -> None:
        with serve(echo) as server:
            asked(server)
            server.reactors[0].post(end)
            server.wait(20)

    with caplog.at_level(logging.ERROR), pytest.raises(ioxide.ReactorError, match="SystemExit"):
        run()
    assert any("it has ended by an exception" in text for text in caplog.messages)


def test_it_is_saved_and_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a directory all of it is in a file there, which the command reads."""
    monkeypatch.setenv(record.VARIABLE, str(tmp_path / "records"))

    async def handler(conn: ioxide.Connection) -> None:
        await conn.recv()
        raise RuntimeError("of this test")

    with serve(handler) as server, connect(server) as client:
        client.sendall(b"ping")
        assert b"" == client.recv(1)
    (path,) = (tmp_path / "records").iterdir()
    assert 0 == __main__.main(["record", str(path), "--last", "0"])
    shown = capsys.readouterr().out
    assert "why: a handler raised an exception" in shown
    assert "completed recv of connection" in shown
    assert 0 == __main__.main(["record", str(path), "--connection", "4000"])
    assert "nothing was submitted" in capsys.readouterr().out


def changed(**changes: object) -> str:
    good: dict[str, Any] = {
        "format": "ioxide-record",
        "version": 2,
        "fields": [field.name for field in fields(Entry)],
        "entries": [[1, SEND << 56, 4, 0, 0, 2, 0, 0]],
    }
    return json.dumps({**good, **changes})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it is not JSON"),
        (changed()[:-20], "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "does not say 'ioxide-record'"),
        (changed(version=1), "of version 1, this ioxide reads 2"),
        (changed(fields=["at"]), "have other fields"),
        (changed(entries={}), "have other fields"),
        (changed(entries=[[1, 2]]), "entry 0 is none: [1, 2]"),
        (changed(entries=[[1, 2, 3, 4, 5, 3, 0, 0]]), "entry 0 is none"),
        (changed(entries=[[1, -2, 3, 4, 5, 1, 0, 0]]), "entry 0 is none"),
        (changed(entries=[[1, "2", 3, 4, 5, 1, 0, 0]]), "entry 0 is none"),
    ],
)
def test_what_is_no_record_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str
) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    assert 1 == __main__.main(["record", str(path)])
    told = capsys.readouterr().err
    assert sentence in told
    assert str(path) in told
    assert 1 == told.count("\n")


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert 1 == __main__.main(["record", str(tmp_path / "none")])
    assert "No such file" in capsys.readouterr().err


def test_outcomes_in_words() -> None:
    """Errors by name, buffers and flags; what is no connection's names none."""
    number = RECV << 56 | 7 << 32 | 3
    completed = Entry(1, number, -105, 1 << 1, 0, 2, 0)
    silent = Entry(1, SEND << 56 | 3, 9, 4, 0, 1, 26, 1 << 6)  # IOSQE_CQE_SKIP_SUCCESS
    assert "on descriptor 9, completes only if it fails" in silent.describe()
    assert "completed recv of connection 3 (generation 7): ENOBUFS (No buffer" in (
        completed.describe()
    )
    assert Entry(1, 0, 0, 0, 0, 2, 0).describe() == "completed unknown: 0"
    wake = Entry(1, _core.KINDS.index("wake") << 56, 8, 0, 0, 2, 0)
    assert wake.describe() == "completed wake: 8"
    notified = Entry(1, SEND << 56 | 3, 0, 1 << 3, 0, 2, 0)
    assert notified.describe() == "completed send of connection 3 (generation 0): 0, notification"
    copied = Entry(1, SEND << 56 | 3, -(1 << 31), 1 << 3, 0, 2, 0)  # IORING_NOTIF_USAGE_ZC_COPIED
    assert copied.describe().endswith(": -2147483648, notification")


def test_what_all_tests_have_needs_no_ioxide() -> None:
    """`make lab-pythons` tests the lab's plugin where ioxide is not installed."""
    code = "import runpy, sys; sys.modules['ioxide'] = None; runpy.run_path('tests/conftest.py')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
