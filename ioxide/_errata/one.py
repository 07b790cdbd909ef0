# SPDX-License-Identifier: MIT
"""One reproducer in this process, `python -m ioxide._errata.one ID`; prints what it found."""

from __future__ import annotations

import json
import sys

from ioxide._errata.every import REPRODUCERS
from ioxide._errata.present import ErratumPresent, NotTried


def main(id: str) -> None:
    """Run the reproducer of an erratum; the outcome and a line about it go to standard output."""
    outcome, why = "good", ""
    try:
        assert __debug__
        REPRODUCERS[id].run()
    except ErratumPresent as present:
        outcome, why = "bad", present.evidence
    except NotTried as reason:
        outcome, why = "not tried", str(reason)
    except Exception as error:
        words = str(error).splitlines() or [""]
        outcome, why = "failed", f"{type(error).__name__}: {words[0]}"
    print(json.dumps([outcome, why]))


if __name__ == "__main__":
    main(sys.argv[1])
