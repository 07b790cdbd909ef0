# SPDX-License-Identifier: MIT
"""Who runs these tests: the proof that a guest is the guest it is taken for.

The nonce and the release come from the kernel itself, the hashes are computed where the tests run;
nothing here is taken over from what the host says.  Tests ask through the fixture `lab_identity`.
Standard library only: the guest imports it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import COMMAND
from . import tree

CMDLINE = Path("/proc/cmdline")
NONCE_KEY = "lab.nonce="
PROOF = ("nonce", "release", "tree_sha256", "extension_sha256", "bytecode_sha256")
"""What a process in a guest says of itself before anything that it says counts."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the host knows of the run, told to the guest for comparison in tests."""

    kernel: str
    """Upstream version, "6.12.107"."""
    release: str
    nonce: str
    tree_sha256: str
    extension_sha256: str
    bytecode_sha256: str

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Expected:
        """The inverse of `to_json`."""
        return cls(**{name: str(fields[name]) for name in cls.__slots__})

    def to_json(self) -> dict[str, str]:
        """As a JSON object."""
        return asdict(self)

    def contradicted(self, proof: Mapping[str, Any]) -> str:
        """What in a process's `PROOF` is not as expected, as a sentence; empty if all of it is."""
        for name in PROOF:
            if proof[name] != (wanted := getattr(self, name)):
                return f"the guest proves the wrong {name}: {proof[name]!r}, expected {wanted!r}"
        return ""


class NoHost(Exception):
    """A test asked what the host expects, and there is no host: it runs in no guest of the lab."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the machine says about itself, read and computed where the test runs."""

    release: str
    """os.uname().release."""
    nonce: str | None
    """The run's nonce from the kernel's command line; None outside a guest."""
    tree_sha256: str
    extension_sha256: str
    bytecode_sha256: str
    """Of the compiled modules beside the tree's: what is run in their stead."""
    host: Expected | None
    """What the host sent, None outside a guest."""

    def proof(self) -> dict[str, str]:
        """As `PROOF`."""
        return {name: getattr(self, name) or "" for name in PROOF}

    @property
    def expected(self) -> Expected:
        """What the host sent. Raises NoHost outside a guest."""
        if self.host is None:
            raise NoHost(
                "this test runs on the host itself, not in a guest of the lab; "
                f"run it with `{COMMAND} test --kernel NAME`"
            )
        return self.host


def read_nonce() -> str | None:
    """The value of `lab.nonce=` on this kernel's command line, None if there is none."""
    for word in CMDLINE.read_text().split():
        if word.startswith(NONCE_KEY):
            return word.removeprefix(NONCE_KEY)
    return None


def identify(root: Path, host: Expected | None) -> Identity:
    """This machine's identity, with the tree that was sent to `root`. Without a manifest there,
    nothing was sent, and the hashes are empty."""
    try:
        manifest = tree.Manifest.here(root)
    except FileNotFoundError:
        return Identity(os.uname().release, read_nonce(), "", "", "", host)
    contents = tree.contents_here(root, manifest)
    tree_sha256, extension_sha256 = tree.hashes(contents, manifest.products)
    bytecode_sha256, _ = tree.hashes(tree.bytecode_here(root))
    return Identity(
        os.uname().release, read_nonce(), tree_sha256, extension_sha256, bytecode_sha256, host
    )
