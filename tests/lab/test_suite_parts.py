# SPDX-License-Identifier: MIT
"""The suite's parts, each for itself."""

from __future__ import annotations

import io
import json
import marshal
import os
import py_compile
import subprocess
import sys
import tarfile
import time
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from lab import cache
from lab.facts.probed import Probed
from lab.facts.records import Record
from lab.facts.verdicts import Verdict
from lab.project import Project
from lab.remote import identity, sending, tree
from lab.remote.losses import RunOver
from lab.remote.wire import BrokenWire, Checker, Numberer
from lab.report import results
from lab.report.summary import make_variable
from lab.rules import needs
from lab.suite import issues, skips
from lab.suite.reconcile import Book, DoubleVerdict, differences
from lab.suite.reports import complete, verdict_of
from lab.suite.turn import Turn
from lab.suite.wire import FROM_GUEST, Said

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name",
    [
        "tests/a.py::test_a",
        "tests/a.py::test_a[x-1]",
        "tests/a.py::test_a[a b]",
        "tests/a.py::test_a[$HOME and 'quotes' and \"more\"]",
        "tests/a.py::test_a[*$$`id`!]",
    ],
)
def test_line_to_reproduce_goes_through_make(tmp_path: Path, name: str) -> None:
    """Whatever a node id holds, the line that is printed brings exactly it to pytest."""
    (tmp_path / "Makefile").write_text(
        "SHELL := /bin/bash\n"
        "lab:\n\t@set -f; python3 -c 'import sys, json; print(json.dumps(sys.argv[1:]))'"
        ' "$$KERNEL" $${T-} $(ARGS)\n'
    )
    line = f"make -s lab KERNEL=6.12.107 {make_variable([name])}"

    # Not the environment of a `make test` that may be running this.
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout) == ["6.12.107", name]


def test_book_owes_each_id_one_verdict() -> None:
    """A second verdict, and one for an id that was not selected, are refused."""
    book = Book()
    book.select(["a", "b"])
    book.enter(Turn("a"), Record(Verdict.PASSED))

    with pytest.raises(DoubleVerdict, match="a second verdict for 'a'"):
        book.enter(Turn("a"), Record(Verdict.FAILED))
    with pytest.raises(DoubleVerdict, match="'c', which was not selected"):
        book.enter(Turn("c"), Record(Verdict.PASSED))
    assert book.verdicts() == {"a": Verdict.PASSED, "b": Verdict.NEVER_RAN}


def test_book_refuses_ids_that_occur_twice() -> None:
    """Two tests of one id could not be told apart."""
    with pytest.raises(ValueError, match="selected more than once: a"):
        Book().select(["a", "b", "a"])


def test_differences_are_named() -> None:
    """Ids that only one side has are named, unless the guest is allowed to have more."""
    assert differences(["a", "b"], ["b", "a"], subset=False) == ""
    assert differences(["a"], ["a", "b"], subset=True) == ""
    assert (
        differences(["a", "c"], ["a", "b"], subset=False)
        == "collected only on the host: c; collected only in the guest: b"
    )
    assert differences(["a"], ["a", "a"], subset=False) == "collected only in the guest: a"


def test_wire_accepts_what_the_numberer_makes() -> None:
    """Messages in their order pass, with their kinds."""
    out, check = Numberer(), Checker(FROM_GUEST)

    assert check.check(out.message(Said.START, id="a")) == Said.START
    assert check.check(out.message(Said.FINISH, id="a", reports=3)) == Said.FINISH


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"n": 1, "type": "start", "id": "a"},
        {"n": 0, "type": "begin", "id": "a"},
        {"n": 0, "type": "start"},
        {"n": 0, "type": "start", "id": 3},
        {"n": 0, "type": ["start"], "id": "a"},
        {"n": 0, "type": "report", "id": "a", "data": "passed"},
    ],
)
def test_wire_refuses_what_cannot_be_true(message: dict[str, Any]) -> None:
    """A wrong number, an unknown kind, a missing or misshapen field: each is refused."""
    with pytest.raises(BrokenWire):
        Checker(FROM_GUEST).check(message)


PROBED = Probed.from_object(
    {
        "release": "6.12.0",
        "error": None,
        "capabilities": {
            name: {
                "declared": None,
                "accepted": seen,
                "observed": seen,
                "evidence": {},
                "note": note,
            }
            for name, seen, note in (
                ("INC", True, ""),
                ("NAPI", False, "counter stayed 0"),
                ("ZCRX", None, "no device"),
            )
        },
    }
)


