# SPDX-License-Identifier: MIT
"""report.html: what is on it, what hostile tests make of it, and what bad input gets. A browser
looks at it in test_page_browser.py."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import webbrowser
from collections import Counter
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lab import cli
from lab.report import page
from lab.report.page import shown
from lab.report.page.rows import Column
from lab.report.page.times import times
from tests.lab.page_support import COMPLAINT, GOOD, HOSTILE, LOST, SPLAT, Crafted, crafted
from tests.lab.suite_support import REPOSITORY

pytestmark = pytest.mark.lab

SCHEMA = json.loads((REPOSITORY / "docs/results.schema.json").read_text())
TAGS = """
html head meta title style body header div span nav a button main section h1 h2 h3 p b table thead
tbody tr th td svg rect line text ul ol li input select option label aside dialog dl dt dd kbd form
noscript script
"""
"""All that the template has."""


class Parsed(HTMLParser):
    """A page as a browser reads it, as far as that matters here."""

    def __init__(self, file: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.text = file.read_text(encoding="utf-8")
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.policy = ""
        self.said: list[str] = []
        self.scripts: list[tuple[str, str]] = []
        self._kind: str | None = None
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        found = dict(attrs)
        self.attributes |= set(found)
        if tag == "script":
            self._kind = found.get("type") or "javascript"
            self.scripts.append((self._kind, ""))
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        if tag == "a":
            self.links.append(found["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._kind = None

    def handle_data(self, data: str) -> None:
        if self._kind is None:
            self.said.append(data)
        else:
            kind, before = self.scripts[-1]
            self.scripts[-1] = (kind, before + data)

    @property
    def words(self) -> str:
        """All text outside of scripts."""
        return "".join(self.said)

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script is told."""
        (block,) = (text for kind, text in self.scripts if kind == "application/json")
        return dict(json.loads(block))

    def cell(self, test: str, kernel: int = 0) -> dict[str, Any]:
        """The details of a test."""
        place = self.data["tests"].index(shown.line(test, 4_000))
        return dict(self.data["cells"][f"t-{place}-{kernel}"])


def report(*words: str | Path) -> int:
    """`lab report` with these arguments; the exit code."""
    return cli.main(["report", *map(str, words)])


def page_of(run: Crafted) -> Parsed:
    assert 0 == report("--run", run.directory)
    return Parsed(run.directory / "report.html")


@pytest.fixture
def run(tmp_path: Path) -> Crafted:
    return crafted(tmp_path / "run")


def test_crafted_run_is_as_the_lab_writes_it(run: Crafted) -> None:
    jsonschema.validate(run.whole(), SCHEMA)


# -- what is on it ---------------------------------------------------------------------------


def test_each_cell_leads_to_its_evidence(run: Crafted) -> None:
    """Verdict, reason, output, the kernel's words and the line that runs it again, for each test on
    each kernel; and no link leads nowhere."""
    found = page_of(run)
    data = found.data
    for kernel in range(2):
        bad = found.cell(HOSTILE, kernel)
        name = data["kernels"][kernel]["name"]
        assert ("failed", 0.25, 0, 5.25) == (bad["v"], bad["s"], bad["g"], bad["b"])
        assert bad["r"].startswith(f"lab test --kernel {name} 'tests/test_hostile.py::test_it[")
        assert bad["o"]["x"].startswith("-- call: failed\n")
        assert "lab: start tests/test_hostile.py" in bad["l"]["x"]
        splat = found.cell(SPLAT, kernel)
        assert [COMPLAINT] == splat["c"]
        assert COMPLAINT in splat["l"]["x"].splitlines()
        assert "waiting" in found.cell(LOST, kernel)["o"]["x"]
        assert "o" not in found.cell(GOOD, kernel)
    fragments = {link for link in found.links if re.match(r"#[tpie]-", link)}
    assert {f"#{name}" for name in data["cells"]} == fragments
    sections = {"#bad", "#tests", "#capabilities", "#issues", "#errata", "#times", "#k-0", "#k-1"}
    assert sections == set(found.links) - fragments
    assert ["pfsl", "pfsl"] == ["".join(one) for one in zip(*data["verdicts"], strict=True)]


def test_capability_issue_and_erratum_have_their_evidence(run: Crafted) -> None:
    cells = page_of(run).data["cells"]
    assert [["evidence", "res = <i>1</i>"]] == cells["p-0-0"]["blocks"]
    assert ["promised", "no, measured, by the row of 6.12"] in cells["p-0-0"]["facts"]
    assert [0, 3] == cells["i-92-1"]["tests"]
    assert ["this release", "listed as bad"] in cells["e-0-1"]["facts"]
    assert [0] == cells["e-0-1"]["tests"]


