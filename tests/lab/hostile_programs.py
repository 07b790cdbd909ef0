# SPDX-License-Identifier: MIT
"""Programs that do their worst in a real guest: each has its own verdict, and the rest goes on.

It boots two guests and takes minutes, so `make hostile-programs` runs it, nightly, and `make test`
does not collect it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.lab.suite_support import Little
from tests.lab.test_programs_run import programs, verdicts, why

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

SOURCE = """\
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char words[1 << 20];
int main(void) { memset(words, 'x', sizeof words); %s; return 0; }
"""
BODIES = {
    "a_gigabyte": "for (int i = 0; i < 1024; i++) if (write(1, words, sizeof words) < 0) abort()",
    "b_room": 'puts("1..1\\nok 1 - room")',
    "c_forks": "for (;;) fork()",
    "d_disk": """
        for (int n = 0; n < 2; n++) {
            int fd = open(n ? "filled" : "/tmp/filled", O_CREAT | O_WRONLY, 0600);
            while (write(fd, words, sizeof words) > 0) ;
            if (errno != ENOSPC) abort();
        }
        return 1""",
    "e_room": """
        int fd = open("/tmp/mine", O_CREAT | O_WRONLY, 0600);
        for (int i = 0; i < 32; i++) if (write(fd, words, sizeof words) != sizeof words) return 1;
        if (access("filled", F_OK) == 0 || access("/tmp/filled", F_OK) == 0) return 2""",
    "f_agent": "kill(-1, SIGKILL); pause()",
    "g_stubborn": "signal(SIGTERM, SIG_IGN); for (;;) pause()",
    "h_daemon": 'if (fork() == 0) { setsid(); for (;;) pause(); } puts("1..1\\nok 1 - parent")',
    "i_segfault": "*(volatile char *)0 = 1",
    "j_room": 'puts("1..1\\nok 1 - room")',
}


def test_the_worst_programs_in_a_real_guest(little: Little, tmp_path: Path) -> None:
    little.limit_s = 800
    programs(little, dict.fromkeys(BODIES, "pass"), timeout="4")
    for name, body in BODIES.items():
        source = tmp_path / f"{name}.c"
        source.write_text(SOURCE % body)
        binary = little.root / "tests/programs" / name
        subprocess.run(["cc", "-O1", "-w", "-o", binary, source], check=True)
    ran = little.run("lab", "test", "--kernel", "6.12", "unit")

    assert {
        "unit/a_gigabyte": "failed",
        "unit/b_room": "passed",
        "unit/c_forks": "failed",
        "unit/d_disk": "failed",
        "unit/e_room": "passed",
        "unit/f_agent": "lost",
        "unit/g_stubborn": "failed",
        "unit/h_daemon": "passed",
        "unit/i_segfault": "failed",
        "unit/j_room": "passed",
    } == verdicts(ran), ran.output
    assert "it wrote more than 64 MiB and was killed" == why(ran, "unit/a_gigabyte")
    assert "it did not end within" in why(ran, "unit/c_forks")
    assert "it ended with status 1" == why(ran, "unit/d_disk")
    assert "it did not end within" in why(ran, "unit/g_stubborn")
    assert "it was killed by SIGSEGV" == why(ran, "unit/i_segfault")
    assert 1 == ran.code
    assert ran.results is not None
    assert [] == ran.results["faults"]
