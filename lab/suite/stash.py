# SPDX-License-Identifier: MIT
"""What pytest's session keeps for those that come after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..facts.verdicts import Conclusion

if TYPE_CHECKING:
    from ..project import Project

PLUGIN = f"{__package__}.plugin"
"""The lab's plugin, as `-p` names it."""
CONCLUSION = pytest.StashKey[Conclusion]()
"""Where a session keeps what it concluded; the plugin prints it as the very last line."""

PROJECT: pytest.StashKey[Project] = pytest.StashKey()
"""What the repository tells the lab; not in guests."""
