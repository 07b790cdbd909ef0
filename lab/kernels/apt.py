# SPDX-License-Identifier: MIT
"""apt in a private root: signatures, proxies and mirrors are apt's work, the system is not touched.

The machine's own `Acquire` settings (proxies, certificates, credentials) are taken over; its
sources, pins, hooks and state are not.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .. import arch, cache, tools
from ..errors import KernelUnavailable
from .listing import kept_text
from .source import FileGone, SourceUnreachable

_HELPER = Path("/usr/lib/apt/apt-helper")
_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),  # its name from Debian 13 on
)
_SETTINGS, _LISTS = Path("/etc/apt"), Path("/var/lib/apt/lists")
"""Where apt has its sources, and their Release files, which name an archive."""
_TIMEOUT_S = 300.0
_VARIABLES = {"debian": "LAB_DEBIAN_MIRROR", "debian-security": "LAB_DEBIAN_SECURITY_MIRROR"}
_LABELS = {"debian": "Debian", "debian-security": "Debian-Security"}


def mirror(archive: str) -> str:
    """The mirror of an archive, "debian" or "debian-security".

    It is `$LAB_DEBIAN_MIRROR` or `$LAB_DEBIAN_SECURITY_MIRROR`, else the one this machine's apt is
    set up with. Security's, when nobody names it, is taken to stand beside Debian's. Raises
    KernelUnavailable when there is none.
    """
    if named := os.environ.get(_VARIABLES[archive]):
        return named.rstrip("/")
    main = os.environ.get(_VARIABLES["debian"], "")
    if not main or archive == "debian":
        targets = kept_text("mirrors", _stamps(), _targets)
        rows = [line.split("|", 2) for line in targets.splitlines() if line.startswith("Packages|")]
        # The label comes from the Release file, which a container may have thrown away; then the
        # path tells: every Debian mirror has its archive at .../debian, security is another one.
        for _, label, uri in rows:
            by_path = label in ("", "$(LABEL)") and uri.rstrip("/").endswith(f"/{archive}")
            if label == _LABELS[archive] or by_path:
                return uri.rstrip("/")
    if archive != "debian":
        main = (main or mirror("debian")).rstrip("/")
        if main.endswith("/debian"):
            return f"{main}-security"
    raise KernelUnavailable(
        f"this machine's apt knows no mirror of the archive {archive}",
        hint=f"set {_VARIABLES[archive]} to the address of one, the part before /dists",
    )


def _targets() -> str:
    return tools.run(
        ["apt-get", "indextargets", "--format", "$(CREATED_BY)|$(LABEL)|$(REPO_URI)"],
        what="asking apt for the machine's Debian mirror",
    )


def _stamps() -> list[object]:
    """What its answer follows from. Where settings lead apt elsewhere, its answer is as old as a
    listing may be."""
    settings = os.environ.get("APT_CONFIG", "")
    paths = [*sorted(_SETTINGS.rglob("*")), _SETTINGS, _LISTS, *([Path(settings)] * bool(settings))]
    found: list[object] = []
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            found.append([str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns])
    return found


def archive_of(suite: str) -> str:
    """The archive a suite is in."""
    return "debian-security" if suite.endswith("-security") else "debian"


def keyring() -> Path:
    """The Debian archive keyring. Raises KernelUnavailable naming its package."""
    for path in _KEYRINGS:
        if path.exists():
            return path
    raise KernelUnavailable(
        "the Debian archive keyring is not installed, so no signature can be checked",
        hint="apt-get install debian-archive-keyring",
    )


@dataclass(frozen=True, slots=True)
class Apt:
    """A private apt root for one suite of one mirror."""

    directory: Path
    mirror: str

    def _environment(self) -> Mapping[str, str]:
        return {
            **tools.environment(),
            "APT_CONFIG": str(self.directory / "apt.conf"),
        }

    def update(self) -> str:
        """Fetch the suite's metadata; apt checks the signature. Raises SourceUnreachable.

        Returns a reservation, mostly empty: a mirror that stands still serves metadata past its
        Valid-Until. That date guards against somebody who hides newer packages, and old releases
        are what the lab is after: the signature must hold, the date may be over, and it is said.
        """
        # Without --error-on=any apt-get update only warns about a mirror that does not answer.
        command = [str(tools.find("apt-get")), "-q", "update", "--error-on=any"]
        try:
            self._run(command)
        except SourceUnreachable as error:
            if " is expired " not in str(error):
                raise
            self._run([*command, "-o", "Acquire::Check-Valid-Until=false"])
            (release,) = (self.directory / "lists").glob("*Release")
            until = re.search(r"^Valid-Until: *(.*)$", release.read_text(), re.MULTILINE)
            return f", metadata past its date, {until[1] if until else 'unknown'}"
        return ""

    def packages(self, prefix: str) -> tuple[Mapping[str, str], ...]:
        """The fields of every package whose name starts with `prefix`, from signed metadata."""
        apt_cache = str(tools.find("apt-cache"))
        names = self._run([apt_cache, "pkgnames", prefix]).split()
        if not names:
            return ()
        stanzas = self._run([apt_cache, "show", *sorted(names)]).split("\n\n")
        return tuple(_fields(stanza) for stanza in stanzas if stanza.strip())

    def download(self, path: str, into: Path, sha256: str) -> None:
        """Fetch one file of the mirror; its hash is checked unless it is empty.

        Raises FileGone, SourceUnreachable.
        """
        if not _HELPER.exists():
            raise SourceUnreachable(f"{_HELPER} is missing; it comes in the package apt")
        # A literal plus in a URL is a space to some servers; apt itself quotes it the same way.
        uri = f"{self.mirror}/{path.replace('+', '%2b')}"
        # apt's method "file" leaves a file where it is; "copy" is the one that delivers it.
        uri = re.sub(r"^file:", "copy:", uri)
        check = [f"SHA256:{sha256}"] if sha256 else []
        self._run([str(_HELPER), "download-file", uri, str(into), *check])
        if not into.exists():
            raise SourceUnreachable(f"the mirror {_shown(self.mirror)} delivered nothing")

    def signed_by(self) -> str:
        """Fingerprints of the keys that signed the suite, if gpgv is there to tell them."""
        try:
            gpgv = str(tools.find("gpgv"))
            (release,) = (self.directory / "lists").glob("*InRelease")
        except Exception:  # apt has checked the signature already; this is for the record only
            return ""
        status = subprocess.run(
            [gpgv, "--status-fd", "1", "--keyring", str(keyring()), str(release)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        valid = [line.split() for line in status.splitlines() if " VALIDSIG " in line]
        return ", ".join(sorted({words[2] for words in valid}))

    def _run(self, command: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SourceUnreachable(
                f"the mirror {_shown(self.mirror)} did not deliver within {_TIMEOUT_S:g} s"
            ) from error
        if done.returncode == 0:
            return done.stdout
        complaints = [
            line.removeprefix("E: ").removeprefix("W: ").strip()
            for line in (done.stderr or done.stdout).splitlines()
            if line.startswith(("E: ", "W: ", "Err:"))
        ]
        sentence = "; ".join(dict.fromkeys(complaints[:3])) or f"status {done.returncode}"
        kind = FileGone if "404 " in done.stderr or "404 " in done.stdout else SourceUnreachable
        raise kind(f"the mirror {_shown(self.mirror)}: {_shown(sentence)}")


def _shown(text: str) -> str:
    """Addresses without the user and password a machine's sources may hold."""
    return re.sub(r"(\w+://)[^/\s@]*@", r"\1", text)


