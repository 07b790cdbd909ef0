# SPDX-License-Identifier: MIT
"""What the README promises a newcomer, held against the tree."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab.facts.verdicts import ExitCode, Verdict

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECONDS = 30


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in the repository, without what an outer make left in the environment."""
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "KERNEL", "T", "ARGS")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def targets() -> set[str]:
    """The targets that make lists."""
    return set(re.findall(r"^make ([\w-]+)", make().stdout, re.MULTILINE))


def section(title: str) -> str:
    """The text below one heading, up to the next."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """The first cell of each row of a table, without its head."""
    rows = [line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith("|")]
    return rows[rows.index("---") + 1 :]


def test_example_server_answers(tmp_path: Path) -> None:
    """The README's server answers each request, also two in one segment and one in two."""
    example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert 1 == len(example)
    assert 1 == example[0].count("port=8080")
    (tmp_path / "hello.py").write_text(example[0].replace("port=8080", "port=0"))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!"

    with subprocess.Popen(
        [sys.executable, "-u", "hello.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().rstrip("/\n").rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
                client.sendall(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HT")
                first = client.recv(2 * len(answer), socket.MSG_WAITALL)
                client.sendall(b"TP/1.1\r\n\r\n")
                client.shutdown(socket.SHUT_WR)
                rest = client.recv(2 * len(answer), socket.MSG_WAITALL)
        finally:
            server.send_signal(signal.SIGTERM)

    assert 2 * answer == first
    assert answer == rest


def test_example_is_the_file_it_names() -> None:
    """What the README shows of examples/hello.py is what that file says."""
    shown = re.findall(r"```python\n# (\S+)\n(.*?)```", README, re.DOTALL)
    assert ["examples/hello.py"] == [name for name, _ in shown]

    code = (ROOT / shown[0][0]).read_text().partition("import ioxide\n")[2]

    assert code == shown[0][1].partition("import ioxide\n")[2]


def test_named_targets_exist() -> None:
    """Every `make TARGET` of the README is one that make lists."""
    named = set(re.findall(r"\bmake ([a-z-]+)(?=[ `\n])", README))

    assert {"lab", "test", "probe", "build", "format"} <= named
    assert set() == named - targets()


def test_every_target_is_listed() -> None:
    """`make` alone lists every target but the inner one of the build."""
    declared = re.findall(r"^\.PHONY: ([\w-]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert set(declared) - {"native"} == targets()


def test_lab_without_kernel_is_a_sentence() -> None:
    """`make lab` says what it needs before it sets anything up."""
    done = make("lab")

    assert 2 == done.returncode
    assert "" == done.stdout
    assert done.stderr.startswith("make lab needs to know which kernel: make lab KERNEL=6.12\n")


def test_verdicts_are_the_suites() -> None:
    """The README explains every verdict there is, and no other."""
    assert {str(verdict) for verdict in Verdict} == set(
        first_cells(section("What a verdict means"))
    )


def test_exit_codes_are_the_suites() -> None:
    """The README explains every exit code there is, and no other."""
    assert {str(int(code)) for code in ExitCode} == set(first_cells(section("Exit codes")))


@pytest.mark.parametrize("path", first_cells(section("Layout")))
def test_layout_exists(path: str) -> None:
    """Every place the README names is there."""
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(path: str) -> None:
    """Every file the README links to is there."""
    assert (ROOT / path).is_file()