def test_missing_capability_is_named_with_its_note() -> None:
    """The reason names what is absent, where, and what the probe noted; nothing that is there."""
    assert needs.missing(["INC"], PROBED) == ""
    assert (
        needs.missing(["INC", "NAPI", "ZCRX"], PROBED)
        == "needs NAPI, ZCRX: not observed on 6.12.0 (counter stayed 0; no device)"
    )


def test_reason_of_the_gate_is_confirmed() -> None:
    """What the gate itself says is what the judge accepts."""
    reason = needs.missing(["NAPI", "ZCRX"], PROBED)

    assert skips.refusal(reason, lambda: PROBED) == ""
    assert skips.refusal(f"Skipped: {reason}", lambda: PROBED) == ""


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "because",
        "needs INC: not observed on 6.12.0",
        "needs NAPI, INC: not observed on 6.12.0",
        "needs FLYING: not observed",
        "needs napi: not observed",
        "needs NAPIX",
    ],
)
def test_other_reasons_are_refused(reason: str) -> None:
    """A reason of another form, or about a capability that is there or unknown, is refused."""
    assert skips.refusal(reason, lambda: PROBED).startswith("skip refused")


def test_without_a_probe_no_reason_is_good() -> None:
    """What cannot be confirmed is refused."""
    assert "cannot be confirmed" in skips.refusal("needs NAPI: not observed", lambda: None)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"release": "6", "error": null}'])
def test_what_is_no_probe_is_refused(text: str) -> None:
    """A probe's report that is none raises ValueError, whatever is wrong with it."""
    with pytest.raises(ValueError):
        Probed.from_json(text)


def test_probe_survives_its_object() -> None:
    """to_object is the inverse of from_object."""
    assert Probed.from_object(PROBED.to_object()) == PROBED


