# SPDX-License-Identifier: MIT
"""An archive of the mainline archive's layout on the loopback interface, with its own key."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import tools


class Archive:
    """The files, the server's address and what a test wants the server to do wrong."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self.home = home
        self.url = ""
        self.requests: list[str] = []
        self.instead: Callable[[http.server.BaseHTTPRequestHandler], bool] = lambda _: False
        """Answers a request in the server's place and returns True, or returns False."""
        self.gpg("--quick-generate-key", "A throw-away key", "ed25519", "sign", "never")
        (line, *_) = [x for x in self.gpg("--list-keys").splitlines() if x.startswith("fpr:")]
        self.fingerprint = line.split(":")[9]
        self.key = home / "key.asc"
        self.key.write_text(self.gpg("--armor", "--export"))

    def gpg(self, *arguments: str | Path) -> str:
        """Run gpg with the throw-away key ring."""
        options = ("--homedir", self.home, "--batch", "--passphrase", "", "--with-colons")
        return tools.run(
            ["gpg", *options, *arguments],
            what="signing with a throw-away key",
        )

    def add(self, version: str, packages: dict[str, bytes | Path], *, level: str = "amd64") -> Path:
        """Add a version with these packages, its list signed; returns the directory."""
        directory = self.root / f"v{version}" / level
        directory.mkdir(parents=True)
        for name, content in packages.items():
            if isinstance(content, Path):
                (directory / name).hardlink_to(content)
            else:
                (directory / name).write_bytes(content)
        self.sign(directory)
        return directory

    def sign(self, directory: Path) -> None:
        """Write the list of what is there, and its signature."""
        lines = []
        for kind in ("Sha1", "Sha256"):
            lines.append(f"# Checksums-{kind}:")
            for path in sorted(directory.glob("*.deb")):
                digest = hashlib.new(kind.lower(), path.read_bytes()).hexdigest()
                lines.append(f"{digest}  {path.name}")
        listed = directory / "CHECKSUMS"
        listed.write_text("\n".join(lines) + "\n")
        signature = directory / "CHECKSUMS.gpg"
        signature.unlink(missing_ok=True)
        self.gpg("--armor", "--output", signature, "--detach-sign", listed)


class _Handler(http.server.SimpleHTTPRequestHandler):
    archive: Archive

    def do_GET(self) -> None:
        self.archive.requests.append(self.path)
        if not self.archive.instead(self):
            super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        """Be quiet."""


@contextmanager
def served(root: Path) -> Iterator[Archive]:
    """An archive below `root`, and its server for as long as the block lasts."""
    # The agent's socket lies in gpg's home, and a socket's path holds 108 bytes at the most.
    with tempfile.TemporaryDirectory(prefix="lab-gpg-") as home:
        archive = Archive(root, Path(home))
        try:
            handler = type("Handler", (_Handler,), {"archive": archive})
            bound = functools.partial(handler, directory=str(root))
            with http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound) as server:
                archive.url = f"http://127.0.0.1:{server.server_port}"
                thread = threading.Thread(target=server.serve_forever, args=(0.05,))
                thread.start()
                try:
                    yield archive
                finally:
                    server.shutdown()
                    thread.join()
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
