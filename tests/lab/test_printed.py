# SPDX-License-Identifier: MIT
"""What a test has printed is there although its process or its kernel died at once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from lab.remote.wire import PRINTED_VARIABLE
from lab.suite import printed
from lab.suite.printed import Printed
from lab.vm.printed import Printed as OnHost
from tests.lab.suite_support import REPOSITORY, Little, Ran, leg_of

pytestmark = pytest.mark.lab

SAID = "said by a fixture\nand to standard error\nsaid by its descriptor\nsaid last\n"
DIES = """
@pytest.fixture
def says(): print("said by a fixture")
def test_good(): print("of no use")
def test_dies(says):
    os.write(1, b"said by its descriptor\\n")
    os.write(2, b"and to standard error\\n")
    print("said last")
    os._exit(3)
def test_quiet(): os._exit(3)
"""


def output_of(ran: Ran, name: str) -> str:
    """What the log has of one test."""
    assert ran.results is not None
    record = ran.results["verdicts"][f"tests/test_it.py::{name}"]
    part = record["output"]
    return str((ran.files / part["file"]).read_text()[part["begin"] : part["end"]])


def test_test_that_dies_leaves_what_it_printed(little: Little) -> None:
    """In its cell of the page, and in JUnit's system-out; nothing of another test is there."""
    little.tests(DIES)

    ran = little.lab("-o", "junit_logging=system-out")

    assert {"test_good": "passed", "test_dies": "lost", "test_quiet": "lost"} == ran.verdicts
    assert f"-- Captured stdout until it was lost\n{SAID}" in output_of(ran, "test_dies")
    assert "said" not in output_of(ran, "test_quiet")
    assert "of no use" not in output_of(ran, "test_dies")
    assert SAID.replace("\n", "\\n") in (ran.files / "report.html").read_text()
    assert "said last" in (ran.files / "junit.xml").read_text()


def test_what_it_printed_stands_before_how_it_died(little: Little) -> None:
    """Faulthandler's stacks are long, and came last."""
    little.tests("def test_aborts():\n    print('said last')\n    os.abort()\n")
    text = output_of(little.lab(), "test_aborts")
    assert text.index("-- Captured stdout until it was lost\nsaid last\n") < text.index("Aborted")


def test_what_the_guest_took_along_is_there(little: Little) -> None:
    """The kernel panics in the line behind the print."""
    little.tests(
        """
def test_panics():
    print("said last")
    with open(os.environ["LAB_FAKE_KMSG"], "a") as kmsg:
        kmsg.write("<0>Kernel panic - not syncing: fake\\\\n")
    time.sleep(60)
""".replace("\\\\n", "\\n")
    )

    ran = little.lab()

    assert {"test_panics": "splat"} == ran.verdicts, ran.output
    assert "-- Captured stdout until it was lost\nsaid last\n" in output_of(ran, "test_panics")


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Any]:
    """Standard output, kept in a file as pytest does it."""
    raw = (tmp_path / "kept").open("w+b", buffering=0)
    with io.TextIOWrapper(raw, write_through=True) as file:
        file.write("before\n")
        yield file


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of the port."""
    monkeypatch.setenv(PRINTED_VARIABLE, str(tmp_path / "port"))
    (tmp_path / "port").touch()
    return tmp_path / "port"


@contextmanager
def during(one: Printed, stream: Any) -> Iterator[None]:
    """A phase of a test, for which pytest sets standard output anew."""
    with redirect_stdout(stream), redirect_stderr(io.StringIO()), one._streamed():
        yield


def test_each_write_is_sent_at_once(stream: Any, port: Path) -> None:
    """With all that came before it; of what was there before the phase nothing."""
    one = Printed()
    with during(one, stream):
        print("one")
        assert b"one\n" == port.read_bytes()
        os.write(stream.fileno(), b"two ")
        print("three", end="")
        assert b"one\ntwo three" == port.read_bytes()
        os.write(stream.fileno(), b"four")
    print("five")
    assert b"one\ntwo threefour" == port.read_bytes()
    assert PRINTED_VARIABLE not in os.environ


def test_much_is_cut_off_and_many_wait(
    stream: Any, port: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first writes are sent at once, the others together; more than a limit is not sent, for
    each test anew."""
    monkeypatch.setattr(printed, "AT_ONCE", 3)
    monkeypatch.setattr(printed, "EACH_S", 1000.0)
    monkeypatch.setattr(printed, "MOST", 40)
    one = Printed()
    one.pytest_runtest_logstart()
    with during(one, stream):
        for number in range(9):
            stream.write(f"{number}\n")
        assert b"0\n1\n2\n" == port.read_bytes()
    assert "".join(f"{n}\n" for n in range(9)).encode() == port.read_bytes()
    with during(one, stream):
        stream.write("a" * 100)
    words = port.read_bytes()
    assert words.endswith(b"it was too much)\n")
    with during(one, stream):
        stream.write("b")
    assert words == port.read_bytes()
    one.pytest_runtest_logstart()
    with during(one, stream):
        stream.write("c")
    assert words + b"c" == port.read_bytes()


