# SPDX-License-Identifier: MIT
"""How a reproducer says that this kernel has its erratum."""

from __future__ import annotations


class ErratumPresent(Exception):
    """The kernel shows this erratum; raised by its own reproducer and by nothing else.

    The lab knows it by its name and its attributes.

    :param id: as in tests/kernels/errata.toml, "IOX-ERR-001".
    :param evidence: what was seen, in one line.
    """

    def __init__(self, id: str, evidence: str) -> None:
        super().__init__(f"{id}: {evidence}")
        self.id = id
        self.evidence = evidence
