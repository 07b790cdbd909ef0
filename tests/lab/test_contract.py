# SPDX-License-Identifier: MIT
"""The contract by itself: the file, inheritance, masks, and what counts as a surprise."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioxide import Capability
from ioxide._probe import mask as ioxide_mask
from lab import project
from lab.errors import LabError, UsageError
from lab.facts.probed import Finding, Probed
from lab.kernels import catalogue
from lab.report import summary
from lab.rules import contract
from lab.rules.contract import Basis, Cell, Contract, Row, compare

PROJECT = project.read(Path(__file__).parents[2])
FILE = PROJECT.contract
pytestmark = pytest.mark.lab

QUICK = settings(deadline=None, database=None)
LATER_THAN_6_6 = (
    *("BUNDLE", "INC", "INC_BUNDLE", "NAPI", "MIN_WAIT", "NAPI_STATIC", "WAIT_REGION", "NO_IOWAIT"),
    *("RECV_MSHOT_LIM", "QUERY", "SQ_REWIND", "MIN_LEFT", "NOTIF_USER_DATA", "ZCRX_NODEV"),
    "SEND_RECV_FIXED",
)
NAMES = ("BUNDLE", "INC", "NAPI")
MEASURED = {
    *("6.1", "6.6", "6.10", "6.11", "6.12", "6.13", "6.16", "6.17", "6.18", "6.19"),
    *("7.0", "7.1", "7.2", "7.3"),
}


def finding(observed: bool | None, note: str = "") -> Finding:
    """A finding of which only the effect matters."""
    return Finding(None, observed, observed, {}, note)


def probed(observed: Mapping[str, bool | None], note: str = "") -> Probed:
    """A probe that observed these."""
    return Probed("6.12.1", None, {name: finding(seen, note) for name, seen in observed.items()})


def written(directory: Path, text: str) -> Contract:
    """The contract that `text` is."""
    path = directory / "expected.toml"
    path.write_text(text)
    return contract.read(path, FILE)


def presence(row: Row | None) -> dict[str, bool]:
    """What a row says, without how it is known."""
    assert row is not None
    return {name: cell.present for name, cell in row.cells.items()}


# -- the project's own file ------------------------------------------------------------------------


def test_every_series_of_the_catalogue_has_every_cell() -> None:
    """Each series that the lab is about has a cell of its own for each capability there is."""
    found = contract.of(PROJECT)
    rows, anywhere = found.rows, {*found.every, *found.debug}
    releases = {line for line in rows if line != contract.series_of_release(line)}

    assert MEASURED == set(rows) - releases
    assert {series.name for series in catalogue.catalogue()} <= MEASURED
    assert {contract.series_of_release(release) for release in releases} <= MEASURED
    for line, cells in rows.items():
        assert line in releases or set(Capability) == set(cells) | anywhere, line
        assert set(cells) <= set(Capability), line
        assert {Basis.MEASURED} == {cell.basis for cell in cells.values()}
    assert {Basis.MEASURED} == {c.basis for row in (found.every, found.debug) for c in row.values()}
    assert {"FAIL_NTH"} == set(found.every) == set(found.debug)
    assert {"FAIL_NTH"} & {name for cells in rows.values() for name in cells} == set()


def test_series_without_lines_is_like_the_one_below() -> None:
    """What Debian offers between the rows inherits, cell by cell, and says from where."""
    known = contract.of(PROJECT)

    for series, below in (("6.8", "6.6"), ("6.15", "6.13"), ("7.5", "7.3")):
        row = known.row(series)
        assert row is not None
        assert presence(known.row(below)) == presence(row)
        cells = len(Capability) - len(known.every)
        assert f"{series} has no row in {FILE} and inherits {cells} from {below}" == (
            row.inherited()
        )
    own = known.row("6.12")
    assert own is not None
    assert "" == own.inherited()
    assert known.row("5.15") is None


# -- the file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not toml", "cannot be read"),
        ('"6.12".INC = "maybe"', """"6.12".INC is 'maybe', expected "yes" or "no" """),
        ('"6.12".INC = "yes"', "how that is known"),
        ('"6.12".INC = true', '"6.12".INC is True'),
        ('"6.12".INC = "no, masked"', "is 'no, masked'"),
        ('"6.12".inc = "yes, measured"', 'expected.toml: "6.12".inc: a capability is written'),
        ('"v6".INC = "yes, measured"', "'v6' is no row"),
        ('INC = "yes, measured"', "'INC' is no row"),
    ],
)
def test_wrong_file_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    """What is wrong in the file is named with its place and value."""
    with pytest.raises(LabError, match=re.escape(words.strip())):
        written(tmp_path, text)


# -- kernels of all series -------------------------------------------------------------------------

BY_BUILD = """
"every".FAULTS = "no, measured"
"+debug".FAULTS = "yes, measured"
"6.6".INC = "no, measured"
"6.12".INC = "yes, measured"
"""


def test_lines_about_all_series_follow_from_how_a_kernel_was_built(tmp_path: Path) -> None:
    """A kernel of the flavour `debug` has what no distribution's has, whatever its series."""
    known = written(tmp_path, BY_BUILD)

    for series, inc in (("6.6", False), ("6.10", False), ("6.12.117", True)):
        assert {"INC": inc, "FAULTS": False} == presence(known.row(series))
        assert {"INC": inc, "FAULTS": True} == presence(known.row(series, debug=True))
    assert known.row("5.15") is known.row("5.15", debug=True) is None
    assert {"INC", "FAULTS"} == known.names
    row = known.row("6.12")
    assert row is not None
    assert "" == row.inherited()


