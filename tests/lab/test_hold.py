# SPDX-License-Identifier: MIT
"""`--hold` and `--gdb`: a person in the guest of a failure."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.lab.suite_support import REPOSITORY, Little, leg_of
from tests.lab.terminal_support import FAKES, Scene, Terminal

pytestmark = pytest.mark.lab

PROMPT = r"(?m)^\[6\.12\.107 \S*\]#$"
TESTS = """
def test_good(): pass
def test_bad():
    open("left", "w").write("be" + "hind " + os.environ["LAB_NONCE"])
    assert False
def test_next(): pass
"""


@pytest.fixture
def scene(little: Little) -> Scene:
    return Scene(little)


def text_of(terminal: Terminal) -> str:
    """All that a person has seen, without the breaks of long lines."""
    return "".join(
        line.ljust(terminal.screen.columns) if len(line) == terminal.screen.columns else line + "\n"
        for line in terminal.all()
    )


def test_shell_is_in_the_guest_that_failed_with_its_files(scene: Scene) -> None:
    """It is the very guest (its nonce), in the tree, with what the test left; its terminal follows
    ours; then the run goes on with the next test."""
    scene.little.tests(TESTS)
    with scene.run("--kernel=6.12", "--hold", columns=160) as terminal:
        terminal.until_shown(PROMPT)
        assert "--hold: tests/test_it.py::test_bad is failed" in text_of(terminal)
        terminal.type('cat left; echo " $(stty size)."\r')
        terminal.until_shown(r"behind [0-9a-f]{16} 24 160\.")
        terminal.resize(100, 30)
        os.kill(terminal.process.pid, signal.SIGWINCH)
        terminal.type('sleep 1; echo "$(stty size)."\r')
        terminal.until_shown(r"30 100\.")
        terminal.type("exit 7\r")
        assert 1 == terminal.end()
        text = text_of(terminal)
        assert terminal.before == terminal.attributes()

    (guest,) = leg_of(scene.little.root / "lab-results/latest")["guests"]
    assert f"behind {guest['nonce']}" in text
    assert "1 failed, 2 passed" in text
    assert re.search(r"lab: exit 1 \(disproved\): tests/test_it.py::test_bad failed", text)


@pytest.mark.parametrize(
    "command",
    [
        ("pytest", "--kernel=6.12", "--hold", "-x"),
        ("lab", "test", "--kernel=6.12", "--hold", "-n", "2", "-x", "-p", "xdist"),
    ],
    ids=["pytest", "-n 2"],
)
def test_each_way_to_begin_a_run_can_hold(scene: Scene, command: tuple[str, ...]) -> None:
    """pytest does, and so does a run with several guests: the others are named. Ctrl-D ends it."""
    scene.little.tests(TESTS)
    if "-n" in command:
        scene.little.tests("def test_long(): time.sleep(9)\n", "tests/test_other.py")
    with scene.run(command=(*command, *FAKES), columns=160) as terminal:
        terminal.until_shown(PROMPT)
        terminal.type("\x04")
        assert 1 == terminal.end()
        text = text_of(terminal)
    assert ("lab: the other guest waits when its present test is done" in text) == ("-n" in command)
    assert "never ran" in text


def test_without_a_terminal_it_is_refused(little: Little) -> None:
    """One sentence for each option, before anything boots."""
    little.tests(TESTS)
    for flag in ("--hold", "--gdb"):
        ran = little.run("lab", "test", "--kernel=6.12", *FAKES, flag)
        assert 2 == ran.code, ran.output
        assert f"{flag} is for a person at a terminal: there is no terminal: /dev/tty" in ran.output
        assert not ran.files.exists()
        ran = little.pytest(flag)
        assert 4 == ran.code
        assert f"{flag} is of guests: name a kernel, --kernel 6.12" in ran.output


def test_guest_that_is_gone_is_one_sentence(scene: Scene) -> None:
    """Nothing can be looked into, and the run goes on."""
    scene.little.tests("def test_dies(): os.kill(os.getpid(), 9)\ndef test_next(): pass\n")
    gone = {"LAB_FAKE": json.dumps({"vanishes": True})}
    with scene.run("--kernel=6.12", "--hold", columns=160, env=gone) as terminal:
        assert 3 == terminal.end()
        text = text_of(terminal)
    assert (
        "lab: --hold: tests/test_it.py::test_dies is lost, and took its guest along: there is "
        "nothing to look into" in text
    )
    assert "1 passed, 1 lost" in text or "1 lost, 1 passed" in text


def test_gdb_is_told_where_to_come(scene: Scene) -> None:
    """The line to type is there, whoever comes by it is served, and Enter ends it."""
    scene.little.tests(TESTS)
    with scene.run("--kernel=6.12", "--gdb", columns=200) as terminal:
        terminal.until_shown("until you press Enter")
        found = re.search(r"gdb waits: gdb (\S+) -ex 'target remote (\S+)'", text_of(terminal))
        assert found is not None
        with socket.socket(socket.AF_UNIX) as gdb:
            gdb.connect(found[2])
            assert b"a fake gdbserver" == gdb.recv(100)
        terminal.type("\r")
        assert 1 == terminal.end()
    assert not Path(found[2]).parent.exists()

    closed = {"LAB_FAKE": json.dumps({"closed": True})}
    with scene.run("--kernel=6.12", "--gdb", columns=160, env=closed) as terminal:
        assert 1 == terminal.end()
        assert "nobody can look into this guest from outside" in text_of(terminal)


def _received(gdb: socket.socket, pattern: bytes) -> None:
    """Return once QEMU's side has sent that; TimeoutError if it does not."""
    data = b""
    while not re.search(pattern, data):
        part = gdb.recv(100)
        assert part, f"the connection ended after {data!r}"
        data += part


@pytest.mark.slow
def test_real_guest_is_held(tmp_path: Path) -> None:
    """A shell in a real guest, after the test that failed there; gdb's protocol is spoken by its
    QEMU, which stops it, and it goes on."""
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\n')
    (tmp_path / "test_it.py").write_text(
        "def test_bad():\n    open('/tmp/left', 'w').write('be' + 'hind')\n    assert False\n"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "COLUMNS", "LINES", "NO_COLOR")}
    env |= {"PYTHONPATH": str(REPOSITORY), "TERM": "xterm"}
    command = ["-m", "lab", "test", "--kernel", "6.12", "--hold", "--gdb"]
    with Terminal(command, cwd=str(tmp_path), env=env, columns=200) as terminal:
        terminal.patience_s = 240  # it boots, under emulation
        terminal.until_shown(r"(?m)^\[6\.12\.\d+ \S*\]#$")
        terminal.type("cat /tmp/left; pwd\r")
        terminal.until_shown(r"behind/tmp/lab-tree|behind\n?/tmp/lab-tree")
        found = re.search(r"target remote (\S+)'", text_of(terminal))
        assert found is not None
        with socket.socket(socket.AF_UNIX) as gdb:
            gdb.settimeout(60)
            gdb.connect(found[1])
            # Stopped, as gdb's remote protocol says it, once or twice; and detached.
            gdb.sendall(b"+$?#3f")
            _received(gdb, rb"\$T\d\d")
            gdb.sendall(b"+$D#44")
            _received(gdb, rb"\$OK#9a")
        terminal.type("exit\r")
        assert 1 == terminal.end()
        assert "1 failed" in text_of(terminal)
