# SPDX-License-Identifier: MIT
"""What is found of a test that hangs on this very machine, outside of any guest."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any, cast

import pytest

import ioxide
from lab.suite.host_hang import MOST_KEPT, HostHang, _prune
from tests.conftest import pytest_lab_hang
from tests.lab.suite_support import Little, Ran

pytestmark = pytest.mark.lab

HANGS = """
import asyncio, socket, threading
def waits(sock):
    return sock.recv(1)
@pytest.mark.timeout(1)
def test_hangs():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        waits(ours)
"""
RECV = "    return sock.recv(1)"
PARTS = (
    "kernel stacks of its processes",
    "its io_uring rings (fdinfo)",
    "its open sockets",
    "Python stacks",
    "asyncio's tasks",
)


def bundle(little: Little, ran: Ran, name: str) -> dict[str, str]:
    """The parts of the file that the failure names."""
    limit = r"Failed: Timeout \(>1.0s\) from pytest-timeout"
    told = re.search(rf"{limit}.; (it waited in .*); (\S+) has what was found", ran.output)
    assert told is not None, ran.output
    head, *parts = (little.root / told[2]).read_text().split("\n==== ")
    assert f"{name}: no end within 1 s\n" == head
    found = dict(part.split("\n", 1) for part in parts)
    assert f"{told[1]}\n" == found.pop("in short")
    return found


def test_failure_names_line_function_and_file(little: Little) -> None:
    """The thread that waits is shown in its wait, and the sockets of nobody else are there."""
    little.tests(HANGS)

    ran = little.pytest()

    assert 1 == ran.code, ran.output
    parts = bundle(little, ran, "tests/test_it.py::test_hangs")
    assert PARTS == tuple(parts)
    assert re.match(r"process \d+, thread \d+ \(python\S*\): wchan ", parts[PARTS[0]])
    assert 2 == len(re.findall(r"  descriptor \d+: ", parts[PARTS[2]])), parts[PARTS[2]]
    assert re.match(
        r'Current thread \S+ \(MainThread\) .*\n  File "\S+test_it.py", line \d+ in waits\n'
        r'  File "\S+test_it.py", line \d+ in test_hangs\n',
        parts[PARTS[3]],
    )
    line = (little.root / "tests/test_it.py").read_text().splitlines().index(RECV) + 1
    assert f"it waited in tests/test_it.py:{line} (waits)" in ran.output
    if Path("/proc/self/wchan").read_text() and os.access("/proc/self/stack", os.R_OK):
        assert re.search(r"in the kernel in \w*unix\w*;|in the kernel in \w*recv\w*;", ran.output)


def test_rings_children_and_tasks_are_found(little: Little) -> None:
    """A process that the test has started is one of its processes; a task that another one waits
    for is shown with the line where it stands."""
    little.tests(f"""{HANGS}
@pytest.mark.timeout(1)
def test_others():
    import ctypes, subprocess
    params = ctypes.create_string_buffer(120)
    ring = ctypes.CDLL(None).syscall(425, 4, params)
    child = subprocess.Popen(["sleep", "60"], pass_fds=[ring] if ring >= 0 else [])
    async def inner():
        await asyncio.Event().wait()
    async def outer():
        await asyncio.create_task(inner(), name="the inner one")
    try:
        print("child", child.pid, "ring", ring)
        asyncio.run(outer())
    finally:
        child.kill()
        child.wait()
""")

    ran = little.pytest("-k", "others")

    parts = bundle(little, ran, "tests/test_it.py::test_others")
    child = re.search(r"child (\d+) ring (-?\d+)", ran.output)
    assert child is not None
    assert f"process {child[1]}, thread {child[1]} (sleep)" in parts[PARTS[0]]
    shown = f"process {child[1]}, descriptor {child[2]}:" in parts[PARTS[1]]
    assert shown == (int(child[2]) >= 0)
    task = parts[PARTS[4]].partition("the inner one: ")[2].splitlines()
    assert re.search(r'test_it.py", line \d+ in inner$', task[1]), parts[PARTS[4]]


def test_nothing_is_left_of_who_ends_after_all(little: Little) -> None:
    """A test that ends while it is looked at has passed. Until then no thread more was there than
    the test's own."""
    little.tests("""
import threading
@pytest.mark.timeout(1)
def test_late():
    before = threading.active_count()
    time.sleep(1.2)
    assert 1 == before
""")

    ran = little.pytest()

    assert 0 == ran.code, ran.output
    assert [] == list((little.root / ".pytest_cache").rglob("hang-*.txt"))


def test_repository_may_know_more(little: Little) -> None:
    """What breaks while it is asked is a sentence, and the rest is there."""
    little.tests(HANGS)
    more = "def pytest_lab_hang(): return [('its recorder', 'the last entry')]\n"
    little.write("tests/conftest.py", more)
    parts = bundle(little, little.pytest(), "tests/test_it.py::test_hangs")
    assert "the last entry\n" == parts["its recorder"]

    little.write("tests/conftest.py", "def pytest_lab_hang(): return 1 / 0\n")
    parts = bundle(little, little.pytest(), "tests/test_it.py::test_hangs")
    words = "could not be had: ZeroDivisionError: division by zero\n"
    assert words == parts["what the repository knows"]
    assert "waits" in parts[PARTS[3]]


def test_rings_of_this_repository_tell_their_last() -> None:
    """Of a loop that is open, whatever thread runs it."""
    loop = ioxide.new_event_loop()
    try:
        loop.run_until_complete(asyncio.sleep(0.001))
        found = dict(pytest_lab_hang())
    finally:
        loop.close()
    assert "submitted wake" in found["the last of the ring of MainThread"]


def test_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    item = cast(Any, None)
    hang = HostHang(item, "no end", tmp_path / "file/below", tmp_path)
    assert hang.told().startswith("what it was at could not be found: ")
    hang.forget()


def test_files_of_earlier_hangs_are_few(tmp_path: Path) -> None:
    """The newest stay."""
    for number in range(30):
        file = tmp_path / f"hang-{number}-1.txt"
        file.touch()
        os.utime(file, (number, number))
    _prune(tmp_path)
    left = {int(file.name.split("-")[1]) for file in tmp_path.iterdir()}
    assert set(range(30 - MOST_KEPT + 1, 30)) == left