def test_what_has_changed_comes_first(run: Crafted) -> None:
    """A test that is there leads to its details, one that has vanished leads nowhere."""
    gone = "tests/test_<i>gone</i>.py::test_it"

    def change(whole: dict[str, Any]) -> None:
        common = {"kernel": "6.12.107", "why": ""}
        whole["notes"] = ["results/1/results.json is <b>not</b> compared"]
        whole["previous"] = {
            "directory": "20260101T000000Z",
            "ended": "2026-01-01T00:00:00Z",
            "kernels": [
                {
                    "asked": "6.12",
                    "before": {"release": "6.12.106-amd64", "exit": 0},
                    "now": {"release": "6.12.107-amd64", "exit": 0},
                }
            ],
            "newly_failing": [{**common, "test": HOSTILE, "before": "passed", "now": "failed"}],
            "mended": [],
            "changed": [],
            "new": [],
            "vanished": [{**common, "test": gone, "before": "lost", "now": None}],
        }

    run.edit(change)
    jsonschema.validate(run.whole(), SCHEMA)
    found = page_of(run)
    words = re.sub(r"\s+", " ", found.words)
    assert words.index("Changed since 20260101T000000Z") < words.index("Not good 3 tests")
    name = shown.line(HOSTILE)
    assert f"newly failing passed\u2192failed 6.12.107 {name}" in words
    assert f"vanished lost\u2192gone 6.12.107 {gone}" in words
    assert "kernel 6.12.106-amd64\u21926.12.107-amd64 6.12 release" in words
    assert "note: results/1/results.json is <b>not</b> compared" in words
    assert "#t-1-1" == found.links[found.links.index("#times") + 1]


def test_many_that_never_ran_are_told_together(tmp_path: Path) -> None:
    """By kernel and reason, and what is worse comes before them; the table has each."""
    names = (HOSTILE, *(f"tests/test_late.py::test_it[{n}]" for n in range(30)))
    run = crafted(tmp_path, names=names)

    def change(whole: dict[str, Any]) -> None:
        for name in names[1:]:
            record = whole["legs"]["6.12.107"]["verdicts"][name]
            record |= {"verdict": "never ran", "why": "the run ended before it"}

    run.edit(change)
    found = page_of(run)
    words = re.sub(r"\s+", " ", found.words)
    assert "Not good 31 tests" in words
    assert "never ran 6.12.107 30 tests: the run ended before it" in words
    assert 2 == len(re.findall(r'class="badge b-', found.text))
    assert 30 == len(re.findall(r'<td class="n">', found.text))


def test_each_run_of_a_test_has_its_evidence(run: Crafted) -> None:
    def change(whole: dict[str, Any]) -> None:
        record = whole["legs"]["6.1.176"]["verdicts"][HOSTILE]
        same = {key: record[key] for key in ("kernel_log", "complaints", "ran_in")}
        good = {**same, "verdict": "passed", "seconds": 0.1, "why": "", "output": None}
        bad = {**same, "verdict": "failed", "seconds": 0.2, "why": "", "output": record["output"]}
        record["runs"] = [{**good, "began": 6.0}, {**bad, "began": 7.0}]

    run.edit(change)
    jsonschema.validate(run.whole(), SCHEMA)
    one, two = page_of(run).cell(HOSTILE)["u"]
    assert ("passed", 0.1, 6.0) == (one["v"], one["s"], one["b"])
    assert "o" not in one
    assert two["o"]["x"].startswith("-- call: failed\n")
    source = page.read(run.directory)
    found = times([Column(0, "6.1", source.whole["legs"]["6.1.176"], source)])
    assert [pytest.approx(100 * 7 / 90, abs=0.001)] == [
        bar.x for bar in found.tracks[0].bars if bar.letter == "f"
    ]