def test_promise_about_all_series_is_no_guess_about_one(tmp_path: Path) -> None:
    """What is inherited has a star in the report; a line about every kernel is not inherited."""
    row = written(tmp_path, BY_BUILD).row("6.10")
    assert ["no*", "no"] == [summary._promise(row, name) for name in ("INC", "FAULTS")]


def test_what_only_debug_kernels_have_is_no_reason_to_refuse_a_test(tmp_path: Path) -> None:
    known = written(tmp_path, BY_BUILD)
    assert "" == known.hopeless(["FAULTS", "INC"])
    (tmp_path / "none").mkdir()
    alone = written(tmp_path / "none", BY_BUILD.replace("yes, measured", "no, measured", 1))
    assert "has FAULTS" in alone.hopeless(["FAULTS"])


def test_surprise_about_how_a_kernel_was_built_names_its_line(tmp_path: Path) -> None:
    known = written(tmp_path, BY_BUILD)
    for debug, seen, why, edit in (
        (False, True, "of every kernel), and is observed", '"every".FAULTS = "yes, measured"'),
        (True, False, "of +debug kernel), and is not", '"+debug".FAULTS = "no, measured"'),
    ):
        row = known.row("6.12", debug=debug)
        assert row is not None
        (found,) = compare(row, probed({"INC": True, "FAULTS": seen}), own_machine=False).surprises
        assert why in found.why
        assert edit == found.edit


def test_debug_kernel_plays_an_older_one_without_its_faults(tmp_path: Path) -> None:
    known = written(tmp_path, BY_BUILD)
    assert {"-faults", "-inc"} == set(known.playing("6.12", "6.6", debug=True).mask.split(","))
    assert "-inc" == known.playing("6.12", "6.6").mask


# -- inheritance -----------------------------------------------------------------------------------

SERIES = st.tuples(st.integers(3, 9), st.integers(0, 30)).map(lambda pair: f"{pair[0]}.{pair[1]}")
ROWS = st.dictionaries(
    SERIES, st.dictionaries(st.sampled_from(NAMES), st.booleans(), min_size=1), min_size=1
)


def made(rows: Mapping[str, Mapping[str, bool]]) -> Contract:
    """A contract with these measured cells."""
    return Contract(
        {
            series: {n: Cell(present, Basis.MEASURED, series) for n, present in cells.items()}
            for series, cells in sorted(rows.items(), key=lambda r: contract.series_key(r[0]))
        }
    )


@QUICK
@given(rows=ROWS, series=SERIES)
def test_cell_comes_from_the_nearest_lower_series(
    rows: dict[str, dict[str, bool]], series: str
) -> None:
    """Each cell is the one of the highest series, not above the asked one, that has it."""
    row = made(rows).row(series)

    for name in NAMES:
        lower = [
            known
            for known, cells in rows.items()
            if name in cells and contract.series_key(known) <= contract.series_key(series)
        ]
        nearest = max(lower, key=contract.series_key, default=None)
        cell = row.cells.get(name) if row is not None else None
        if nearest is None:
            assert cell is None
        else:
            assert cell == Cell(rows[nearest][name], Basis.MEASURED, nearest)
    if row is not None:
        elsewhere = any(cell.series != series for cell in row.cells.values())
        assert elsewhere is (series in row.inherited())


