# SPDX-License-Identifier: MIT
"""`python -m tests.mutants --kernel 6.1`: the same verdicts from a real guest, and two more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.table import HERE

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

# One of each kind: in C and red; harmless; one that ends the guest (SysRq), after which the next
# needs another; in Python and red; one whose test needs what 6.1 has not; and one whose test needs
# the host.
_TABLE = """\
controls = ["tests/smoke/test_echo.py::test_echo"]

[[mutant]]
id = "in-c"
breaks = "#96"
what = "Every post writes to the eventfd."
file = "ioxide/_ring/wake.c"
search = '''
	if (__atomic_exchange_n(&self->wake_pending, 1, __ATOMIC_SEQ_CST)) {
'''
replace = '''
	if (false) {
'''
[mutant.red]
"tests/smoke/test_issue_096_one_wake_per_drain.py::test_wakes_are_coalesced" = "assert 1 == 100"

[[mutant]]
id = "harmless"
breaks = "nothing"
what = "A comment."
file = "ioxide/_common/config.py"
search = '''
_MAX_SQ_ENTRIES = 32768
'''
replace = '''
_MAX_SQ_ENTRIES = 32768  # harmless
'''
[mutant.red]
"tests/smoke/test_config.py::test_config_is_frozen" = "DID NOT RAISE"

[[mutant]]
id = "panic"
breaks = "everything"
what = "The kernel is told to panic."
file = "ioxide/_common/config.py"
search = '''
_MAX_SQ_ENTRIES = 32768
'''
replace = '''
_MAX_SQ_ENTRIES = 32768
open("/proc/sysrq-trigger", "w").write("c")
'''
[mutant.red]
"tests/smoke/test_config.py::test_config_is_frozen" = "DID NOT RAISE"

[[mutant]]
id = "in-python"
breaks = "#102"
what = "A configuration can be changed."
file = "ioxide/_common/config.py"
search = '''
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
'''
replace = '''
@dataclass(slots=True, kw_only=True)
class ServerConfig:
'''
[mutant.red]
"tests/smoke/test_config.py::test_config_is_frozen" = "DID NOT RAISE"

[[mutant]]
id = "needs-more"
breaks = "#100"
what = "Whatever: nobody can tell here."
file = "ioxide/_common/config.py"
search = '''
_MAX_SQ_ENTRIES = 32768
'''
replace = '''
_MAX_SQ_ENTRIES = 1
'''
[mutant.red]
"tests/kernel_gated/test_receive_modes.py::test_incremental_appends" = "nothing came"

[[mutant]]
id = "at-home"
breaks = "nothing"
what = "Whatever: the lab's own tests stay on the host."
file = "ioxide/_common/config.py"
search = '''
_MAX_SQ_ENTRIES = 32768
'''
replace = '''
_MAX_SQ_ENTRIES = 1
'''
[mutant.red]
"tests/lab/test_mutants.py::test_apply_changes_one_place" = "nothing came"
"""


def test_verdicts_from_a_guest(tmp_path: Path) -> None:
    """Red, survived, lost with its guest, red in the next guest, absent: each is told apart."""
    table = tmp_path / "table.toml"
    table.write_text(_TABLE)
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--kernel", "6.1", "--table", str(table)],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    judged = re.findall(r"^\[ *\d+/6\] (.+?) +(\S+) \(", done.stdout, re.MULTILINE)
    assert {
        "in-c": "red",
        "harmless": "survived",
        "panic": "broke a control",
        "in-python": "red",
        "needs-more": "absent here",
        "at-home": "absent here",
    } == {mutant: kind for kind, mutant in judged}, done.stdout + done.stderr
    assert "the guest was lost" in done.stdout
    assert "2 of 6 mutants red" in done.stdout
    assert "absent here: needs-more, at-home" in done.stdout
    assert 1 == done.returncode