def test_a_program_is_cut_off_and_waits_likewise(
    port: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it writes comes by no stream of Python; the same limits hold for it."""
    monkeypatch.setattr(printed, "AT_ONCE", 3)
    monkeypatch.setattr(printed, "EACH_S", 1000.0)
    monkeypatch.setattr(printed, "MOST", 40)
    one = Printed()
    one.pytest_runtest_logstart()
    with one.program() as heard:
        for number in range(9):
            heard(f"{number}\n".encode())
        assert b"0\n1\n2\n" == port.read_bytes()
    said = "".join(f"{n}\n" for n in range(9)).encode()
    assert said == port.read_bytes()
    for _ in range(2):
        with one.program() as heard:
            heard(b"a" * 100)
        assert said + b"a" * (40 - len(said)) + printed._CUT == port.read_bytes()


def test_child_sends_nothing(stream: Any, port: Path) -> None:
    """It writes into the file that its parent sends."""
    one = Printed()
    with during(one, stream):
        if (child := os.fork()) == 0:
            try:
                stream.write("of the child\n")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert b"" == port.read_bytes()
        stream.write("of the parent\n")
    assert b"of the child\nof the parent\n" == port.read_bytes()


@pytest.mark.parametrize("place", ["/dev/full", "/nowhere/at/all"])
def test_port_that_fails_costs_nothing(
    place: str, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PRINTED_VARIABLE, place)
    with during(Printed(), stream):
        stream.write("all the same\n")
    stream.seek(0)
    assert "before\nall the same\n" == stream.read()


def test_only_the_last_bytes_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "printed.log"
    kept = OnHost(file)
    assert b"" == kept.tail(4)
    kept.forget()
    file.write_bytes(b"0123456789")
    assert b"6789" == kept.tail(4)
    kept.forget()
    assert b"" == kept.tail(4)
    assert b"" == OnHost(None).tail(4)


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["sysrq", "process"])
def test_real_guest_that_panics_leaves_what_was_printed(tmp_path: Path, ends: str) -> None:
    """In a real guest, with nothing between the print and its end."""
    last = {
        "sysrq": 'open("/proc/sysrq-trigger", "w").write("c")',
        "process": "os.kill(os.getpid(), 9)",
    }
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\n')
    (tmp_path / "test_it.py").write_text(
        f"import os\ndef test_dies():\n    print('said ' + 'last')\n    {last[ends]}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "lab", "test", "--kernel", "6.12"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "CI": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    files = tmp_path / "lab-results/latest"
    record = leg_of(files)["verdicts"]["test_it.py::test_dies"]
    assert record["verdict"] in ("lost", "splat"), done.stdout
    log = (files / record["output"]["file"]).read_text()
    assert "-- Captured stdout until it was lost\nsaid last\n" in log
