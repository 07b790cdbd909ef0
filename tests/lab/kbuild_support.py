# SPDX-License-Identifier: MIT
"""A tree that builds as a kernel does, in a second: a Makefile with kbuild's targets, a few files
in C, and a configuration in which symbols depend on others."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab import arch, cache
from lab.building import equipment
from lab.cli import main
from lab.kernels import built, choice, lock
from lab.kernels.debian import Debian
from lab.kernels.mainline import Mainline
from tests.lab.test_kernels_store import ELF, bz_image, gzipped

_FRAGMENTS = Path(__file__).parents[2] / "lab/building"
_TEXT = 0x300
"""Where the image has its version, behind the header's fields."""

MAKEFILE = """\
# what the tests count: each make that reads this
$(shell echo $(MAKECMDGOALS) >> $${{FAKE_CALLS:-/dev/null}})
VERSION = {version}
local := $(shell sed -n 's/^CONFIG_LOCALVERSION="\\(.*\\)"/\\1/p' $(O)/.config 2>/dev/null)
release := $(VERSION)$(local)
parts := init/main kernel/fork kernel/last
objects := $(parts:%=$(O)/%.o)

kernelversion:
	@echo $(VERSION)
kernelrelease:
	@echo $(release)
defconfig:
	@cp arch/x86/configs/defconfig $(O)/.config
olddefconfig:
	@{python} scripts/conf.py Kconfig $(O)/.config $(O)/auto.conf
$(O)/kernel/last.o: $(O)/init/main.o $(O)/kernel/fork.o
$(O)/%.o: %.c $(O)/auto.conf
	@mkdir -p $(@D)
	@echo '  CC      $*.o'
	@if [ $* = kernel/last ]; then eval "$$FAKE_DURING"; fi
	@$(CC) -c -o $@ $<
bzImage: $(objects)
	@mkdir -p $(O)/arch/x86/boot
	@{python} scripts/image.py head.bin $(release) $(O)/arch/x86/boot/bzImage $(objects)
modules: $(O)/drivers/mod.ko
$(O)/drivers/mod.ko: drivers/mod.c $(O)/auto.conf $(objects)
	@mkdir -p $(@D)
	@echo '  CC [M]  drivers/mod.o'
	@$(CC) -c -o $@ $<
modules_install:
	@mkdir -p $(INSTALL_MOD_PATH)/lib/modules/$(release)/kernel
	@cp $(O)/drivers/mod.ko $(INSTALL_MOD_PATH)/lib/modules/$(release)/kernel
	@echo 'strip=$(INSTALL_MOD_STRIP)' > $(INSTALL_MOD_PATH)/lib/modules/$(release)/modules.order
	@touch $(INSTALL_MOD_PATH)/lib/modules/$(release)/modules.builtin
	@ln -s $(O) $(INSTALL_MOD_PATH)/lib/modules/$(release)/build
"""

CONF = '''\
"""olddefconfig: of what is set only what the Kconfig has and whose dependencies are met."""
import re, sys

kconfig = open(sys.argv[1]).read()
rules = {}
for block in kconfig.split("\\nconfig ")[1:]:
    name = block.split()[0]
    rules[name] = re.findall(r"depends on (\\w+)$", block, re.M)
rules["INNER"] = ["OUTER"]
found = {}
for line in open(sys.argv[2]):
    if match := re.match(r"CONFIG_(\\w+)=(.*)", line):
        found[match[1]] = match[2]
    elif match := re.match(r"# CONFIG_(\\w+) is not set", line):
        found[match[1]] = "n"
found = {k: v for k, v in found.items() if k in rules and v != "n"}
while lost := [k for k in found if any(d not in found for d in rules[k])]:
    for name in lost:
        del found[name]
text = "".join(f"CONFIG_{k}={v}\\n" for k, v in found.items())
open(sys.argv[2], "w").write(text)
# As kbuild does: what is compiled depends on symbols that have changed, not on the file.
try:
    same = open(sys.argv[3]).read() == text
except FileNotFoundError:
    same = False
if not same:
    open(sys.argv[3], "w").write(text)
'''

IMAGE = """\
import gzip, pathlib, struct, sys

head, release, image, *objects = sys.argv[1:]
data = bytearray(pathlib.Path(head).read_bytes())
state = pathlib.Path("state").read_text().strip() if pathlib.Path("state").exists() else ""
text = f"{release} (a fake) {state}".encode() + b"\\0"
data[0x300 : 0x300 + len(text)] = text
pathlib.Path(image).write_bytes(data)
"""


