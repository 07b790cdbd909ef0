# SPDX-License-Identifier: MIT
"""What is found of a test that hangs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.remote.process import TREE
from lab.report import page
from lab.suite.waits import kernel_function, python_frames, python_line
from tests.lab.suite_support import REPOSITORY, Little, Ran, leg_of

pytestmark = pytest.mark.lab

HANGS = """
def test_good(): pass
def waits(sock):
    return sock.recv(1)
def test_hangs():
    import os, socket
    ours, theirs = socket.socketpair()
    print("said before"); os.write(2, b"and there")
    waits(ours)
def test_next(): pass
"""
PARTS = (
    "registers of the processors, by QMP",
    "kernel stacks of its processes",
    "its io_uring rings (fdinfo)",
    "sockets",
    "sysrq l, w, t",
    "what it had printed",
    "Python stacks, by faulthandler",
    "in short",
)


def parts_of(ran: Ran) -> dict[str, str]:
    """The parts of the bundle that the failure names."""
    found = re.search(r"; (hang-1\.txt) has what was found$", ran.why("test_hangs"))
    assert found is not None, ran.why("test_hangs")
    text = (ran.files / found[1]).read_text()
    head, *parts = text.split("\n==== ")
    assert "tests/test_it.py::test_hangs: no verdict within 3 s\n" == head
    return dict(part.split("\n", 1) for part in parts)


def test_a_hang_is_told_with_where_it_waited(little: Little) -> None:
    """The failure names the Python line and the file with the rest, the page has it in the cell,
    and what the kernel answers to sysrq is no complaint."""
    little.tests(HANGS)

    ran = little.lab("--lab-timeout=3")

    assert {"test_good": "passed", "test_hangs": "lost", "test_next": "passed"} == ran.verdicts
    assert re.search(
        r"no verdict within 3 s; the process was killed; it waited in \S+test_it.py:6 \(waits\)",
        ran.why("test_hangs"),
    )
    parts = parts_of(ran)
    assert PARTS == tuple(parts)
    assert "RIP=ffffffff81000000" in parts[PARTS[0]]
    assert re.match(r"process \d+, thread \d+ \(\S+\): wchan \S+, system call", parts[PARTS[1]])
    assert parts[PARTS[2]].endswith("these are all\n")
    assert "u_str" in parts[PARTS[3]] or "/proc/net/unix" in parts[PARTS[3]]
    assert "Show State" in parts[PARTS[4]]
    assert re.search(r'File "\S+test_it.py", line 6 in waits', parts[PARTS[6]])
    assert "Show State" in (ran.files / "kernel.log").read_text()
    assert "said before\nand there\n" == parts[PARTS[5]]
    assert (
        "-- Captured stdout until it was lost\nsaid before\nand there"
        in (ran.files / "tests.log").read_text()
    )

    (cell,) = [one for one in cells(ran) if one["v"] == "lost"]
    assert "hang-1.txt" == cell["z"]["h"]
    assert "line 6 in waits" in cell["z"]["x"]


def cells(ran: Ran) -> list[dict[str, Any]]:
    """What the page has of each test."""
    text = (ran.files / page.FILE).read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    return [one for name, one in data["cells"].items() if name.startswith("t-")]


def test_rings_and_children_of_a_hung_test_are_found(little: Little) -> None:
    """A process that the test has started is one of its processes, and its ring is shown."""
    little.tests("""
def test_hangs():
    import ctypes, subprocess
    params = ctypes.create_string_buffer(120)
    ring = ctypes.CDLL(None).syscall(425, 4, params)
    child = subprocess.Popen(["sleep", "60"], pass_fds=[ring] if ring >= 0 else [])
    print("child", child.pid, "ring", ring, file=sys.__stderr__, flush=True)
    time.sleep(60)
""")

    ran = little.lab("--lab-timeout=3", "-s")

    parts = parts_of(ran)
    child = re.search(r"child (\d+) ring (-?\d+)", (ran.files / "guest-output.log").read_text())
    assert child is not None
    assert f"process {child[1]}, thread {child[1]} (sleep)" in parts[PARTS[1]]
    shown = f"process {child[1]}, descriptor {child[2]}:" in parts[PARTS[2]]
    assert shown == (int(child[2]) >= 0)


@pytest.mark.parametrize(
    ("hook", "part", "text"),
    [
        ("[('its recorder', 'the last entry\\n\\n')]", "its recorder", "the last entry\n"),
        ("1 / 0", "what the repository knows", "ZeroDivisionError: division by zero\n"),
    ],
    ids=["answers", "breaks"],
)
def test_what_the_repository_knows_is_in_it(
    little: Little, hook: str, part: str, text: str
) -> None:
    """Its hook is asked in the process that hangs; what breaks there is a sentence."""
    little.tests(HANGS)
    little.write("tests/conftest.py", f"def pytest_lab_hang(): return {hook}\n")

    parts = parts_of(little.lab("--lab-timeout=3"))

    assert [*PARTS[:6], part, *PARTS[6:]] == list(parts)
    assert parts[part].endswith(text)
    assert "line 6 in waits" in parts[PARTS[6]]


def test_who_never_comes_back_to_python_does_not_answer(little: Little) -> None:
    """That is a sentence as well."""
    little.tests("""