def test_links_to_files_are_there_from_where_the_page_is(run: Crafted, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where" / "p.html"
    elsewhere.parent.mkdir()
    assert 0 == report("--run", run.directory, "--output", elsewhere)
    found = Parsed(elsewhere)
    assert "../run/tests.log" == found.cell(HOSTILE)["o"]["h"]
    files = dict(found.data["kernels"][0]["guests"][0]["files"])
    assert {"console.log", "kernel.log", "tests.log"} == set(files)
    assert all((elsewhere.parent / href).is_file() for href in files.values())


def test_times_are_within_the_picture(run: Crafted) -> None:
    """Bars of each guest, those of bad tests above the others, and the slowest first."""
    source = page.read(run.directory)
    columns = [Column(0, "6.1", source.whole["legs"]["6.1.176"], source)]
    found = times(columns)
    (track,) = found.tracks
    kinds = [bar.letter for bar in track.bars]
    assert ["boot", "idle", "p", "f", "s", "l"] == kinds
    assert all(0 <= bar.x and bar.x + bar.width <= 100.001 for bar in track.bars)
    lost = track.bars[-1]
    assert (6.389, 66.667) == (lost.x, lost.width)  # 60 s of 90, behind 5.75
    assert ["0 s", "20 s", "40 s", "1:00", "1:20"] == [text for _, text in found.ticks]
    ((_, slow),) = found.slowest
    assert (LOST, 100.0, "60.00") == (slow[0].name, slow[0].width, slow[0].seconds)


# -- hostile tests and kernels ---------------------------------------------------------------


def test_legend_names_each_colour_of_the_timeline(run: Crafted) -> None:
    """A complaint of the kernel is neither a failure nor a loss there."""
    text = page_of(run).text
    legend = re.search(r'<p class="legend quiet">(.*?)</p>', text)
    assert legend is not None
    shown = set(re.findall(r'class="v-(\w)"', text[text.index('id="times"') : legend.start()]))
    assert {"f", "s", "l"} <= shown
    assert shown <= set(re.findall(r'"key v-(\w)', legend[1])), shown
    assert "splat" in legend[1]


def test_hostile_words_stay_text(run: Crafted) -> None:
    """Nothing that a test or a kernel wrote is markup, and nothing of it is obeyed or invisible."""
    run.edit(lambda whole: whole["legs"]["6.1.176"]["faults"].append("</li><script>x</script>"))
    found = page_of(run)
    assert set(TAGS.split()) == set(found.tags)
    assert not [name for name in found.attributes if name.startswith("on") or name == "style"]
    assert Counter({"application/json": 1, "javascript": 1}) == Counter(
        kind for kind, _ in found.scripts
    )
    assert "test_it[<script>alert(1)</script>-\\x1b[31m-\\x00-\"'&-\\u202e]" in found.words
    assert "</li><script>x</script>" in found.words
    output = found.cell(HOSTILE)["o"]["x"]
    assert "</script><script>alert(3)</script>\nred \\x00 \\xff\\xfe end\n" in output
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", found.text)


def test_policy_allows_only_what_stands_in_the_page(run: Crafted) -> None:
    found = page_of(run)
    (script,) = (text for kind, text in found.scripts if kind == "javascript")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in found.policy
    assert f"script-src 'sha256-{digest}'" in found.policy
    assert "unsafe" not in found.policy
    assert not re.search(r"(src|href)=\"?(https?:)?//|@import|url\(", found.text)


def test_ten_megabytes_are_shown_by_their_ends(tmp_path: Path) -> None:
    lines = b"".join(b"line %d of many\n" % number for number in range(600_000))
    run = crafted(tmp_path, output=lines + b"the last")
    found = page_of(run)
    output = found.cell(HOSTILE)["o"]
    assert len(found.text) < 400_000
    assert output["n"] == len(lines) + 8 == output["m"] + shown.MOST_OF_BAD
    assert ("tests.log", "tests.log", 0) == (output["f"], output["h"], output["a"])
    assert output["x"].startswith("line 0 of many\n")
    assert output["x"].endswith("\nthe last")
    assert f"\u2026 {output['m']:,} bytes are left out here \u2026" in output["x"]


def test_page_has_room_for_so_much_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left out for want of room is said, with the file where it is."""
    monkeypatch.setattr(shown, "MOST_OF_ALL_BAD", 50_000)
    run = crafted(tmp_path, output=b"x" * 40_000)
    found = page_of(run)
    first, second = (found.cell(HOSTILE, kernel)["o"] for kernel in range(2))
    assert len(first["x"]) == 40_000
    assert 9_000 < len(second["x"]) < 10_100
    assert second["m"] > 30_000
    third = found.cell(LOST, 1)["l"]
    assert ("", "this page has no room for it") == (third["x"], third["e"])


@pytest.mark.parametrize("name", ["x" * 100_000, "\udc80", "\n" * 5_000, "::", " "])
def test_odd_ids_have_a_row(tmp_path: Path, name: str) -> None:
    found = page_of(crafted(tmp_path, names=(GOOD, HOSTILE, name)))
    assert 3 == len(found.data["verdicts"])
    assert len(found.text) < 200_000


# -- bad input -------------------------------------------------------------------------------


def _cut(run: Crafted) -> None:
    file = run.directory / "results.json"
    file.write_bytes(file.read_bytes()[:-200])


def _deep(run: Crafted) -> None:
    (run.directory / "results.json").write_text('{"version":1,"x":' + "[" * 200_000)


def _record(**more: Any) -> Callable[[Crafted], None]:
    def change(whole: dict[str, Any]) -> None:
        whole["legs"]["6.1.176"]["verdicts"][GOOD] |= more

    return lambda run: run.edit(change)


def _outside(file: str) -> Mapping[str, Any]:
    return {"file": file, "begin": 0, "end": 10}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_cut, "is no JSON, cut off or edited: "),
        (_deep, "is nested too deeply"),
        (lambda run: run.write({"version": 2}), "is of version 2, and this lab reads 1"),
        (lambda run: run.write({}), "is of version None, and this lab reads 1"),
        (lambda run: run.edit(lambda whole: whole.pop("legs")), "it has no legs"),
        (
            lambda run: run.edit(lambda whole: whole["legs"]["6.1.176"].pop("guests")),
            "legs['6.1.176'] has no guests",
        ),
        (_record(verdict="green"), f"verdicts['{GOOD}'].verdict is 'green'"),
        (_record(seconds=float("nan")), ".seconds is nan"),
        (_record(seconds=True), ".seconds is True"),
        (_record(output=_outside("../../etc/passwd")), ".output is {'file': '../../etc/passwd'"),
        (_record(output=_outside("/etc/passwd")), ".output is {'file': '/etc/passwd'"),
        (_record(kernel_log={"file": "a", "begin": 2, "end": 1}), ".kernel_log is {"),
        (_record(complaints="no"), ".complaints is 'no', not a list"),
        (lambda run: (run.directory / "results.json").write_text("[]"), "it is [], not an object"),
    ],
    ids=[
        *(
            "cut off",
            "deep",
            "version 2",
            "no version",
            "no legs",
            "no guests",
            "no verdict",
            "nan",
        ),
        *("bool", "above", "absolute", "backwards", "no list", "no object"),
    ],
)
def test_spoilt_results_are_one_sentence_and_no_page(
    run: Crafted,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Crafted], object],
    said: str,
) -> None:
    spoil(run)

    assert 3 == report("--run", run.directory)

    out, err = capsys.readouterr()
    assert "" == out
    (line,) = err.splitlines()
    assert line.startswith(f"lab: {run.directory}/results.json ")
    assert said in line
    assert not (run.directory / "report.html").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda whole: whole["legs"]["6.1.176"].__setitem__("exit", {"code": 0, "why": "good"}),
            "says that 6.1.176 is proved, and its verdicts say: tests/test_hostile",
        ),
        (
            lambda whole: whole["legs"]["6.1.176"]["verdicts"].pop(GOOD),
            "has 3 verdicts of 6.1.176, and says 4",
        ),
    ],
    ids=["proved", "a verdict less"],
)
def test_results_that_contradict_themselves_are_shown_and_not_believed(
    run: Crafted,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], object],
    said: str,
) -> None:
    run.edit(change)
    assert 3 == report("--run", run.directory)
    assert said in capsys.readouterr().err
    assert said in Parsed(run.directory / "report.html").words


def test_files_that_are_gone_or_shorter_are_named(run: Crafted) -> None:
    (run.directory / "tests.log").unlink()
    (run.directory / "kernel.log").write_bytes(b"[ 8.0]")
    bad = page_of(run).cell(HOSTILE)
    assert "tests.log cannot be read: No such file or directory" == bad["o"]["e"]
    assert "h" not in bad["o"]
    assert "kernel.log was cut off or edited" == bad["l"]["e"]


def test_run_without_a_guest_says_why(run: Crafted) -> None:
    def change(whole: dict[str, Any]) -> None:
        for leg in whole["legs"].values():
            leg |= {"guests": [], "verdicts": {}, "selected": 0, "proved": 0, "probe": None}
            leg |= {"kernel": None, "problems": ["no source has <6.1>"], "errata": []}
            leg |= {"exit": {"code": 3, "why": "no source has <6.1>"}, "issues": []}
            leg |= {"capabilities": {}}

    run.edit(change)
    found = page_of(run)
    assert "not proved 6.1.176 no source has <6.1>" in re.sub(r"\s+", " ", found.words)
    assert "No test was selected." in found.words
    assert [] == found.data["kernels"][0]["guests"]


@pytest.mark.parametrize("words", [(), ("--run", "nowhere"), ("--merge", "nowhere")])
def test_no_run_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\n')
    monkeypatch.chdir(tmp_path)
    assert report(*words) == (3 if words else 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lab: there is no run in ")


def test_newest_run_is_the_one_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\n')
    crafted(tmp_path / "lab-results/one")
    (tmp_path / "lab-results/latest").symlink_to("one")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert 0 == report()
    assert (tmp_path / "lab-results/one/report.html").is_file()
    assert f"{tmp_path}/lab-results/latest/report.html\n" == capsys.readouterr().out


@pytest.mark.parametrize("fails", [False, webbrowser.Error("could not locate runnable browser")])
def test_no_browser_is_one_sentence(
    run: Crafted,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fails: bool | Exception,
) -> None:
    """The page is there all the same, and where it is was said."""

    def nowhere(_: str) -> bool:
        if isinstance(fails, Exception):
            raise fails
        return fails

    monkeypatch.setattr(webbrowser, "open", nowhere)
    assert 3 == report("--run", run.directory, "--open")
    out, err = capsys.readouterr()
    assert f"{run.directory}/report.html\n" == out
    assert err.startswith("lab: no browser was found to show the page in (open the file yourself")


def test_page_is_opened_by_its_address(run: Crafted, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def show(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", show)
    assert 0 == report("--run", run.directory, "--open")
    assert [(run.directory / "report.html").as_uri()] == opened


def test_without_jinja2_no_run_is_lost(
    run: Crafted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    file = run.directory / "report.html"
    told = page.made(run.directory, run.whole())
    assert f"page: {file} was not written: jinja2 is not installed" == told
    assert 3 == report("--run", run.directory)
    assert "the page needs jinja2, which is not installed (pip install jinja2)" in (
        capsys.readouterr().err
    )


def test_page_that_cannot_be_written_is_one_sentence(
    run: Crafted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 3 == report("--run", run.directory, "--output", tmp_path / "no/p.html")
    assert "p.html cannot be written: No such file or directory" in capsys.readouterr().err


def test_start_does_not_import_the_template_engine() -> None:
    """Every start of the lab, and every pytest with its plugin, would pay for it."""
    code = "import sys, lab.cli, lab.suite.run_end; print('jinja2' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "False\n" == done.stdout


# -- the jobs of a matrix ----------------------------------------------------------------------


def test_runs_of_a_matrix_are_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own files; what cannot be read is said at the top; a copy counts once."""
    monkeypatch.chdir(tmp_path)
    crafted(tmp_path / "a/one", kernels=("6.1.176",))
    crafted(tmp_path / "b/two", kernels=("6.12.107",), names=(HOSTILE, "tests/test_x.py::test_y"))
    shutil.copytree(tmp_path / "b/two", tmp_path / "b/latest")
    _cut(crafted(tmp_path / "c"))

    assert 3 == report("--merge", "a", "b", "c")

    out, err = capsys.readouterr()
    assert "report.html\n" == out
    (line,) = err.splitlines()
    found = Parsed(tmp_path / "report.html")
    assert line.removeprefix("lab: ") in found.words
    assert ["6.1.176", "6.12.107"] == [one["name"] for one in found.data["kernels"]]
    assert "a/one/tests.log" == found.cell(HOSTILE, 0)["o"]["h"]
    assert "b/latest/tests.log" == found.cell(HOSTILE, 1)["o"]["h"]
    assert ["p-", "ff", "s-", "l-", "-p"] == found.data["verdicts"]


def test_two_runs_on_one_kernel_have_a_column_each(tmp_path: Path) -> None:
    crafted(tmp_path / "one", kernels=("6.1.176",))
    crafted(tmp_path / "two", kernels=("6.1.176",), names=(GOOD, HOSTILE))
    output = tmp_path / "p.html"
    assert 0 == report("--merge", tmp_path, "--output", output)
    names = [one["name"] for one in Parsed(output).data["kernels"]]
    assert ["6.1.176 (one)", "6.1.176 (two)"] == names
