# SPDX-License-Identifier: MIT
"""``python refused_probe.py CASE``: run ``ioxide probe`` where io_uring is refused, for real.

CASE is ``memlock`` (no locked memory, as an ordinary user), or ``seccomp:ERRNO`` (a filter that
answers io_uring_setup(2) with that errno, as container runtimes install one).  A script and not a
fixture, because neither can be undone.  The last line on standard output is the errno of a plain
io_uring_setup(2) under the same conditions, so that the test knows what the kernel really said;
when that is "ok", nothing is refused and nothing is probed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil  # noqa: F401 - argparse imports it late
import struct
import sys

# All before any privilege is dropped: an ordinary user may not be able to read where these are.
import ioxide.__main__
from ioxide._probe.rawring import RawRing

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_SECCOMP_RET_ALLOW = 0x7FFF0000
_SECCOMP_RET_ERRNO = 0x00050000
_BPF_LD_W_ABS, _BPF_JEQ, _BPF_RET = 0x20, 0x15, 0x06
_NR_IO_URING_SETUP = 425


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter_setup(code: int) -> None:
    """Answer io_uring_setup(2) with errno ``code`` in this process, irrevocably."""
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_BPF_LD_W_ABS, 0, 0, 0),  # seccomp_data.nr
            (_BPF_JEQ, 0, 1, _NR_IO_URING_SETUP),
            (_BPF_RET, 0, 0, _SECCOMP_RET_ERRNO | code),
            (_BPF_RET, 0, 0, _SECCOMP_RET_ALLOW),
        )
    )
    prog = _SockFprog(len(program) // 8, program)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(prog), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"prctl{arguments[:1]}: {os.strerror(code)}")


def main(case: str) -> int:
    if case == "memlock":
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)  # gives up CAP_IPC_LOCK, which is above any limit
    else:
        _filter_setup(getattr(errno, case.removeprefix("seccomp:")))
    try:
        RawRing().close()
        said = "ok"
    except OSError as error:
        said = errno.errorcode[error.errno or 0]
    status = 0 if said == "ok" else ioxide.__main__.main(["probe", "--json"])
    print(said)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