def test_hangs():
    import signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMAX})
    time.sleep(60)
""")
    words = "could not be had: no answer: Python came to no handler\n"
    assert words == parts_of(little.lab("--lab-timeout=3"))["what the repository knows"]


@pytest.mark.parametrize("dead", ["thread", "io_uring", "ss -a", "sysrq-trigger"])
def test_a_part_that_cannot_be_had_is_a_sentence(little: Little, dead: str) -> None:
    """The other parts are there."""
    little.tests(HANGS)

    ran = little.lab("--lab-timeout=3", fake={"deaf_to": [dead], "closed": dead == "thread"})

    parts = parts_of(ran)
    missing = [name for name, text in parts.items() if text.startswith("could not be had: ")]
    expected = {"thread": PARTS[1], "io_uring": PARTS[2], "ss -a": PARTS[3]}
    due = [expected.get(dead, PARTS[4])]
    assert missing == ([PARTS[0]] if dead == "thread" else []) + due
    assert parts[due[0]].startswith("could not be had: /bin/sh was not done after 12 s")
    assert "line 6 in waits" in parts[PARTS[6]]


DUMP = """\
Fatal Python error: Aborted

Thread 0x00007f3a (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait

Current thread 0x00007f3b (most recent call first):
  File "/usr/lib/python3.11/selectors.py", line 468 in select
  File "/tmp/lab-tree/tests/net/test_it.py", line 12 in test_hang
  File "/usr/lib/python3.11/site-packages/_pytest/python.py", line 1 in x

Extension modules: a.b
"""


def test_the_line_that_led_there_is_named_beside_the_innermost() -> None:
    """A line of Python's own library alone would say nothing."""
    frames = list(python_frames(DUMP))
    assert 3 == len(frames)
    assert (
        "/usr/lib/python3.11/selectors.py:468 (select), called from "
        "tests/net/test_it.py:12 (test_hang)" == python_line(frames, TREE, "")
    )
    frames.insert(1, {"file": f"{TREE}/product/loop.py", "line": "3", "function": "once"})
    inner = "/usr/lib/python3.11/selectors.py:468 (select), called from "
    test = "tests/net/test_it.py::test_hang[2]"
    assert f"{inner}tests/net/test_it.py:12 (test_hang)" == python_line(frames, TREE, test)
    assert f"{inner}product/loop.py:3 (once)" == python_line(frames, TREE, "tests/test_other.py::a")
    assert [] == list(python_frames("nothing of that kind"))
    assert "" == python_line([], TREE, "")


@pytest.mark.parametrize(
    ("stacks", "function"),
    [
        ("process 7, thread 7 (python3): wchan 0, system call 232 0x5\n"
         "[<0>] ep_poll+0x3d3/0x3f0\n[<0>] do_epoll_wait+0xc8/0xd0\n", "ep_poll"),
        ("process 7, thread 7 (python3): wchan ep_poll, system call 232 0x5\n"
         "cat: /proc/7/task/7/stack: Operation not permitted\n", "ep_poll"),
        ("process 7, thread 7 (python3): wchan 0, system call running\n", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_kernel_function_is_that_of_the_first_thread(stacks: str, function: str) -> None:
    """The innermost of its stack, or what wchan says where the stack is not shown."""
    assert function == kernel_function(stacks)


@pytest.mark.slow
def test_real_hang_names_line_and_function(tmp_path: Path) -> None:
    """In a real guest: a recv() of a socket that nobody writes to."""
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\n')
    (tmp_path / "test_it.py").write_text(HANGS.removeprefix("\n"))
    hook = "def pytest_lab_hang(): return [('its recorder', 'the last entry')]\n"
    (tmp_path / "conftest.py").write_text(hook)
    done = subprocess.run(
        [sys.executable, "-m", "lab", "test", "--kernel", "6.12", "--lab-timeout", "8"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "CI": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 3 == done.returncode, done.stdout
    files = tmp_path / "lab-results/latest"
    why = leg_of(files)["verdicts"]["test_it.py::test_hangs"]["why"]
    assert re.search(r"it waited in test_it.py:3 \(waits\), in the kernel in \w*unix\w*;", why), why
    text = (files / "hang-1.txt").read_text()
    assert "sysrq: Show State" in text
    assert "sysrq: Show Blocked State" in text
    assert "RIP=" in text
    assert "\n==== its recorder\nthe last entry\n" in text
    assert "could not be had" not in text
