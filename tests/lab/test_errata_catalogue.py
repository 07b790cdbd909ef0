# SPDX-License-Identifier: MIT
"""errata.toml: what its loader refuses, and that the reproducers it names are there."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ioxide._errata import every
from lab import project
from lab.errors import LabError
from lab.rules.errata import Catalogue, Erratum, of, read

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
REPRODUCERS = "tests/kernel_gated/errata"
NODE = f"{REPRODUCERS}/test_errata_it.py::test_it"
GOOD = {
    "id": '"IOX-ERR-001"',
    "title": '"It is broken"',
    "capability": '"BUNDLE"',
    "reproducer": f'"{NODE}"',
    "known_bad": '["6.18.15", "6.12.94-1~bpo12+1"]',
    "known_good": '["6.12.94", "7.3.4"]',
    "links": '["https://example.org/1"]',
}


@pytest.fixture
def catalogue(tmp_path: Path) -> Callable[..., Catalogue]:
    """Reads a catalogue of one entry with some fields replaced; None leaves one out."""

    def load(text: str = "", **fields: str | None) -> Catalogue:
        chosen = {name: value for name, value in (GOOD | fields).items() if value is not None}
        entry = "".join(f"{name} = {value}\n" for name, value in chosen.items())
        path = tmp_path / "errata.toml"
        path.write_text(text or f"[[erratum]]\n{entry}")
        read.cache_clear()
        return read(path, REPRODUCERS)

    return load


def test_entry_is_read(catalogue: Callable[..., Catalogue]) -> None:
    """Every field arrives, and the entry is found by its id and by its reproducer."""
    found = catalogue()
    erratum = found.get("IOX-ERR-001")
    assert erratum == Erratum(
        id="IOX-ERR-001",
        title="It is broken",
        capability="BUNDLE",
        reproducer=NODE,
        known_bad=("6.18.15", "6.12.94-1~bpo12+1"),
        known_good=("6.12.94", "7.3.4"),
        links=("https://example.org/1",),
        reported="",
    )
    assert erratum is found.reproduced_by(NODE)
    assert found.get("IOX-ERR-002") is None
    assert found.reproduced_by("tests/test_other.py::test_it") is None


@pytest.mark.parametrize(
    ("upstream", "package", "expected"),
    [
        ("6.18.15", "6.18.15-1", True),
        ("7.3.4", "7.3.4-1", False),
        ("6.12.94", "6.12.94-1", False),
        ("6.12.94", "6.12.94-1~bpo12+1", True),
        ("6.18.16", "6.18.16-1", None),
        ("", "", None),
    ],
)
def test_package_counts_before_upstream(
    catalogue: Callable[..., Catalogue], upstream: str, package: str, expected: bool | None
) -> None:
    """A release is bad, good or unlisted; a packaging of its own entry outweighs its version."""
    erratum = catalogue().get("IOX-ERR-001")
    assert erratum is not None
    assert expected is erratum.expected(upstream, package)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("id", '"ERR-1"', "id is 'ERR-1', expected one like 'ABC-ERR-001'"),
        ("id", None, "id is None, expected a text"),
        ("title", '"  "', "title is '  ', expected a text"),
        ("capability", '"bundle"', "capability is 'bundle', expected one like 'BUNDLE'"),
        ("reproducer", '"tests/smoke/test_x.py::test_y"', "reproducer is 'tests/smoke/test_x.py"),
        ("known_bad", '["6.18.x"]', "known_bad has '6.18.x', expected an upstream version"),
        ("known_bad", '"6.18.15"', "known_bad is '6.18.15', expected a list of texts"),
        ("known_good", "[7.3]", "known_good is [7.3], expected a list of texts"),
        ("known_good", '["6.18.15"]', "6.18.15 is in known_bad and in known_good"),
        ("links", '["a", "a"]', "links has 'a' more than once"),
        ("splat", '"(kbuf"', "splat is '(kbuf', no regular expression"),
        ("fixed_in", '"7.0"', "unknown field 'fixed_in'"),
    ],
)
def test_wrong_value_is_named(
    catalogue: Callable[..., Catalogue], field: str, value: str | None, sentence: str
) -> None:
    """A field that cannot be meant is refused, with its entry, its value and what was expected."""
    with pytest.raises(LabError) as caught:
        catalogue(**{field: value})
    assert "errata.toml, erratum 1" in str(caught.value)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[erratum\n", "cannot be read"),
        ("[errata]\n", "unknown table 'errata'"),
        ("erratum = 7\n", "write [[erratum]]"),
    ],
)
def test_file_that_is_no_catalogue(
    catalogue: Callable[..., Catalogue], text: str, sentence: str
) -> None:
    """A file of another shape is refused with a sentence."""
    with pytest.raises(LabError, match=r"errata\.toml") as caught:
        catalogue(text)
    assert sentence in str(caught.value)


def test_two_entries_may_not_share(catalogue: Callable[..., Catalogue]) -> None:
    """An id, and a reproducer, belong to one erratum."""
    entry = "[[erratum]]\n" + "".join(f"{name} = {value}\n" for name, value in GOOD.items())
    with pytest.raises(LabError, match="the id 'IOX-ERR-001' occurs more than once"):
        catalogue(entry * 2)
    with pytest.raises(LabError, match=r"the reproducer '.*::test_it' occurs more than once"):
        catalogue(entry + entry.replace("IOX-ERR-001", "IOX-ERR-002"))


def _raised(function: Callable[[], None]) -> set[str]:
    """The ids a function raises ErratumPresent with."""
    return {
        str(node.args[0].value)
        for node in ast.walk(ast.parse(inspect.getsource(function)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "ErratumPresent"
        and isinstance(node.args[0], ast.Constant)
    }


def test_every_reproducer_raises_its_own_id() -> None:
    """The project's own catalogue, its tests and the programs that ioxide ships agree: each entry
    has a reproducer that raises its id, no other function raises any, and each is run by the test
    of its name, which takes no fixture, for a sweep runs it without pytest."""
    read.cache_clear()
    wanted = {erratum.id: erratum.reproducer for erratum in of(project.read(ROOT))}
    found = {}
    for module in every.MODULES:
        short = module.__name__.rpartition(".")[2]
        test = importlib.import_module(f"tests.kernel_gated.errata.test_errata_{short}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and (ids := _raised(function)):
                assert len(ids) == 1, f"{name} raises {ids}"
                (id,) = ids
                assert every.REPRODUCERS[id].run is function, f"{name} raises {id}"
                found[id] = f"{REPRODUCERS}/test_errata_{short}.py::test_{name}"
                run = inspect.getsource(getattr(test, f"test_{name}"))
                assert f"def test_{name}() -> None:" in run
                assert run.endswith(f"    {short}.{name}()\n"), run
    assert wanted == found
    raising = [p for p in (ROOT / "ioxide/_errata").glob("*.py") if "raise Err" in p.read_text()]
    assert {path.stem for path in raising} == {m.__name__.rpartition(".")[2] for m in every.MODULES}


def test_whole_complaint_of_a_list_is_its_erratum() -> None:
    """IOX-ERR-032: each line of what kernels say, one of which would be a fault of the sweep."""
    (one,) = (erratum for erratum in of(project.read(ROOT)) if erratum.id == "IOX-ERR-032")
    said = [
        "list_add corruption. next->prev should be prev (ffff888004a018c0), but was 0000.",
        "kernel BUG at lib/list_debug.c:29!",
        "Oops: invalid opcode: 0000 [#1] SMP NOPTI",
        "BUG: unable to handle page fault for address: 0000000000003540",  # 6.10.0
        "Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI",
    ]
    assert [True] * 5 == [one.complained(line) for line in said]
    assert not one.complained("Oops: general protection fault, 0000 [#1] SMP NOPTI")


def test_every_capability_is_one_of_the_probe() -> None:
    """An erratum spoils a capability that the probe knows, or what every io_uring has."""
    from ioxide import Capability

    read.cache_clear()
    for erratum in of(project.read(ROOT)):
        assert erratum.capability in [*Capability, "IO_URING"], erratum.id


@pytest.mark.parametrize(
    ("chosen", "left"), [((), 0), (("--lab-guest",), 1), (("--lab-kernel=6.12",), 1)]
)
def test_reproducer_that_harms_is_for_guests(chosen: tuple[str, ...], left: int) -> None:
    """One that a bad kernel suffers of is no test of a run on the machine itself."""
    from tests.kernel_gated.errata import conftest

    harmful = {f"test_{one.run.__name__}" for one in every.REPRODUCERS.values() if one.harm}
    assert harmful == {
        "test_file_of_a_nop",
        "test_entry_that_is_overwritten",
        "test_group_that_becomes_a_ring",
    }
    items = [SimpleNamespace(name="test_entry_that_is_overwritten"), SimpleNamespace(name="test_x")]
    options: dict[str, object] = {"lab_guest": False, "lab_kernel": None}
    for option in chosen:
        name, _, value = option.removeprefix("--").replace("-", "_").partition("=")
        options[name] = [value] if value else True
    gone: list[object] = []
    config = SimpleNamespace(
        getoption=options.__getitem__,
        hook=SimpleNamespace(pytest_deselected=lambda items: gone.extend(items)),
    )
    conftest.pytest_collection_modifyitems(config, items)  # type: ignore[arg-type]
    assert left == sum(item.name == "test_entry_that_is_overwritten" for item in items)
    assert (1 - left) == len(gone)
    assert items[-1].name == "test_x"


def test_kernel_is_asked_to_complain_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel says once is heard in each reproducer; one that has no debugfs is no fault."""
    from tests.kernel_gated import debugfs

    monkeypatch.setattr(debugfs, "ROOT", tmp_path)
    (tmp_path / "clear_warn_once").write_text("")
    debugfs.warn_again()
    assert "1" == (tmp_path / "clear_warn_once").read_text()
    monkeypatch.setattr(debugfs, "ROOT", tmp_path / "none")
    debugfs.warn_again()
