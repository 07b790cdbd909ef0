# SPDX-License-Identifier: MIT
"""Mutants tried in a guest of the lab: built here, run there, on the kernel that was asked for.

Python and the environment in a guest are this very Python and its environment, so an extension
built here is what is loaded there.  What changes under a mutant is pushed into the guest's copy of
the tree: one file, or the extension.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lab import kernels, project, vm
from lab.errors import GuestLost
from lab.remote import sending
from lab.remote.losses import Gone, RunOver
from lab.remote.probing import probed
from lab.remote.process import PythonProcess, check_release
from tests.mutants.inguest import FROM_GUEST, Said, Told
from tests.mutants.table import Mutant, Table
from tests.mutants.trial import Limits, Trial
from tests.mutants.verdict import Verdict
from tests.mutants.workshop import PYTEST, Build, Run, Stopped, Workshop, outcomes_of

BASE = "/run/mutants"
_COMPARED = 8.0
"""Limits are generous here: a guest that is sixteen times slower gets twice as long."""
_AT_MOST = 6.0
"""A machine that is busy while the guest is measured makes it look a hundred times slower."""
_WIRE = ("__init__.py", "remote/__init__.py", "remote/wire.py")
_LEFT_OUT = {"build", ".git", ".ruff_cache", ".mypy_cache"}


class Patches:
    """What each mutant changes, built ahead of the guests that wait for it."""

    def __init__(self, shop: Workshop, table: Table) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._made: dict[str, Future[Mapping[str, bytes]]] = {
            mutant.id: self._pool.submit(shop.changed, mutant) for mutant in table.mutants
        }

    def of(self, mutant: Mutant) -> Mapping[str, bytes]:
        """The changed files; raises `Stale` or `BuildError`."""
        return self._made[mutant.id].result()

    def stop(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w:gz", format=tarfile.GNU_FORMAT, compresslevel=3
    ) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _whole(directory: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if path.is_file() and name.parts[0] not in _LEFT_OUT and "__pycache__" not in name.parts:
            found[f"tree/{name}"] = path.read_bytes()
    return found


_PROBE = sending.command(project.read(Path(__file__).parents[2]).probe)


class GuestShop:
    """A guest in which mutants are tried; one that dies costs the mutant that ran its verdict.

    Used by one thread at a time.
    """

    def __init__(
        self,
        kernel: kernels.Kernel,
        files: Mapping[str, bytes],
        patches: Patches,
        results: Path,
    ) -> None:
        self._kernel = kernel
        self._patches = patches
        self._results = results
        here = Path(__file__).parent
        lab = here.parents[1] / "lab"
        self._files = {
            **files,
            "inguest.py": (here / "inguest.py").read_bytes(),
            "plugins/mutants_recorder.py": (here / "recorder.py").read_bytes(),
            # What the process in the guest speaks by, apart from the tree that mutants spoil.
            **{f"wire/lab/{name}": (lab / name).read_bytes() for name in _WIRE},
        }
        self._patch: Mapping[str, bytes] = {}
        self._stopped = False
        self._up: tuple[vm.Guest, PythonProcess] | None = None
        self._stack = contextlib.ExitStack()

    def stop(self) -> None:
        """Refuse to run more. What runs ends with its guest, which ends with this process."""
        self._stopped = True

    def close(self) -> None:
        """End the guest, if one is up."""
        self._up = None
        self._stack.close()

    @contextlib.contextmanager
    def spoilt(self, mutant: Mutant) -> Iterator[None]:
        """What runs in here finds `mutant` in the tree. Raises `Stale` or `BuildError`."""
        self._patch = self._patches.of(mutant)
        try:
            yield
        finally:
            self._patch = {}

    def run(self, nodes: Sequence[str], *, limit: float, wait: float, each: float) -> Run:
        """As `Workshop.run`, in the guest."""
        if self._stopped:
            raise Stopped
        request = {
            "arguments": [*PYTEST, "--lab-slow"],
            "nodes": list(nodes),
            "limit": float(limit),
            "wait": float(wait),
            "each": float(each),
        }
        try:
            guest, process = self.boot()
            if self._patch:
                guest.push_tree(_tar(self._patch), f"{BASE}/patch")
            process.tell(Told.RUN, **request)
            answer = process.expect(Said.ANSWER, limit + 60)
        except GuestLost as error:
            self.close()
            return _lost(error.reason, error.console_tail)
        except (Gone, RunOver) as error:
            self.close()
            return _lost(str(error), error.tail)
        return Run(
            outcomes_of(answer["record"]),
            answer["killed"],
            answer["status"],
            answer["output"],
            answer["seconds"],
        )

    def boot(self) -> tuple[vm.Guest, PythonProcess]:
        """The guest and what waits in it for work, booted if there is none. Raises LabError.

        Called by a thread that lives as long as the guest is needed.
        """
        if self._up is None:
            # Not a directory of ours to tidy up: a lost guest's words stay for who looks for them.
            results = Path(tempfile.mkdtemp(dir=self._results))
            guest = self._stack.enter_context(vm.Launchpad(self._kernel).boot(results))
            check_release(guest)
            guest.push_tree(_tar(self._files), BASE)
            probe = json.dumps(probed(guest, _PROBE, cwd=f"{BASE}/tree").to_object()).encode()
            guest.push_tree(_tar({"probe.json": probe}), BASE)
            process = PythonProcess(
                guest,
                [f"{BASE}/inguest.py", f"{BASE}/probe.json"],
                name="process that tries mutants",
                kinds=FROM_GUEST,
                log=results / "mutants.log",
                cwd=BASE,
                environment={"PYTHONPATH": f"{BASE}/wire"},
            )
            self._up = guest, process
        return self._up


def _lost(why: str, tail: str) -> Run:
    return Run({}, True, 0, f"the guest was lost: {why}\n{tail}", 0.0)


def in_guests(
    name: str, table: Table, tree: Path, build: Build, limits: Limits, jobs: int
) -> list[Verdict]:
    """The verdicts of `jobs` guests with the kernel called `name`. Raises LabError."""
    kernels.lock.use(Path(__file__).parents[2] / "tests/kernels/kernels.lock")
    kernel = kernels.resolve(name)
    files = _whole(tree)
    patches = Patches(Workshop(tree, build), table)  # the copy of the tree is the builder's now
    with tempfile.TemporaryDirectory(prefix="ioxide-mutants-guest-") as results:
        shops = [GuestShop(kernel, files, patches, Path(results)) for _ in range(jobs)]
        try:
            guest, _ = shops[0].boot()
            factor = min(max(1.0, guest.slowdown / _COMPARED), _AT_MOST)
            print(
                f"{guest.uname}, {guest.accel.kind}, {guest.slowdown:.1f} times slower than here; "
                f"a test waits for {limits.times(factor).wait:g} s",
                flush=True,
            )
            return Trial(
                table, shops, limits=limits.times(factor), release=guest.uname, gated=True
            ).run()
        finally:
            patches.stop()
            for shop in shops:
                shop.close()