@QUICK
@given(rows=ROWS, series=SERIES, observed=st.dictionaries(st.sampled_from(NAMES), st.booleans()))
def test_suggested_lines_settle_every_surprise(
    rows: dict[str, dict[str, bool]],
    series: str,
    observed: dict[str, bool],
) -> None:
    """The lines that the surprises name make a contract which the same probe fulfils."""
    row = made(rows).row(series)
    if row is None:
        return
    seen = {name: observed.get(name, False) for name in NAMES}

    found = compare(row, probed(seen), own_machine=False)
    lines: dict[str, dict[str, bool]] = {known: dict(cells) for known, cells in rows.items()}
    for surprise in found.surprises:
        for known, cells in tomllib.loads(surprise.edit).items():
            lines.setdefault(known, {}).update({n: text[:3] == "yes" for n, text in cells.items()})
    mended = made(lines).row(series)

    assert {n for n, cell in row.cells.items() if cell.present != seen[n]} == {
        surprise.capability for surprise in found.surprises
    }
    assert mended is not None
    assert () == compare(mended, probed(seen), own_machine=False).surprises


def test_line_about_a_release_counts_from_it_on_within_its_series(tmp_path: Path) -> None:
    """What a stable release got, the ones before it have not, nor has the next series."""
    known = written(
        tmp_path,
        '"6.12".INC = "no, measured"\n"6.12.50".INC = "yes, measured"\n'
        '"6.12".NAPI = "yes, measured"',
    )

    for release, has in (
        ("6.12", False),
        ("6.12.49", False),
        ("6.12.50", True),
        ("6.12.118", True),
    ):
        assert {"INC": has, "NAPI": True} == presence(known.row(release)), release
    for release in ("6.13", "6.13.60", "6.18.50"):
        assert {"INC": False, "NAPI": True} == presence(known.row(release)), release
    assert known.row("6.11.60") is None
    own = known.row("6.12.60")
    assert own is not None
    assert ("6.12", "") == (own.name, own.inherited())


@pytest.mark.parametrize(
    ("release", "observed", "words"),
    [
        ("6.12.60", False, "(measured, from 6.12.50 on), and is not observed; if that is right, "),
        ("6.12.49", True, "INC is denied 6.12 (measured), and is observed; if that is right, "),
    ],
)
def test_surprise_about_a_release_names_the_line_that_counts(
    tmp_path: Path, release: str, observed: bool, words: str
) -> None:
    """The line to write is the one that the cell came from, and settles the surprise."""
    text = '"6.12".INC = "no, measured"\n"6.12.50".INC = "yes, measured"'
    row = row_of(text, tmp_path, release)
    line = '"6.12.50".INC = "no, measured"' if not observed else '"6.12".INC = "yes, measured"'

    (surprise,) = compare(row, probed({"INC": observed}), own_machine=False).surprises

    assert words in str(surprise)
    assert line == surprise.edit
    there = next(t for t in text.splitlines() if t.startswith(line.partition(" =")[0]))
    (tmp_path / "mended").mkdir()
    mended = row_of(text.replace(there, line), tmp_path / "mended", release)
    assert () == compare(mended, probed({"INC": observed}), own_machine=False).surprises


# -- surprises -------------------------------------------------------------------------------------


def row_of(text: str, tmp_path: Path, series: str = "6.12") -> Row:
    """A row of the contract that `text` is."""
    row = written(tmp_path, text).row(series)
    assert row is not None
    return row


@pytest.mark.parametrize("own_machine", [True, False])
def test_surprise_goes_both_ways(tmp_path: Path, own_machine: bool) -> None:
    """Missing where promised and present where denied are surprises, each with one line to write;
    a release of a series that inherits gets a line of its own."""
    text = '"6.12".INC = "yes, measured"\n"6.12".NAPI = "no, assumed"\n"6.12".ZC = "yes, measured"'
    row = row_of(text, tmp_path, "7.0")

    found = compare(
        row, probed({"INC": False, "NAPI": True, "ZC": True}, "so it is"), own_machine=own_machine
    )

    assert [
        "INC is promised on 7.0 (measured, inherited from 6.12), and is not observed (so it is); "
        f'if that is right, write in {FILE}: "7.0".INC = "no, measured"',
        "NAPI is denied 7.0 (assumed, inherited from 6.12), and is observed; "
        f'if that is right, write in {FILE}: "7.0".NAPI = "yes, measured"',
    ] == [str(surprise) for surprise in found.surprises]


