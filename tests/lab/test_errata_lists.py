# SPDX-License-Identifier: MIT
"""The page and the lists that are written from measured releases."""

from __future__ import annotations

import pytest

from lab.errata import lists, table
from lab.errors import LabError
from lab.facts.errata import Finding, Measured, Seen
from lab.rules.errata import Catalogue
from tests.lab.errata_support import (
    ABSENT,
    CATALOGUE,
    NODES,
    PRESENT,
    fake_erratum,
    fake_kernel,
)

pytestmark = pytest.mark.lab


def _row(upstream: str, a: Finding, b: Finding = ABSENT, revision: str = "1") -> Measured:
    kernel = fake_kernel(upstream, revision)
    findings = {
        "IOX-ERR-001": a,
        "IOX-ERR-002": b,
        "IOX-ERR-003": Finding(Seen.NOT_APPLICABLE, "needs INC"),
    }
    return Measured(upstream, kernel.package, kernel.release, findings)


ROWS = [
    _row("6.12.9", ABSENT),
    _row("6.12.43", PRESENT),
    _row("6.12.107", ABSENT),
    _row("6.18.5", PRESENT),
    _row("6.18.15", PRESENT),
    _row("7.3.4", ABSENT),
]


def test_boundaries_are_by_series() -> None:
    """Each series has its own first bad and its own first good after it; 6.12.9 is older than
    6.12.107."""
    assert [
        ("6.12", 1, 2, ("6.12.43", "6.12.107")),
        ("6.18", 2, 0, ("6.18.5", "")),
        ("7.3", 0, 1, ("", "")),
    ] == table.boundaries("IOX-ERR-001", table.in_order(reversed(ROWS)))


def test_page_is_the_same_in_any_order() -> None:
    """The page depends on what was found, not on when, nor on the words of the evidence."""
    page = table.render(CATALOGUE, ROWS)
    other = [
        Measured(
            r.upstream,
            r.package,
            r.release,
            {i: Finding(f.seen, f"{f.evidence}, 25.2 ms") for i, f in r.findings.items()},
        )
        for r in reversed(ROWS)
    ]
    assert page == table.render(CATALOGUE, other)
    assert "| 6.12 | 1 of 3 | 6.12.43 | 6.12.107 |" in page
    assert "| 6.18.15 (6.18.15+fake1) | **bad** |\n" in page
    unseen = page.partition("## Reported, and seen on no release")[2]
    assert "- **IOX-ERR-002: It is broken, b** (`" in unseen
    assert "Tried on 6.12: 6.12.9 to 6.12.107 (3 releases); 6.18: 6.18.5 to 6.18.15 (2 " in unseen
    assert "IOX-ERR-003: It is broken, c** (`" in unseen
    assert "Tried on no release that could have it." in unseen


def test_lists_are_written_as_measured() -> None:
    """Measured releases move to the list they belong to, others stay, packagings that differ are
    named apart, and the rest of the file is not touched."""
    erratum = fake_erratum("a", bad=("6.1.1", "6.12.107"), good=("6.18.15", "7.0.1"))
    text = (
        "# head\n\n[[erratum]]\n"
        f'id = "IOX-ERR-001"\ntitle = "x"\nreproducer = "{NODES[0]}"\ncapability = "INC"\n'
        'known_bad = ["6.1.1", "6.12.107"]\nknown_good = [\n    "6.18.15",\n    "7.0.1",\n]\n'
        "links = []\n"
    )
    rows = [*ROWS, _row("6.12.94", PRESENT), _row("6.12.94", ABSENT, revision="2")]
    new = lists.updated(text, Catalogue((erratum,)), rows)
    assert 'known_bad = ["6.1.1", "6.12.43", "6.12.94-1", "6.18.5", "6.18.15"]\n' in new
    assert 'known_good = ["6.12.9", "6.12.94-2", "6.12.107", "7.0.1", "7.3.4"]\n' in new
    assert new.startswith("# head\n\n[[erratum]]\n")
    assert new.endswith("links = []\n")
    agreed = Catalogue(
        (
            fake_erratum(
                "a",
                bad=("6.1.1", "6.12.43", "6.12.94-1", "6.18.5", "6.18.15"),
                good=("6.12.9", "6.12.94-2", "6.12.107", "7.0.1", "7.3.4"),
            ),
        )
    )
    assert [] == lists.differences(agreed, rows)


def test_differences_are_told_together() -> None:
    """What is to be said of several releases is one sentence, contradictions come first."""
    catalogue = Catalogue((fake_erratum("a"), fake_erratum("b", bad=("7.3.4",))))
    assert [
        "surprise: IOX-ERR-002 is absent on 7.3.4-1, which known_bad names",
        "IOX-ERR-001 is absent on 6.12.9-1, 7.3.4-1, which no list names",
        "IOX-ERR-002 is absent on 6.12.9-1, 6.12.43-1, which no list names",
        "IOX-ERR-001 is present on 6.12.43-1, which no list names",
    ] == lists.told(lists.differences(catalogue, [ROWS[0], ROWS[1], ROWS[-1]]))


def test_long_list_is_wrapped() -> None:
    """A list of many releases is broken into lines of less than a hundred columns, and is TOML."""
    import tomllib

    rows = [_row(f"6.12.{n}", PRESENT) for n in range(1, 60)]
    text = '[[erratum]]\nid = "IOX-ERR-001"\nknown_bad = []\nknown_good = []\n'
    new = lists.updated(text, Catalogue((fake_erratum("a"),)), rows)
    assert max(map(len, new.splitlines())) < 100
    (entry,) = tomllib.loads(new)["erratum"]
    assert entry["known_bad"] == [f"6.12.{n}" for n in range(1, 60)]


def test_entry_without_its_lines_is_refused() -> None:
    """A file whose lists cannot be found is not half-written."""
    with pytest.raises(LabError, match=r"IOX-ERR-001 has no line `known_bad"):
        lists.updated('[[erratum]]\nid = "IOX-ERR-001"\n', Catalogue((fake_erratum("a"),)), ROWS)


def test_list_that_names_what_was_not_tried_contradicts() -> None:
    """Bad or good, a release that a list names had what the reproducer needs."""
    row = _row("6.12.9", ABSENT)
    assert [] == [d for d in lists.differences(CATALOGUE, [row]) if d.erratum == "IOX-ERR-003"]
    for listed in ({"bad": ("6.12.9",)}, {"good": ("6.12.9",)}):
        catalogue = Catalogue((fake_erratum("a"), fake_erratum("b"), fake_erratum("c", **listed)))
        (first, *_) = lists.differences(catalogue, [row])
        assert ("IOX-ERR-003", True) == (first.erratum, first.surprise)
