# SPDX-License-Identifier: MIT
"""The table of errata for programs: what is recorded stays, and the page says the same."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from lab import project
from lab.errata import lists, record, table
from lab.errors import LabError
from lab.facts.errata import Finding, Measured, Seen
from lab.rules.errata import Catalogue, Erratum, of

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
PROJECT = project.read(ROOT)
TABLE = ROOT / "ioxide/_errata/table.json"


def _erratum(number: int) -> Erratum:
    return Erratum(f"X-00{number}", "It is broken", "INC", f"t.py::test_{number}", (), (), (), "")


CATALOGUE = Catalogue((_erratum(1), _erratum(2)), "tests/errata")


def _row(release: str, *seen: Seen | None) -> Measured:
    findings = {e.id: Finding(s, "") for e, s in zip(CATALOGUE, seen, strict=True)}
    return Measured(release, f"{release}-1", f"{release}+fake", findings)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Each finding comes back; an erratum that the file does not know is not decided."""
    rows = [_row("6.1.2", Seen.PRESENT, Seen.ABSENT), _row("6.12.3", Seen.NOT_APPLICABLE, None)]
    path = tmp_path / "table.json"
    path.write_text(record.render(CATALOGUE, list(reversed(rows))))
    assert rows == record.read(path, CATALOGUE)
    more = Catalogue((*CATALOGUE.errata, _erratum(3)))
    assert [None, None] == [row.findings["X-003"].seen for row in record.read(path, more)]
    assert [] == record.read(tmp_path / "none.json", CATALOGUE)


def test_new_measurement_stands_above_the_record() -> None:
    """What was decided now counts, what was not leaves the record, other releases stay."""
    old = [_row("6.1.2", Seen.PRESENT, Seen.ABSENT), _row("6.6.1", Seen.ABSENT, Seen.ABSENT)]
    new = [_row("6.1.2", None, Seen.PRESENT), _row("6.2.1", Seen.ABSENT, None)]
    assert [
        _row("6.1.2", Seen.PRESENT, Seen.PRESENT),
        _row("6.2.1", Seen.ABSENT, None),
        _row("6.6.1", Seen.ABSENT, Seen.ABSENT),
    ] == record.merged(old, new)


def test_page_tells_kernels_built_from_source_from_released_ones() -> None:
    """One that the lab built, and one of a file, are no releases that somebody else can have."""
    findings = _row("6.1.2", Seen.ABSENT, Seen.ABSENT).findings
    rows = [
        Measured("6.1.2", package, f"{package}+fake", findings)
        for package in ("6.1.2-1", "local-115e719a86b6", "6.1.2-built.glgioaocmnce")
    ]
    page = table.render(CATALOGUE, rows)
    own = [line for line in page.splitlines() if line.startswith("| 6.1.2 (")]
    assert [False, True, True] == sorted("+fake, built from source)" in line for line in own)
    assert "| 6.1.2 (6.1.2-1+fake) |" in page


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no table of errata"),
        ('{"version": 2}', "is of version 2, read is 1"),
        ('{"version": 1, "releases": [{}]}', "is no table of errata: KeyError"),
        ('{"version": 1, "releases": [7]}', "is no table of errata: TypeError"),
    ],
)
def test_file_that_is_no_table(tmp_path: Path, text: str, sentence: str) -> None:
    """A table that cannot be read is not written over with what is left of it."""
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(LabError, match=sentence):
        record.read(path, CATALOGUE)


def test_table_page_and_lists_say_the_same() -> None:
    """The files of this repository: docs/errata.md is the page of the table, the table is as it
    would be written, and errata.toml lists what it says of each release."""
    catalogue = of(PROJECT)
    rows = record.read(TABLE, catalogue)
    assert len(rows) >= 79
    assert record.render(catalogue, rows) == TABLE.read_text()
    assert PROJECT.errata is not None
    page = table.render(catalogue, rows, table=PROJECT.errata.table)
    assert page == (ROOT / PROJECT.errata.page).read_text()
    assert [] == [str(one) for one in lists.differences(catalogue, rows)]


def test_table_is_as_its_schema_says() -> None:
    """docs/errata.json is the table that ioxide ships, and docs/errata.schema.json describes it."""
    shown = ROOT / "docs/errata.json"
    assert shown.resolve() == TABLE
    schema = json.loads((ROOT / "docs/errata.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    whole = json.loads(shown.read_text())
    jsonschema.validate(whole, schema)
    ids = [entry["id"] for entry in whole["errata"]]
    assert all(sorted(row["found"]) == sorted(ids) for row in whole["releases"])
    whole["releases"][0]["found"]["IOX-ERR-001"] = "perhaps"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, schema)