def _fields(stanza: str) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    for line in stanza.splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "\t")):
            fields[name] = value.strip()
    return fields


@contextmanager
def private_root(suite: str) -> Iterator[Apt]:
    """An apt root of its own for `suite`, gone when the block is left."""
    address = mirror(archive_of(suite))
    key, its = keyring(), arch.here().debian
    machine = tools.run(["apt-config", "dump"], what="reading the machine's apt configuration")
    acquire = [line for line in machine.splitlines() if line.startswith("Acquire::")]
    with cache.scratch() as directory:
        for name in ("lists/partial", "cache/archives/partial", "none", "etc"):
            (directory / name).mkdir(parents=True)
        (directory / "status").touch()
        (directory / "sources.list").write_text(
            # target=Packages: AppStream and translations would be a third of the download.
            f"deb [signed-by={key} arch={its} target=Packages lang=none] {address} {suite} main\n"
        )
        settings = [
            f'Dir "{directory}";',
            f'Dir::State "{directory}";',
            f'Dir::State::status "{directory}/status";',
            f'Dir::State::Lists "{directory}/lists/";',
            f'Dir::Cache "{directory}/cache/";',
            f'Dir::Etc "{directory}/etc/";',
            f'Dir::Etc::Main "{directory}/none/main";',
            f'Dir::Etc::Parts "{directory}/none/";',
            f'Dir::Etc::SourceList "{directory}/sources.list";',
            f'Dir::Etc::SourceParts "{directory}/none/";',
            f'Dir::Etc::PreferencesParts "{directory}/none/";',
            'Dir::Etc::netrc "/etc/apt/auth.conf";',
            'Dir::Etc::netrcparts "/etc/apt/auth.conf.d/";',
            'Dir::Bin::Methods "/usr/lib/apt/methods/";',
            *acquire,
            f'APT::Architecture "{its}";',
            f'APT::Architectures {{ "{its}"; }};',
            # The user _apt cannot write into a directory only its owner may enter.
            'APT::Sandbox::User "";' if os.geteuid() else 'APT::Sandbox::User "root";',
            'Acquire::Retries "2";',
            'Acquire::http::Timeout "20";',
            'Acquire::https::Timeout "20";',
            # A machine may have switched these off for itself; here signatures always count.
            'Acquire::Check-Date "true";',
            'Acquire::Check-Valid-Until "true";',
            'Acquire::AllowInsecureRepositories "false";',
            'Acquire::AllowWeakRepositories "false";',
            'Acquire::AllowDowngradeToInsecureRepositories "false";',
        ]
        (directory / "apt.conf").write_text("\n".join(settings) + "\n")
        yield Apt(directory=directory, mirror=address)
