# SPDX-License-Identifier: MIT
"""kbuild: `make` in a kernel's sources, with everything that it writes elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import tools
from ..errors import LabError
from .progress import COMPILED, Progress

_FOREIGN = re.compile(
    # What make hands to a make below it, and what changes a kernel without being a part of its key.
    r"MAKEFLAGS|MFLAGS|MAKELEVEL|MAKEOVERRIDES|GNUMAKEFLAGS|MAKEFILES|KBUILD_.*|KCONFIG_.*|K[A-Z]*FLAGS"
    r"|[A-Z]*CFLAGS|[A-Z]*LDFLAGS|[A-Z]*CPPFLAGS|ARCH|SUBARCH|CROSS_COMPILE|LLVM.*|LOCALVERSION"
    r"|O|V|W|C|CHECK|CC|HOSTCC|LD|AS|INSTALL_.*|DEPMOD|REGENERATE_PARSERS|CPATH|C_INCLUDE_PATH"
)
_FULL = ("No space left on device", "Disk quota exceeded")
_WRONG = re.compile(r"(\berror\b|\*\*\*|undefined reference|fatal:)", re.IGNORECASE)
_MOST_WRONG = 400
_END_S = 3.0
WHEN = "Thu Jan  1 00:00:00 UTC 1970"


class BuildFailed(LabError):
    """These sources cannot be built so; others can, perhaps."""


@dataclass(frozen=True, slots=True)
class Kbuild:
    """A tree, and the directory of its object files."""

    tree: Path
    objects: Path
    log: Path
    """All that make said."""
    held: int
    """The descriptor of the lock. Whatever make starts has it, so the lock is held as long as one
    of them lives, even if this process is killed."""
    ccache: bool = False

    def ask(self, target: str) -> str:
        """The one line that `make -s TARGET` prints. Raises LabError."""
        done = subprocess.run(
            self._command(["-s", target], 1),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=_environment(),
            check=False,
        )
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise BuildFailed(f"make {target} in {self.tree} says no version: {said}")
        return lines[-1].strip()

    def make(self, words: Sequence[str], *, jobs: int, progress: Progress | None = None) -> int:
        """Run make; how many files it compiled. Raises LabError with what it complained of."""
        compiled = 0
        wrong: list[str] = []
        last = ""
        process = subprocess.Popen(
            self._command(words, jobs),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            text=True,
            errors="replace",
            pass_fds=(self.held,),
            # A Ctrl-C reaches this process alone, which ends make and all that it started. A
            # session of its own would be scheduled by itself, whatever its nice value (autogroup).
            process_group=0,
        )
        assert process.stdout is not None
        try:
            with self.log.open("a") as log:
                log.write(f"$ make {' '.join(words)}\n")
                for line in process.stdout:
                    log.write(line)
                    last = line.strip() or last
                    if match := COMPILED.match(line):
                        compiled += 1
                        if progress is not None:
                            progress.compiled(compiled, match[1].removeprefix(f"{self.objects}/"))
                    elif len(wrong) < _MOST_WRONG and _WRONG.search(line):
                        wrong.append(line.strip())
            status = process.wait()
        finally:
            _end(process)
        if status:
            raise self._failed(words, status, wrong, last)
        return compiled

    def _command(self, words: Sequence[str], jobs: int) -> list[str]:
        make = [str(tools.find("make")), "-C", str(self.tree), f"O={self.objects}", f"-j{jobs}"]
        # Set, though empty: without it a tree in git has a plus behind its version.
        make += ["LOCALVERSION=", f"CC={'ccache gcc' if self.ccache else 'gcc'}"]
        setpriv = shutil.which("setpriv")
        first = [setpriv, "--pdeathsig", "TERM"] if setpriv is not None else []
        return [*first, *make, *words]

    def _failed(self, words: Sequence[str], status: int, wrong: list[str], last: str) -> LabError:
        if any(text in line for line in (*wrong, last) for text in _FULL):
            return full(self.objects)
        # "make: *** [...] Error 2" says where, the first complaint says what.
        first = next((line for line in wrong if "***" not in line), (wrong or [last])[0])
        return BuildFailed(
            f"make {words[-1]} ended with status {status}: {first or 'it said nothing'}",
            hint=f"{self.log} has all that it said; the same command goes on from there",
        )


def full(place: Path) -> LabError:
    """What is said of a disk that is full."""
    free = 0
    with suppress(OSError):
        free = shutil.disk_usage(place).free
    return LabError(
        f"the disk of the lab's cache is full, {free / 1e6:.0f} MB are free at {place}",
        hint="a build takes up to 4 GB: make room, with `lab kernels prune` perhaps, and the same"
        " command goes on; LAB_CACHE names another place",
    )


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in tools.environment().items() if not _FOREIGN.fullmatch(k)}
    return {
        **kept,
        # Two builds of one tree are to be the same bytes.
        "KBUILD_BUILD_TIMESTAMP": WHEN,
        "KBUILD_BUILD_USER": "lab",
        "KBUILD_BUILD_HOST": "lab",
        "KBUILD_BUILD_VERSION": "1",
        # Scripts of the tree would leave their bytecode in it (6.13).
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin{os.pathsep}/sbin",
    }


def _end(process: subprocess.Popen[str]) -> None:
    """End make and all that it started."""
    if process.poll() is None:
        # make takes away what it has half written (GNU make manual, "Interrupts").
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
