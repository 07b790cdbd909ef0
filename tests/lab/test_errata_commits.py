# SPDX-License-Identifier: MIT
"""The bisection over commits: a kernel is built of each, and nothing of the repository changes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lab.building import equipment
from lab.cli import main
from tests.lab.kbuild_support import commit, git, make_tree, snapshot

pytestmark = pytest.mark.lab

NODE = "tests/test_it.py::test_it"
LAB = """\
import json, os, pathlib, sys
arguments = dict(zip(sys.argv[1:], sys.argv[2:]))
package = arguments["--kernel"]
cache = pathlib.Path(os.environ["LAB_CACHE"])
(sha,) = [
    record["release"]["file"][0]["sha256"]
    for path in cache.glob("built/*.json")
    if (record := json.loads(path.read_text()))["release"]["package"] == package
]
(tar,) = (cache / "packages" / sha).iterdir()
with open(os.environ["TRIALS"], "a") as log:
    log.write(package + "\\n")
verdict = next(v for v in ("splat", "passed", "failed", "lost") if v.encode() in tar.read_bytes())
results = next(a for a in sys.argv if a.startswith("--lab-results=")).partition("=")[2]
latest = pathlib.Path(results, "latest")
latest.mkdir()
leg = {"kernel": {"package": package}, "verdicts": {sys.argv[-1]: {"verdict": verdict, "why": ""}}}
(latest / "results.json").write_text(json.dumps({"legs": {"x": leg}}))
"""
"""In the place of the lab's own run in a guest: the verdict is written in the kernel."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a test, which is the working directory."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRIALS", str(tmp_path / "trials"))
    monkeypatch.setattr(equipment, "check", lambda: None)
    # pytest keeps its own.
    monkeypatch.setattr("lab.cli.signal.signal", lambda *_: None)
    root = tmp_path / "repository"
    (root / "lab").mkdir(parents=True)
    (root / "lab/__init__.py").touch()  # else the package that PYTHONPATH leads to is meant
    (root / "lab/__main__.py").write_text(LAB)
    (root / "tests").mkdir()
    (root / "tests/test_it.py").write_text("def test_it(): pass\n")
    (root / "pyproject.toml").write_text('[tool.lab]\nkernels = ["6.12"]\n')
    monkeypatch.chdir(root)
    return root


def history(root: Path, states: list[str], *, broken: frozenset[int] = frozenset()) -> list[str]:
    """A kernel's repository with a commit for each state, tagged v0, v1 and so on."""
    tree = make_tree(root)
    base = commit(tree, "base")
    # One process, not four for each commit.
    stream = [f"reset refs/heads/main\nfrom {base}\n"]
    for number, state in enumerate(states):
        code = "#error out of order" if number in broken else f"int number = {number};"
        stream.append(
            f"commit refs/heads/main\nmark :{number + 1}\n"
            f"committer n <e@x> {10**9 + number} +0000\n"
            f"data <<E\nv{number}\nE\n"
            f"M 100644 inline state\ndata <<E\n{state}\nE\n"
            f"M 100644 inline kernel/fork.c\ndata <<E\n{code}\nE\n"
            f"reset refs/tags/v{number}\nfrom :{number + 1}\n"
        )
    git(tree, "fast-import", "--quiet", "--done", stdin="\n".join([*stream, "done\n"]))
    git(tree, "reset", "-q", "--hard", "main")
    return git(tree, "rev-list", "--reverse", "v0^..main").split()


def bisect(*words: str) -> int:
    """The exit code of `lab bisect`."""
    return main(["bisect", *words, NODE])


