# SPDX-License-Identifier: MIT
"""`ioxide errata`: answers from the shipped table, and the reproducers run here."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ioxide import __main__, errata
from ioxide._errata import every, trying
from ioxide._errata.present import Reproducer
from ioxide._errata.table import BAD, Entry, Row, Table
from ioxide._probe.capabilities import probe
from ioxide.errata import State

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
ONE = Entry("IOX-ERR-001", "It is broken", "INC", "t.py::test_it", "", ())
ROWS = (
    Row("6.1.170", "6.1.170-1", "6.1.0-47-cloud-amd64", {ONE.id: "not applicable"}),
    Row("6.12.43", "6.12.43-1", "6.12.43+deb13-cloud-amd64", {ONE.id: "good"}),
    Row("6.12.57", "6.12.57-1", "6.12.57+deb13-cloud-amd64", {ONE.id: BAD}),
    Row("6.12.60", "6.12.60-1", "6.12.60+deb13-cloud-amd64", {ONE.id: None}),
    Row("6.12.69", "6.12.69-1", "6.12.69+deb13-cloud-amd64", {ONE.id: BAD}),
    Row("6.12.90", "6.12.90-1", "6.12.90+deb12-cloud-amd64", {ONE.id: BAD}),
    Row("6.12.90", "6.12.90-2", "6.12.90+deb13-cloud-amd64", {ONE.id: "good"}),
    Row("6.18.5", "6.18.5-1", "6.18.5+deb13-cloud-amd64", {ONE.id: BAD}),
)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of few releases in place of the shipped one."""
    monkeypatch.setattr(errata, "shipped", lambda: Table((ONE,), ROWS))


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("release", "state", "why", "about"),
    [
        ("6.12.57+deb13-cloud-amd64", State.BAD, "measured", "was measured; it is 6.12.57."),
        ("6.12.57+deb13-amd64", State.BAD, "measured", "was measured as 6.12.57+deb13-cloud"),
        ("6.12.43", State.GOOD, "measured", "was measured as 6.12.43+deb13-cloud-amd64."),
        ("6.1.0-47-amd64", State.GOOD, "measured", "was measured as 6.1.0-47-cloud-amd64."),
        ("6.12.90", State.UNCLEAR, "bad on 6.12.90+deb12-cloud-amd64, good on", "as 6.12.90+deb12"),
        # not decided on it: its neighbours answer
        ("6.12.60", State.LIKELY_BAD, "bad on 6.12.57, bad on 6.12.69", "was measured as"),
        ("6.12.58", State.LIKELY_BAD, "bad on 6.12.57, bad on 6.12.69", "is of its neighbours"),
        ("6.12.50", State.UNCLEAR, "good on 6.12.43, bad on 6.12.57", "is of its neighbours"),
        ("6.12.1", State.LIKELY_GOOD, "good on 6.12.43", "is of its neighbours"),
        ("6.14.2", State.UNCLEAR, "bad on 6.12.90, good on 6.12.90, bad on 6.18.5", "none of 6.14"),
        ("6.19-rc3", State.LIKELY_BAD, "bad on 6.18.5", "nor any as new: the newest is 6.18.5."),
        ("99.1", State.LIKELY_BAD, "bad on 6.18.5", "nor any as new: the newest is 6.18.5."),
        ("6.18.9", State.LIKELY_BAD, "bad on 6.18.5", "is of its neighbours"),
        ("5.4.1", State.UNCLEAR, "no neighbour", "nor any as old: the oldest is 6.1.170"),
        # kernels of others
        ("6.12.58.1-microsoft-standard-WSL2", State.LIKELY_BAD, "bad on", "Microsoft's for WSL"),
        ("6.12.57-99.amzn2023.x86_64", State.LIKELY_BAD, "bad on 6.12.57", "Amazon Linux"),
        ("6.12.0-55.9.1.el10.x86_64", State.UNCLEAR, "does not tell", "Red Hat Enterprise Linux"),
        ("5.15.0-300.163.18.el9uek.x86_64", State.UNCLEAR, "does not tell", "Unbreakable"),
        ("6.12.0-45-generic", State.UNCLEAR, "good on 6.12.43, bad on 6.12.57", "Ubuntu"),
        ("6.1.0-99-amd64", State.LIKELY_GOOD, "good on 6.1.170", "counts the maker's builds"),
    ],
)
def test_release_is_answered(release: str, state: State, why: str, about: str) -> None:
    """By its own measurement, else by its neighbours, and the answer says by which."""
    report = errata.check(release)
    (answer,) = report.answers
    assert (state, True) == (answer.state, answer.why.startswith(why) or why in answer.why), answer
    assert about in report.about