def make_tree(root: Path, version: str = "6.10.0") -> Path:
    """A fake kernel's sources in the new directory `root`."""
    for name in ("init", "kernel", "drivers", "scripts", "arch/x86/configs"):
        (root / name).mkdir(parents=True)
    (root / "Makefile").write_text(MAKEFILE.format(version=version, python=sys.executable))
    (root / "scripts/conf.py").write_text(CONF)
    (root / "scripts/image.py").write_text(IMAGE)
    for name in ("init/main", "kernel/fork", "kernel/last", "drivers/mod"):
        (root / f"{name}.c").write_text(f"int {name.replace('/', '_')} = 1;\n")
    image = bytearray(bz_image(gzipped(ELF)))
    struct.pack_into("<H", image, 0x20E, _TEXT - 0x200)
    (root / "head.bin").write_bytes(image)
    lines = [(_FRAGMENTS / name).read_text() for name in ("lab.config", "debug.config")]
    names = re.findall(r"^(?:# )?CONFIG_(\w+)", "\n".join([*lines, *arch.here().kconfig]), re.M)
    names += ["LOCALVERSION", "DEBUG_INFO_NONE", "DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT", "PARENT"]
    kconfig = "".join(f'config {name}\n\tbool "it"\n' for name in dict.fromkeys(names))
    kconfig += 'config CHILD\n\tbool "it"\n\tdepends on PARENT\n\tdepends on IO_URING\n'
    kconfig += """
menuconfig OUTER
\tbool "it"
if OUTER && NET
config INNER
\tbool "it"
\tdepends on PARENT || IPV6
endif
config HIDDEN
\tbool
\thelp
\t  depends on nothing
config LONELY
\tbool "it"
\tdepends on OUTER
"""
    (root / "Kconfig").write_text(f"# all of it\n{kconfig}")
    (root / "arch/x86/configs/defconfig").write_text("CONFIG_NET=y\nCONFIG_UNKNOWN=y\n")
    return root


def git(directory: Path, *words: str, stdin: str = "") -> str:
    """Run git as somebody else would, whatever this user has set."""
    return subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=e@x", "-C", directory, *words],
        check=True,
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"},
    ).stdout.strip()


def commit(tree: Path, tag: str) -> str:
    """Commit everything in `tree`, a repository from now on, and tag it; the commit."""
    if not (tree / ".git").exists():
        git(tree, "init", "-q", "-b", "main")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", tag)
    git(tree, "tag", tag)
    return git(tree, "rev-parse", "HEAD")


def snapshot(directory: Path) -> Mapping[str, tuple[bytes, int]]:
    """Every file below a directory: bytes and time of its last change."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


def lab_process(words: list[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    """`lab` as a process of its own, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lab", *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


WHOLE = 4
"""How many files a build of all compiles."""


@pytest.fixture(name="calls")
def calls_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a machine with all that a build takes, and calls of make counted."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAB_KERNEL_DIR", raising=False)
    monkeypatch.delenv("FAKE_DURING", raising=False)
    monkeypatch.setattr(choice, "_RESOLVED", {})
    monkeypatch.setattr(lock, "LOCK", None)
    monkeypatch.setattr(equipment, "check", lambda: None)
    for kind in (Debian, Mainline):
        monkeypatch.setattr(kind, "listing", lambda _, **__: ())
        monkeypatch.setattr(kind, "matching", lambda *_, **__: ())
    counted = tmp_path / "calls"
    counted.touch()
    monkeypatch.setenv("FAKE_CALLS", str(counted))
    return counted


@pytest.fixture(name="tree")
def tree_fixture(tmp_path: Path, calls: Path) -> Path:
    """A fake kernel's sources."""
    del calls
    return make_tree(tmp_path / "linux")


def build(*words: str | Path) -> int:
    """The exit code of `lab kernels build`."""
    return main(["kernels", "build", *map(str, words)])


def compiled() -> int:
    """How many files the last build compiled, by make's own output."""
    logs = [p for p in cache.root().glob("building/*/objects-*.log") if p.stat().st_size]
    return len(re.findall(r"^  CC ", max(logs, key=os.path.getmtime).read_text(), re.M))


def nothing_built() -> bool:
    """Whether no kernel came of it, not even a part of one in a place of the cache."""
    root = cache.root()
    return not built.records() and not any(
        path for name in ("built", "packages", "kernels") for path in root.glob(f"{name}/*")
    )