def small_tree(root: Path) -> None:
    """A tree with files that go to a guest and files that do not."""
    for path in (
        "ioxide/__init__.py",
        "ioxide/_ring/_native.cpython-311.so",
        "ioxide/_ring/ring.c",
        "ioxide/__pycache__/x.pyc",
        "lab/__init__.py",
        "lab/suite/plugin.py",
        "lab/vm/machine.py",
        "tests/smoke/test_a.py",
        "tests/lab/test_b.py",
        "pyproject.toml",
        "README.md",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def sent(root: Path) -> sending.Sending:
    """What a guest gets of a little repository; its only build product is the extension."""
    return sending.of(
        Project(
            root,
            "pyproject.toml",
            include=("ioxide", "tests"),
            exclude=("tests/lab", "ioxide/**/*.c"),
            products=("ioxide/_ring/*.so",),
        )
    )


def test_guest_gets_what_it_runs_and_no_more(tmp_path: Path) -> None:
    """The code under test and its tests go, as the table says; of the lab only what runs there."""
    small_tree(tmp_path)

    own = {str(path) for path in sent(tmp_path).contents if path.parts[0] == ".lab"}
    assert [str(path) for path in sent(tmp_path).contents if str(path) not in own] == [
        "ioxide/__init__.py",
        "ioxide/_ring/_native.cpython-311.so",
        "pyproject.toml",
        "tests/smoke/test_a.py",
    ]
    assert ".lab/packages/lab/suite/plugin.py" in own
    assert not [name for name in own if "/vm/" in name or "/kernels/" in name]
    assert ".lab/packages/lab/suite/session.py" not in own


def test_guest_has_all_that_it_imports(tmp_path: Path) -> None:
    """The lab's part of what is pushed is enough for what runs in a guest."""
    small_tree(tmp_path / "repository")
    for whole, data in sent(tmp_path / "repository").contents.items():
        if not whole.is_relative_to(tree.PACKAGES):
            continue
        path = whole.relative_to(tree.PACKAGES)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    modules = (
        "lab.suite.plugin, lab.suite.guest_side, lab.suite.hookspecs, lab.programs.items, "
        "lab.errata.reproduce"
    )

    done = subprocess.run(
        [sys.executable, "-c", f"import {modules}; print(lab.__path__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert str(tmp_path) in done.stdout


def test_unpacked_tree_has_the_same_hashes(tmp_path: Path) -> None:
    """What the guest computes over the unpacked tar is what the host computed."""
    here, there = tmp_path / "here", tmp_path / "there"
    small_tree(here)
    whole = sent(here)

    with tarfile.open(fileobj=io.BytesIO(whole.pack())) as archive:
        # extractall(filter=) is of 3.11.4, and Debian 12 has 3.11.2; the attribute is for both.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(there)

    found = identity.identify(there, None)
    assert whole.hashes() == (found.tree_sha256, found.extension_sha256)
    (there / "tests/smoke/test_a.py").unlink()
    assert identity.identify(there, None).tree_sha256 != found.tree_sha256


@pytest.mark.parametrize("path", ["tests/smoke/test_a.py", "tests/smoke/support.py"])
def test_bytecode_goes_only_with_its_source(tmp_path: Path, path: str) -> None:
    """A compiled file that names another source's hash stays on the host, and so does one that
    names a time and a size, which may be another source's, too."""
    small_tree(tmp_path)
    source = tmp_path / path
    source.write_text("x = 1\n")
    checked = py_compile.PycInvalidationMode.CHECKED_HASH
    compiled = Path(py_compile.compile(os.fspath(source), invalidation_mode=checked) or "")
    relative = PurePosixPath(compiled.relative_to(tmp_path).as_posix())

    assert compiled.read_bytes() == sent(tmp_path).bytecode()[relative]
    assert str(relative) in tree.bytecode_here(tmp_path)

    stale = compiled.read_bytes()
    source.write_text("x = 2\n")
    assert stale != sent(tmp_path).bytecode().get(relative)

    timestamp = py_compile.PycInvalidationMode.TIMESTAMP
    py_compile.compile(os.fspath(source), invalidation_mode=timestamp)
    before = source.stat().st_mtime_ns
    source.write_text("x = 3\n")
    os.utime(source, ns=(before, before))
    pushed = sent(tmp_path).bytecode().get(relative)
    names: dict[str, object] = {}
    if pushed is not None:
        exec(marshal.loads(pushed[16:]), names)
    assert names.get("x", 3) == 3
    assert (pushed is None) is (source.name == "test_a.py"), "only pytest compiles its tests"


def test_bytecode_goes_along_where_python_writes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under PYTHONDONTWRITEBYTECODE the tree stays clean, and a guest need not compile it."""
    here, kept = tmp_path / "here", tmp_path / "kept"
    small_tree(here)
    for module in ("support.py", "test_it.py"):
        (here / "tests" / module).write_text("x = 1\n")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    tag = sys.implementation.cache_tag
    name, support, test = (
        PurePosixPath(f"{place}.{tag}.pyc")
        for place in (
            ".lab/packages/lab/suite/__pycache__/plugin",
            "tests/__pycache__/support",
            "tests/__pycache__/test_it",
        )
    )
    whole = sent(here)
    assert name in whole.bytecode()

    with tree.bytecode_kept(kept):
        compiled = whole.bytecode()
        packed = whole.pack(compiled)
    assert name in compiled
    assert support in compiled, "a program that a test starts would compile what it imports"
    assert test not in compiled, "only pytest runs it, which compiles in its own way"
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert os.fspath(name) in archive.getnames()
    assert [here / "ioxide/__pycache__/x.pyc"] == list(here.rglob("*.pyc"))
    assert sys.dont_write_bytecode


def test_next_run_compiles_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under PYTHONDONTWRITEBYTECODE, too: what was compiled is kept in the lab's cache, until the
    repository had no run for long."""
    here = tmp_path / "here"
    small_tree(here)
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    compiled: list[Path] = []
    real = tree._compiled

    def counted(path: Path, source: bytes) -> bytes:
        compiled.append(path)
        return real(path, source)

    monkeypatch.setattr(tree, "_compiled", counted)
    counts = []
    for _ in range(2):
        with tree.bytecode_kept(cache.bytecode_of(here)):
            assert sent(here).bytecode()
        counts.append(len(compiled))

    assert counts[0] > 20
    assert counts[1] == counts[0]
    other = cache.bytecode_of(tmp_path / "other")
    long_ago = time.time() - (cache.BYTECODE_DAYS + 1) * 86_400
    os.utime(other, (long_ago, long_ago))
    assert cache.bytecode_of(here).exists()
    assert not other.exists()


@pytest.mark.parametrize(
    ("path", "extension_too"),
    [("tests/smoke/test_a.py", False), ("ioxide/_ring/_native.cpython-311.so", True)],
)
def test_one_changed_byte_changes_the_hash(tmp_path: Path, path: str, extension_too: bool) -> None:
    """Every file counts for the tree's hash, and the extension has its own."""
    small_tree(tmp_path)
    before = sent(tmp_path).hashes()

    (tmp_path / path).write_text("changed")
    after = sent(tmp_path).hashes()

    assert before[0] != after[0]
    assert (before[1] != after[1]) == extension_too


def test_tree_without_extension_says_so() -> None:
    """Nothing built is an empty hash, not the hash of nothing."""
    assert tree.hashes({PurePosixPath("ioxide/__init__.py"): b""})[1] == ""


def test_nonce_is_read_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nonce is the kernel's word, and its absence is None."""
    cmdline = tmp_path / "cmdline"
    monkeypatch.setattr(identity, "CMDLINE", cmdline)

    cmdline.write_text("quiet lab.nonce=abc panic=-1\n")
    assert identity.read_nonce() == "abc"

    cmdline.write_text("quiet\n")
    assert identity.read_nonce() is None


def test_this_host_is_no_guest(lab_identity: identity.Identity) -> None:
    """Outside a guest there is no nonce, and asking for the host's expectations says so."""
    assert lab_identity.release == os.uname().release
    assert lab_identity.nonce is None
    with pytest.raises(identity.NoHost, match="not in a guest of the lab"):
        _ = lab_identity.expected


def test_issue_table_shows_holes() -> None:
    """An issue is proved, disproved, absent, proved in part, or a hole; only holes of issues whose
    work is in are held against the run."""
    marks = {"a": (1,), "b": (1, 2), "c": (3,), "d": (4,), "e": (4,), "f": (6,)}
    verdicts = {
        "a": Verdict.PASSED,
        "b": Verdict.SKIPPED,
        "c": Verdict.FAILED,
        "d": Verdict.PASSED,
        "e": Verdict.LOST,
        "f": Verdict.NEVER_RAN,
    }
    records = {name: Record(verdict) for name, verdict in verdicts.items()}

    rows = issues.table(marks, records, wanted=[4, 5, 6])

    assert {row.issue: row.word for row in rows} == {
        1: "proved",
        2: "absent here",
        3: "disproved",
        4: "in part",
        5: "hole",
        6: "not proved",
    }
    assert issues.holes(rows, [4, 5, 6]) == ["issue 5 is in, but no test of it passed here"]
    assert issues.holes(rows, []) == []


def test_issues_file_is_read(tmp_path: Path) -> None:
    """Comments and blank lines say nothing; the file in the tree can be read."""
    listed = tmp_path / "issues.txt"
    listed.write_text("# comment\n92  # bundles\n\n103\n")

    assert issues.work_is_in(listed) == (92, 103)
    assert all(number > 0 for number in issues.work_is_in(ROOT / "tests/kernels/issues_in.txt"))


def test_runs_within_one_second_have_their_own_directories(tmp_path: Path) -> None:
    """No two runs share a directory, and `latest` names the one that was pointed to."""
    first = results.new_directory(tmp_path / "results", "6.12.107")
    second = results.new_directory(tmp_path / "results", "6.12.107")
    results.point_latest(first)
    results.point_latest(second)

    assert first != second
    assert (tmp_path / "results/latest").resolve() == second.resolve()
    assert {first.name, second.name, "latest"} == {p.name for p in first.parent.iterdir()}


# -- reports ---------------------------------------------------------------------------------------


def _report(when: str, outcome: str) -> pytest.TestReport:
    return pytest.TestReport(
        "tests/a.py::b",
        ("tests/a.py", 0, "b"),
        {},
        outcome,  # type: ignore[arg-type]
        None,
        when,  # type: ignore[arg-type]
    )


def test_test_passes_by_its_three_phases() -> None:
    """Only a setup, a call and a teardown that pytest calls passed make a test pass; what no pytest
    says is not believed."""
    told = ("passed", "failed", "skipped", "rerun", "")
    for outcomes in (some for n in range(4) for some in product(told, repeat=n)):
        phases = ["setup", *(["call"] if outcomes[:1] == ("passed",) else []), "teardown"]
        reports = list(map(_report, phases, outcomes))
        try:
            complete("tests/a.py::b", reports)
        except RunOver:
            assert len(reports) < len(phases) or {"rerun", ""} & set(outcomes), outcomes
        else:
            passed = verdict_of(reports)[0] is Verdict.PASSED
            assert (outcomes == ("passed",) * 3) == passed, f"{outcomes} are {passed}"
