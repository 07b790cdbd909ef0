# SPDX-License-Identifier: MIT
"""`lab probe`: what was seen is kept per kernel and probe, and shown side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab import cache, vm
from lab.cli import main
from lab.commands import probe
from lab.errata import store
from lab.errors import GuestLost, LabError
from lab.facts.probed import Finding, Probed
from lab.kernels import Kernel
from lab.project import Project
from lab.vm import Launcher
from lab.wishes import Wishes

pytestmark = pytest.mark.lab
IN_GUEST = probe._in_guest
KERNEL = Kernel("6.12", "6.12.107", "6.12.107-1", "6.12.107+x", "t", locked=True, verified_by="t")


def report(release: str, facts: Mapping[str, str], **seen: bool | None) -> Probed:
    """A probe that has seen this."""
    findings: Mapping[str, Finding] = {
        name: Finding(declared=True, accepted=None, observed=value, evidence={}, note="")
        for name, value in seen.items()
    }
    return Probed(release=release, error=None, findings=findings, facts=facts)


@pytest.fixture(autouse=True)
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Guests that answer at once; returns which kernels were booted."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    booted: list[str] = []

    def in_guest(kernel: Kernel, _project: Project, tar: bytes) -> Probed:
        assert len(tar) > 0
        booted.append(kernel.series)
        new = kernel.series != "6.1"
        facts = {"setup.SQPOLL": "yes", "setup.NO_SQARRAY": "yes" if new else "EINVAL"}
        facts |= {"opcode.BIND": "yes"} if new else {}
        return report(kernel.release, facts, BUNDLE=new, SEND_ZC=True, NAPI=None)

    monkeypatch.setattr(probe, "_in_guest", in_guest)
    return booted


def test_kernels_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    """A column a kernel; --diff leaves out what is the same and counts it; what was only declared
    is not taken for seen."""
    assert 0 == main(["probe", "--kernel", "6.1", "--kernel", "6.12"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["BUNDLE", "no", "yes"] in rows
    assert ["SEND_ZC", "yes", "yes"] in rows
    assert ["NAPI", "(declared)", "(declared)"] in rows
    assert ["setup.SQPOLL", "yes", "yes"] in rows
    assert 0 == main(["probe", "--kernel", "6.1", "--kernel", "6.12", "--diff"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["BUNDLE", "no", "yes"] == rows[1]
    assert ["setup.NO_SQARRAY", "EINVAL", "yes"] == rows[2]
    assert ["opcode.BIND", "unknown", "yes"] == rows[3]
    assert ["the", "same", "on", "all:", "3", "of", "6"] == rows[4]
    assert 5 == len(rows)


def test_a_kernel_is_probed_once(guests: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What this very probe has seen on this very kernel is kept as JSON; --fresh looks again."""
    assert 0 == main(["probe", "--kernel", "6.12"])
    assert 0 == main(["probe", "--kernel", "6.12"])
    assert ["6.12"] == guests
    (kept,) = cache.root().glob("probes/6.12*.json")
    assert json.loads(kept.read_text())["capabilities"]["BUNDLE"]["observed"]
    assert "yes" == json.loads(kept.read_text())["facts"]["opcode.BIND"]
    kept.write_text("{")
    assert 0 == main(["probe", "--kernel", "6.12"])
    assert 0 == main(["probe", "--kernel", "6.12", "--fresh"])
    assert ["6.12"] * 3 == guests
    capsys.readouterr()
    assert 0 == main(["probe", "--kernel", "6.12", "--json"])
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["release"].startswith("6.12.")


def test_a_probe_that_could_not_be_made_is_no_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown kernel: 2. Lost guest: 3. Nothing on standard output in either case."""

    def lost(kernel: Kernel, _project: Project, tar: bytes) -> Probed:
        raise GuestLost(f"{kernel.series} died with {len(tar)} bytes")

    monkeypatch.setattr(probe, "_in_guest", lost)
    assert 2 == main(["probe", "--kernel", "nonsense"])
    assert 3 == main(["probe", "--kernel", "6.12"])
    shown = capsys.readouterr()
    assert "" == shown.out
    assert "6.12 died" in shown.err


def test_who_asks_the_kernel_gets_a_guest_as_the_table_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A module that the table names is there for `lab probe` and for a sweep of errata too."""
    asked = []

    class Pad:
        def __init__(self, _kernel: Kernel, _launcher: Launcher, *, wishes: Wishes, **_: Any):
            asked.append(wishes)
            raise LabError("no guest boots here")

    monkeypatch.setattr(vm, "Launchpad", Pad)
    monkeypatch.setattr(store, "Launchpad", Pad)
    project = Project(tmp_path, guest=Wishes(modules=("veth",)))
    with pytest.raises(LabError, match="no guest boots here"):
        IN_GUEST(KERNEL, project, b"")
    with pytest.raises(LabError, match="no guest boots here"):
        store.Cellar(project).guests(KERNEL)
    assert [project.guest, project.guest] == asked