def test_io_uring_that_cannot_be_used_is_a_surprise_in_a_guest(tmp_path: Path) -> None:
    """A guest whose io_uring is refused has nothing of what is promised, whatever else passes
    there; with nothing promised there is nothing to miss."""
    text = '"6.1".INC = "no, measured"\n"6.12".INC = "yes, measured"'
    probe = Probed("6.12.1", "io_uring_setup says EPERM", {})
    row = row_of(text, tmp_path)

    assert () == compare(row, probe, own_machine=True).surprises
    (surprise,) = compare(row, probe, own_machine=False).surprises
    assert ("6.12 is promised 1 capabilities of io_uring, and io_uring_setup says EPERM") == str(
        surprise
    )
    assert () == compare(row_of(text, tmp_path, "6.1"), probe, own_machine=False).surprises


def test_what_could_not_be_tried_is_said_here_and_a_surprise_in_a_guest(tmp_path: Path) -> None:
    """A guest has all that the probe needs; somebody's machine may lack the rights."""
    row = row_of('"6.12".NAPI = "yes, measured"', tmp_path)
    probe = probed({"NAPI": None}, "no veth")

    here, guest = (compare(row, probe, own_machine=own) for own in (True, False))

    sentence = "NAPI is promised on 6.12, but could not be tried here (no veth)"
    assert ((), (sentence,)) == (here.surprises, here.notes)
    assert ["NAPI is promised on 6.12 (measured), and could not be tried here (no veth)"] == [
        str(surprise) for surprise in guest.surprises
    ]
    assert "" == contract.unconfirmed(row, "NAPI", probe.findings["NAPI"], own_machine=True)
    assert contract.unconfirmed(row, "NAPI", probe.findings["NAPI"], own_machine=False)


def test_capability_without_a_cell_is_said(tmp_path: Path) -> None:
    """What the probe knows and the contract does not is a note; in a guest it excuses no skip."""
    row = row_of('"6.12".INC = "yes, measured"', tmp_path)

    found = compare(row, probed({"INC": True, "NEW": False}), own_machine=False)

    assert (f"{FILE} promises 6.12 nothing about NEW",) == found.notes
    assert contract.unconfirmed(row, "NEW", finding(False), own_machine=False)
    assert contract.unconfirmed(None, "NEW", finding(False), own_machine=False)
    assert "" == contract.unconfirmed(None, "NEW", finding(False), own_machine=True)


def test_promise_about_what_the_probe_forgot_is_a_surprise(tmp_path: Path) -> None:
    """A probe that no longer knows a promised capability does not pass for one that saw it."""
    row = row_of('"6.12".INC = "yes, measured"', tmp_path)

    assert ["INC is promised on 6.12 (measured), and the probe knows no such capability"] == [
        str(s) for s in compare(row, probed({}), own_machine=True).surprises
    ]


# -- masks -----------------------------------------------------------------------------------------


def test_playing_takes_away_what_the_older_lacks() -> None:
    """6.12 as 6.6 promises what 6.6 has, is named so, and tells ioxide what to do without."""
    known = contract.of(PROJECT)

    row = known.playing("6.12", "6.6")

    assert "6.12 as 6.6" == row.name
    assert set(LATER_THAN_6_6) == set(row.masked)
    assert presence(known.row("6.6")) == presence(row)
    assert set(row.masked) == ioxide_mask.parse(row.mask)
    assert "" == known.playing("7.3", "7.2").mask


@pytest.mark.parametrize(
    ("series", "older", "words"),
    [
        ("6.1", "6.12", "a mask only takes away"),
        ("6.12", "6.12", "wants an older series"),
        ("6.12", "5.15", "its lowest row is 6.1"),
        ("6.12", "six", "'six' is no kernel series"),
        ("6.12", "6.6.30", "no kernel series"),
    ],
)
def test_what_cannot_be_played_is_a_usage_error(series: str, older: str, words: str) -> None:
    """Newer, equal, unknown and misspelt series are refused with a sentence."""
    with pytest.raises(UsageError, match=re.escape(words)):
        contract.of(PROJECT).playing(series, older)


