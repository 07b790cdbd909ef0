# SPDX-License-Identifier: MIT
"""What pytest's session keeps for those that come after it."""

from __future__ import annotations

import pytest

from ..facts.verdicts import Conclusion

CONCLUSION = pytest.StashKey[Conclusion]()
"""Where a session keeps what it concluded; the plugin prints it as the very last line."""
