# SPDX-License-Identifier: MIT
"""A guest for a command: kernel fetched, root built, accelerator chosen, booted."""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path

from .. import vm
from ..errors import LabError, UsageError
from ..kernels import Kernel
from ..project import Project
from ..remote import sending
from ..wishes import Wishes

_PLACE = "/lab/packages"
"""Where in a guest the repository is."""
NO_WISHES = Wishes()
_THE_GUESTS_OWN = ("/dev", "/proc", "/run", "/sys")


def say(text: str) -> None:
    """A line of the lab's own, on standard error: standard output is the command's."""
    with suppress(OSError):  # a terminal that is gone; the exit status tells all the same
        print(f"lab: {text}", file=sys.stderr, flush=True)


@contextmanager
def guest(
    kernel: Kernel,
    *,
    launcher: vm.Launcher = vm.USUAL,
    results: Path | None = None,
    wishes: Wishes = NO_WISHES,
    copies: Sequence[Path] = (),
    project: Project | None = None,
) -> Iterator[vm.Guest]:
    """A booted guest with `copies` (files or directories of the host) in it at the same paths,
    for it to write on, and with what travels of a repository.

    Its logs go to `results`, or are gone with it. Raises LabError.
    """
    with ExitStack() as stack:
        if results is None:
            temporary = tempfile.TemporaryDirectory(prefix="lab-run-")
            results = Path(stack.enter_context(temporary))
        else:
            try:
                results.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LabError(
                    f"the guest's logs cannot be written to {results}: {error.strerror}",
                    hint="name another directory with --results",
                ) from error
        pad = vm.Launchpad(
            launcher.bootable(kernel),
            launcher,
            wishes=wishes,
            writable=[path for path in copies if path.is_dir()],
        )
        files, accel = pad.prepare(results)
        told = (str(files.kernel), str(accel.kind), launcher.words, str(wishes))
        say(", ".join(filter(None, told)))
        booted = stack.enter_context(pad.boot(results))
        if not launcher.has_our_files:
            for path in copies:
                booted.push_tree(packed(path), "/")
            if project is not None:
                booted.push_tree(sending.of(project).pack(), _PLACE)
        yield booted


def python_environment(launcher: vm.Launcher, project: Project) -> dict[str, str]:
    """What lets a command in a guest find `python3`, the programs of this environment, and the
    repository's modules."""
    programs = dict.fromkeys(f"{prefix}/bin" for prefix in (sys.prefix, sys.base_prefix))
    own = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    place = str(project.root) if launcher.has_our_files else _PLACE
    found = f"{place}{os.pathsep}{sending.search_path(project, place)}"
    return {"PATH": ":".join((*programs, own)), "PYTHONPATH": found}


def checked(path: Path) -> Path:
    """The absolute path of something to copy into a guest. Raises UsageError if it cannot be."""
    if not path.exists():
        raise UsageError(f"--copy {path}: there is no such file or directory")
    whole = Path(os.path.abspath(path))  # noqa: PTH100  (links stay what the command line says)
    own = [top for top in _THE_GUESTS_OWN if whole.is_relative_to(top)]
    if own or whole == Path("/"):
        raise UsageError(f"--copy {path}: a guest has a {own[0] if own else '/'} of its own")
    return whole


def packed(path: Path) -> bytes:
    """A tar, relative to /, of a file or of all below a directory."""
    archive = BytesIO()
    # busybox (1.35), which unpacks it, passes over what PAX says of long names.
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(path, arcname=str(path).lstrip("/"), filter=_as_root)
    return archive.getvalue()


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    # There are no users of the host in a guest; and a socket or pipe is nothing without its peer.
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    plain = member.isreg() or member.isdir() or member.issym() or member.islnk()
    return member if plain else None