def trials(tmp_path: Path) -> int:
    path = tmp_path / "trials"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_planted_commit_among_64_takes_six_steps(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linux = tmp_path / "linux"
    shas = history(linux, ["passed"] * 41 + ["failed"] * 24)
    before = snapshot(linux)
    assert 0 == bisect("--git", str(linux), "--good", "v0", "--bad", "v64")
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert f"first bad commit {shas[41][:12]} (v41); 6 steps" in last
    assert 2 + 6 == trials(tmp_path)
    assert before == snapshot(linux), "the repository was written to"
    (log,) = here.glob("lab-results/*/bisect.log")
    assert f"# first newer commit: [{shas[41]}] v41" in log.read_text()


@pytest.mark.usefixtures("here")
def test_mending_commit_is_found_the_same_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shas = history(tmp_path / "linux", ["splat"] * 3 + ["passed"] * 5)
    assert 0 == bisect("--git", str(tmp_path / "linux"), "--good", "v7", "--bad", "v0")
    assert f"first good commit {shas[3][:12]} (v3)" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_commit_without_a_kernel_or_a_verdict_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = ["passed"] * 4 + ["lost"] + ["passed"] + ["failed"] * 3
    shas = history(tmp_path / "linux", states, broken=frozenset({6}))
    assert 0 == bisect("--git", str(tmp_path / "linux"), "--good", "v0", "--bad", "v8")
    told = capsys.readouterr().out
    assert "(v4): not decided: lost" in told
    assert "(v6): not decided: it cannot be built" in told
    assert "out of order" in told
    last = told.strip().splitlines()[-1]
    # Git cannot tell which of the two it is, and neither does the lab.
    assert f"first bad commit {shas[6][:12]} (v6) or {shas[7][:12]} (v7)" in last
    assert "2 without a verdict" in last


def test_bisection_that_was_stopped_goes_on(
    here: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    history(tmp_path / "linux", ["passed"] * 9 + ["failed"] * 8)
    words = ["--git", str(tmp_path / "linux"), "--good", "v0", "--bad", "v16"]
    stop = LAB.replace(
        "verdict = ",
        "if len(open(os.environ['TRIALS']).readlines()) == 4:\n"
        "    import signal; os.kill(os.getppid(), signal.SIGINT)\n"
        "    import time; time.sleep(60)\nverdict = ",
    )
    (here / "lab/__main__.py").write_text(stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert 130 == bisect(*words)
    assert 4 == trials(tmp_path)
    (here / "lab/__main__.py").write_text(LAB)
    assert 0 == bisect(*words)
    told = capsys.readouterr().out
    assert "3 tried before" in told
    assert "(v9); 4 steps" in told
    # The one that was stopped is tried again, the three before it are not.
    assert 4 + 1 + 2 == trials(tmp_path)
    # Once it is over nothing is taken for known.
    assert 0 == bisect(*words)
    assert 4 + 1 + 2 + 6 == trials(tmp_path)


@pytest.mark.usefixtures("here")
def test_full_disk_is_no_property_of_a_commit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    history(tmp_path / "linux", ["passed", "passed", "failed"])
    # For the one between the ends, and it would be skipped.
    full = "if grep -q 'number = 1;' kernel/fork.c; then cat Makefile > /dev/full || exit 1; fi"
    monkeypatch.setenv("FAKE_DURING", full)
    assert 3 == bisect("--git", str(tmp_path / "linux"), "--good", "v0", "--bad", "v2")
    assert "the disk of the lab's cache is full" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--good", "v0", "--bad", "v0"], 2, "--good and --bad both mean"),
        (["--good", "v9", "--bad", "v0"], 2, "there is no commit 'v9'"),
        (["--good", "side", "--bad", "v2"], 2, "neither of side and v2 comes before the other"),
        (["--good", "v0", "--bad", "v1"], 2, "(v1) is good, not bad"),
        (["--good", "v2", "--bad", "v0"], 2, "(v0) is good, not bad"),
        (["--good", "v0", "--bad", "v3"], 3, "the test has no verdict on"),
    ],
)
def test_request_that_cannot_be_meant(
    words: list[str],
    code: int,
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    linux = tmp_path / "linux"
    history(linux, ["passed", "passed", "failed", "lost"])
    git(linux, "checkout", "-q", "-b", "side", "v0")
    (linux / "more").touch()
    commit(linux, "s")
    assert code == bisect("--git", str(linux), *words)
    assert sentence in capsys.readouterr().out.strip().splitlines()[-1]


@pytest.mark.usefixtures("here")
def test_directory_that_is_no_repository_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("gone", "."):
        assert 2 == bisect("--git", str(tmp_path / name), "--good", "a", "--bad", "b")
        assert "lab: exit 2 (usage): --git" in capsys.readouterr().out