@pytest.mark.parametrize(
    ("release", "newest", "state", "why"),
    [
        ("6.18.10", "good", State.LIKELY_BAD, "bad on 6.18.5"),
        ("6.18.11", "good", State.UNCLEAR, "bad on 6.18.5, good on 7.3.4"),
        ("6.18.11", BAD, State.LIKELY_BAD, "bad on 6.18.5"),
        ("6.12.200", "good", State.UNCLEAR, "bad on 6.12.90, good on 6.12.90"),
        ("7.3.99", BAD, State.LIKELY_BAD, "bad on 7.3.4"),
    ],
)
def test_release_far_behind_the_last_of_its_series(
    release: str, newest: str, state: State, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a newer series has mended may be mended in it: nobody measured that."""
    row = Row("7.3.4", "7.3.4-1", "7.3.4+deb13-cloud-amd64", {ONE.id: newest})
    monkeypatch.setattr(errata, "shipped", lambda: Table((ONE,), (*ROWS, row)))
    (answer,) = errata.check(release).answers
    assert (state, why) == (answer.state, answer.why)


@pytest.mark.parametrize(
    "release",
    ["", "banana", "6", "6.12.x", "v6.12.1", "-1.2.3", "6.12.1 x", "6.12.999999", "6.12.\u0663"],
)
def test_what_is_no_release(release: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused with the value and what is wanted; the command's status is 2."""
    with pytest.raises(ValueError, match="is no release of a kernel: name what `uname -r` prints"):
        errata.check(release)
    if not release.startswith("-"):
        assert __main__.main(["errata", "check", release]) == 2
        assert repr(release) in capsys.readouterr().err


def test_running_kernel_is_asked_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    """The command and the call answer for uname -r; as JSON they say the same."""
    assert errata.check().release == os.uname().release
    assert __main__.main(["errata", "check", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["release"] == os.uname().release
    assert [a.erratum.id for a in errata.check().answers] == [a["id"] for a in said["answers"]]


def test_shipped_table_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """6.12.43 as docs/errata.md has it; what was seen on no release is not listed."""
    assert __main__.main(["errata", "check", "6.12.43"]) == 0
    said = capsys.readouterr().out
    assert "IOX-ERR-001  bad" in said
    assert "IOX-ERR-008" not in said
    assert __main__.main(["errata", "list"]) == 0
    listed = capsys.readouterr().out
    shown = json.loads((ROOT / "docs/errata.json").read_text())["releases"]
    found = [row["found"]["IOX-ERR-001"] for row in shown]
    bad, measured = found.count("bad"), found.count("bad") + found.count("good")
    assert bad > 20
    assert f"IOX-ERR-001  {bad} of {measured}  BUF_MORE" in listed
    assert "IOX-ERR-006" not in listed, "it was seen on no release"


def _present() -> None:
    from ioxide._errata.present import ErratumPresent

    raise ErratumPresent("IOX-ERR-901", "res=1")


def test_reproducers_that_hang_or_die(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each is in a process of its own: one that hangs or dies is that, and the others still run."""
    (tmp_path / "wild.py").write_text(
        "import os, time\n"
        "from ioxide._errata.every import REPRODUCERS\n"
        "from ioxide._errata.present import ErratumPresent, NotTried, reproducer\n"
        "@reproducer('IOX-ERR-901')\n"
        "def bad() -> None: raise ErratumPresent('IOX-ERR-901', 'res=1')\n"
        "@reproducer('IOX-ERR-902')\n"
        "def hangs() -> None: time.sleep(600)\n"
        "@reproducer('IOX-ERR-903')\n"
        "def dies() -> None: os.abort()\n"
        "@reproducer('IOX-ERR-904')\n"
        "def fails() -> None: assert False, 'nothing was provoked'\n"
        "@reproducer('IOX-ERR-907')\n"
        "def may_not() -> None: raise NotTried('it is refused')\n"
        "@reproducer('IOX-ERR-905')\n"
        "def good() -> None: pass\n"
        "from pathlib import Path\n"
        "from ioxide._errata import complaints\n"
        "complaints.FILE = Path(__file__).with_name('tainted')\n"
        "@reproducer('IOX-ERR-908')\n"
        "def splats() -> None: complaints.FILE.write_text('4608\\n')\n"
    )
    (tmp_path / "tainted").write_text("4096\n")  # by a module out of tree, which says nothing
    # The process of reproducers knows them.
    (tmp_path / "sitecustomize.py").write_text("import wild\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    monkeypatch.setattr(trying, "LIMIT_S", 5.0)
    # It runs alone: of several at once it cannot be told which one the kernel complained of.
    monkeypatch.setattr(trying, "_ALONE", ("IOX-ERR-908",))
    ids = [f"IOX-ERR-90{n}" for n in (1, 2, 3, 4, 5, 7, 8)]
    harmful = Reproducer("IOX-ERR-906", _present, "it burns")
    mine = {id: Reproducer(id, _present, "") for id in ids} | {harmful.id: harmful}
    for one in mine.values():
        monkeypatch.setitem(every.REPRODUCERS, one.id, one)
    monkeypatch.setattr(trying, "needed_by", lambda _: ())
    begun = time.monotonic()
    found = {one.id: (one.outcome.value, one.why) for one in errata.attempt([*mine])}
    assert time.monotonic() - begun < 60
    assert {
        "IOX-ERR-901": ("bad", "res=1"),
        "IOX-ERR-902": ("failed", "its process did not end within 5 s"),
        "IOX-ERR-903": ("failed", "its process ended by signal 6 and said nothing"),
        "IOX-ERR-904": ("failed", "AssertionError: nothing was provoked"),
        "IOX-ERR-905": ("good", ""),
        "IOX-ERR-907": ("not tried", "it is refused"),
        "IOX-ERR-908": ("failed", "the kernel complained while it ran, see dmesg"),
        "IOX-ERR-906": ("not tried", "on a kernel that has it it burns: try it in a guest"),
    } == found


def test_reproducer_that_hangs_in_a_namespace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is ended and named, and so are the processes that it has started end: in sessions of their
    own, which the signal to its group does not reach."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "from ioxide._errata.present import reproducer\n"
        "from ioxide._probe.rawring import RawRing\n"
        "if 'HANGS' in os.environ: RawRing.collect = lambda *_, **__: time.sleep(600)\n"
        "@reproducer('IOX-ERR-901')\n"
        "def hangs() -> None:\n"
        "    from ioxide._errata import timens\n"
        f"    os.environ['HANGS'] = {str(tmp_path)!r}\n"
        "    timens.absolute_timeout_in_a_time_namespace()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setattr(trying, "LIMIT_S", 6.0)
    monkeypatch.setattr(trying, "needed_by", lambda _: ())
    monkeypatch.setitem(every.REPRODUCERS, "IOX-ERR-901", Reproducer("IOX-ERR-901", _present, ""))
    started: set[int] = set()

    def watch() -> None:
        while not done.wait(0.1):
            started.update(_of_environment(f"HANGS={tmp_path}"))

    done = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        (found,) = errata.attempt(["IOX-ERR-901"])
    finally:
        done.set()
        watcher.join()
    assert ("failed", "its process did not end within 6 s") == (found.outcome.value, found.why)
    assert len(started) >= 2, "the process and its child in the namespace"
    deadline = time.monotonic() + 10
    while (left := _of_environment(f"HANGS={tmp_path}")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set() == left


def _of_environment(variable: str) -> set[int]:
    """The processes that were started with this variable, or forked from such a one."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable.encode() in path.read_bytes().split(b"\0"):
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def test_where_io_uring_is_forbidden(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--try says so in the probe's sentence, and that nothing was tried by its status."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "io_uring_setup")

    monkeypatch.setattr("ioxide._probe.capabilities.RawRing", refused)
    assert __main__.main(["errata", "check", "--try"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("ioxide: io_uring is ")


def test_where_nothing_can_be_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on descriptors or processes that is too low is a sentence, and so is a thread that
    the probe cannot start."""

    def no_process(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "pipe")

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("ioxide._errata.trying.subprocess.run", no_process)
    monkeypatch.setattr("threading.Thread.start", no_thread)
    assert __main__.main(["errata", "check", "--try"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ioxide: the reproducers cannot be started: Too many open files; a")
    notes = [one.note for one in probe().findings]
    assert "could not be tried: can't start new thread (no errno)" in notes


def test_python_that_may_not_be_executed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, and no limit is blamed: an ordinary user in an environment of root's."""

    def may_not(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "Permission denied", "/root/venv/bin/python")

    monkeypatch.setattr("ioxide._errata.trying.subprocess.run", may_not)
    assert __main__.main(["errata", "check", "--try"]) == 1
    assert capsys.readouterr().err == (
        "ioxide: the reproducers cannot be started: Permission denied: /root/venv/bin/python\n"
    )


def test_try_and_a_release(capsys: pytest.CaptureFixture[str]) -> None:
    """--try asks the running kernel, whatever release is named."""
    assert __main__.main(["errata", "check", "6.12.43", "--try"]) == 2
    assert "leave the release out" in capsys.readouterr().err


def test_one_is_tried_for_real() -> None:
    """A reproducer that this kernel has or has not, but that ends in one of the two ways."""
    (one,) = errata.attempt(["IOX-ERR-018"])
    assert ("IOX-ERR-018", True) == (one.id, one.outcome in ("bad", "good")), one
    with pytest.raises(ValueError, match="'IOX-ERR-999' is no erratum"):
        errata.attempt(["IOX-ERR-999"])


def test_reader_that_has_gone() -> None:
    """``ioxide errata list | head -1`` ends quietly."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ioxide", "errata", "list"]
    with os.fdopen(write, "wb") as gone:
        ran = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (141, "") == (ran.returncode, ran.stderr)
