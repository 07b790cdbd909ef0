# SPDX-License-Identifier: MIT
"""The workflow by which a repository runs its tests on GitHub Actions."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import UsageError

PLACE = Path(".github/workflows/lab.yml")
ACTION = ".github/actions/lab"
"""Where the action is in the lab's own repository."""
_USES = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})")
TEXT = """\
name: lab
on: [push, pull_request]
permissions: {{contents: read}}
jobs:
  lab:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with: {{persist-credentials: false}}
      - uses: {repository}/{action}@{commit}
"""


def write_workflow(root: Path, uses: str) -> tuple[Path, str]:
    """Write the workflow, which runs the action of the lab's repository and commit that `uses`
    names as OWNER/NAME@COMMIT; the file and its text.

    Raises UsageError for what is no commit (a branch or tag may be another one tomorrow), and if
    there is such a file.
    """
    named = _USES.fullmatch(uses)
    if named is None:
        raise UsageError(
            f"--workflow {uses} does not name the lab's repository and a commit of it",
            hint="OWNER/NAME@ and all 40 digits of the commit; a branch or a tag can be moved",
        )
    place = root / PLACE
    if place.exists():
        raise UsageError(f"{place} is there already")
    text = TEXT.format(repository=named[1], commit=named[2], action=ACTION)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")
    return place, text
