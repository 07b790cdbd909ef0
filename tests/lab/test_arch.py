# SPDX-License-Identifier: MIT
"""One file knows one kind of machine; all others ask it."""

from __future__ import annotations

import ast
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import arch
from lab.errors import LabError, MissingTool
from lab.vm import NetworkPair
from lab.vm.qemu import program

pytestmark = pytest.mark.lab

LAB = Path(arch.__file__).parents[1]
OWN = re.compile(r"x86|amd64|\bq35\b|microvm|ttyS\d|cx16|bzImage|\bpvh\b", re.IGNORECASE)


def words(source: str) -> Iterator[tuple[int, str]]:
    """The texts and names in a module, without its docstrings."""
    tree = ast.parse(source)
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.lineno, node.value
        elif isinstance(node, ast.Name | ast.Attribute):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


def test_no_other_file_knows_the_machine() -> None:
    """What is x86-64's stands in its file alone, but for where it is constructed."""
    allowed = {"arch/x86_64.py", "arch/__init__.py"}
    found = [
        f"{path.relative_to(LAB)}:{line}: {word}"
        for path in LAB.rglob("*.py")
        if path.relative_to(LAB).as_posix() not in allowed
        for line, word in words(path.read_text())
        if OWN.search(word)
    ]
    assert found == []
    for path in (LAB / "kernels/kernels.toml", LAB / "vm/inguest/init", LAB / "vm/inguest/pid1"):
        assert OWN.search(path.read_text()) is None, path


def test_a_bus_without_boot_roms_is_told_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU refuses the property where the device has none; arm64's `virt` has virtio-mmio."""
    assert "romfile=" in " ".join(NetworkPair().arguments())
    monkeypatch.setattr(type(arch.here()), "transport", "device")
    words = NetworkPair().arguments()
    assert "virtio-net-device,netdev=left" in words
    assert "romfile" not in " ".join(words)


def test_qemus_package_is_told_by_each_distributions_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """They need not call it alike."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(type(arch.here()), "qemu_fedora", "that-of-fedora")
    with pytest.raises(MissingTool) as caught:
        program()
    assert str(caught.value).endswith("; on Fedora dnf install that-of-fedora)")


def test_a_machine_that_the_lab_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no guests there, and the sentence says where there are."""
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(LabError) as caught:
        arch.here()
    known = ", ".join(one.name for one in arch.KNOWN)
    assert str(caught.value) == (
        f"the lab boots no guests on a machine of the kind riscv64 (it knows {known})"
    )
    assert "x86_64" in known