def test_series_that_lost_something_cannot_play_the_older(tmp_path: Path) -> None:
    """A mask cannot give back what a newer series no longer has."""
    known = written(tmp_path, '"6.6".INC = "yes, measured"\n"6.12".INC = "no, measured"')

    with pytest.raises(UsageError, match=r"6\.6, which has INC: a mask only takes away"):
        known.playing("6.12", "6.6")


@QUICK
@given(rows=ROWS, newer=SERIES, older=SERIES)
def test_mask_only_takes_away(rows: dict[str, dict[str, bool]], newer: str, older: str) -> None:
    """Whatever the contract says, a kernel that plays another has nothing that either lacks."""
    known = made(rows)
    try:
        row = known.playing(newer, older)
    except UsageError:
        return

    own, wanted = known.row(newer), known.row(older)
    assert own is not None
    assert wanted is not None
    for name, cell in row.cells.items():
        has = own.cells[name].present and name in wanted.cells and wanted.cells[name].present
        assert has is cell.present


def test_mask_that_was_not_honoured_is_a_surprise() -> None:
    """A capability that is seen although it was taken away is a surprise that no edit settles."""
    row = contract.mask(Row("6.12", {"INC": Cell(True, Basis.MEASURED, "6.12")}), {"INC"})

    found = compare(row, probed({"INC": True}), own_machine=True)

    assert "6.12 as -INC" == row.name
    assert ["INC was taken away, and is observed all the same"] == [str(s) for s in found.surprises]


WORDS = st.lists(st.sampled_from(list(Capability)), min_size=1)


@QUICK
@given(names=WORDS, upper=st.booleans(), space=st.sampled_from(["", " ", "\t"]))
def test_mask_is_read_as_written(names: list[Capability], upper: bool, space: str) -> None:
    """Order, case, repetition and spaces around words mean nothing."""
    words = [f"-{name if upper else name.lower()}" for name in names]

    assert frozenset(names) == ioxide_mask.parse(f",{space}".join(words))
    assert frozenset(names) == ioxide_mask.parse(ioxide_mask.render(names))


@QUICK
@given(names=st.lists(st.sampled_from(list(Capability))), place=st.integers(0, 20), data=st.data())
def test_one_wrong_word_spoils_the_mask(
    names: list[Capability], place: int, data: st.DataObject
) -> None:
    """A word without minus, or one that names nothing, is refused wherever it stands."""
    wrong = data.draw(
        st.sampled_from(["+inc", "inc", "-", "--inc", "-in c"])
        | st.text(st.characters(exclude_characters=","), min_size=1).filter(
            lambda text: text.strip() and text.strip()[1:].strip().upper() not in set(Capability)
        )
    )
    words = [f"-{name}" for name in names]
    words.insert(place, wrong)

    with pytest.raises(ioxide_mask.MaskError, match="IOXIDE_CAPS"):
        ioxide_mask.parse(",".join(words))


@pytest.mark.parametrize("wrong", ["+inc", "inc", "-", "--inc", "-in c", "-nonsense"])
def test_the_lab_refuses_the_same_words_of_a_mask(wrong: str) -> None:
    """The mask is the probe's to read; the lab reads it too, for the row that is left of it."""
    assert {"INC", "NAPI"} == contract.taken_away("CAPS", "-inc, -Napi", ["INC", "NAPI", "ZC"])
    assert frozenset() == contract.taken_away("CAPS", " ", ["INC"])
    with pytest.raises(UsageError, match=f"CAPS: {re.escape(repr(wrong))}"):
        contract.taken_away("CAPS", f"-inc,{wrong}", ["INC", "NAPI"])


# -- tests that would never run --------------------------------------------------------------------


def test_need_that_no_row_has_together_is_hopeless(tmp_path: Path) -> None:
    """Two capabilities that no one series has are as hopeless as one that none has."""
    known = written(
        tmp_path,
        '"6.6".A = "yes, measured"\n"6.6".B = "no, measured"\n"6.6".C = "no, measured"\n'
        '"6.12".A = "no, measured"\n"6.12".B = "yes, assumed"\n',
    )

    assert ["", "", ""] == [known.hopeless(names) for names in (["A"], ["B"], [])]
    no_series = f"no kernel series of {FILE} (6.6, 6.12) has "
    assert f"{no_series}A together with B" == known.hopeless(["A", "B"])
    assert f"{no_series}C" == known.hopeless(["C"])
    assert f"D is unknown to every row of {FILE}" == known.hopeless(["A", "D"])
