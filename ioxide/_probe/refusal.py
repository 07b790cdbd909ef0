# SPDX-License-Identifier: MIT
"""One sentence for each way in which io_uring can be forbidden, and what to do about it."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

__all__ = ["explain", "sysctl"]


def explain(error: OSError) -> str:
    """Why ``io_uring_setup(2)`` failed with ``error``, and the way out.

    :param error: as raised when a small ring without any flags was opened.
    """
    code = errno.errorcode.get(error.errno or 0, str(error.errno))
    if error.errno == errno.ENOSYS:
        if _seccomp_filtered():
            return (
                "io_uring is hidden from this process by a seccomp filter (ENOSYS), or the kernel "
                "was built without it: allow io_uring_setup, io_uring_enter and io_uring_register "
                "in the container's seccomp profile."
            )
        return (
            f"the kernel {os.uname().release} has no io_uring (ENOSYS): it needs one from 6.1 on, "
            "built with CONFIG_IO_URING=y."
        )
    if error.errno == errno.EPERM:
        return _forbidden()
    if error.errno == errno.ENOMEM:
        limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        size = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit // 1024} KiB"
        return (
            "there is no memory for even the smallest ring (ENOMEM): the limit on locked memory "
            f"(RLIMIT_MEMLOCK) is {size} for all rings of this user together, so raise it with "
            "`ulimit -l`, LimitMEMLOCK= in a systemd unit or `docker run --ulimit memlock=-1`, or "
            "close other rings."
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            f"there is no file descriptor left for a ring ({code}): close some, or raise the limit "
            "with `ulimit -n`."
        )
    return (
        f"io_uring_setup(2) failed with {code} ({os.strerror(error.errno or 0)}) for the smallest "
        "ring without flags, which no supported kernel does: please report it with `uname -a`."
    )


def _forbidden() -> str:
    """EPERM: the sysctl of 6.6, a seccomp filter, or a security module; in this order."""
    setting = sysctl("io_uring_disabled")
    if setting == "2":
        return (
            "io_uring is switched off for every process by the sysctl kernel.io_uring_disabled=2 "
            "(EPERM): as root, run `sysctl kernel.io_uring_disabled=0`."
        )
    # With 1, CAP_SYS_ADMIN or membership in the group would have been enough (io_uring_allowed()),
    # so a privileged process that is refused anyway has another obstacle.
    if setting == "1" and not _privileged():
        group = sysctl("io_uring_group") or "-1"
        return (
            "io_uring is switched off for ordinary users by the sysctl kernel.io_uring_disabled=1 "
            f"(EPERM): as root, run `sysctl kernel.io_uring_disabled=0`, or let this user join the "
            f"group of the sysctl kernel.io_uring_group (now {group})."
        )
    if _seccomp_filtered():
        return (
            "io_uring is forbidden by a seccomp filter (EPERM), as container runtimes install one: "
            "allow io_uring_setup, io_uring_enter and io_uring_register in its profile, for "
            "instance with `docker run --security-opt seccomp=PROFILE`."
        )
    return (
        "io_uring is forbidden (EPERM), though neither the sysctl kernel.io_uring_disabled nor a "
        "seccomp filter says so: look for a security module's denial in the kernel log, and allow "
        "io_uring in its policy."
    )


def sysctl(name: str) -> str | None:
    """The value of a sysctl below kernel., None where there is none (before 6.6) or no /proc."""
    try:
        return Path("/proc/sys/kernel", name).read_text().strip()
    except OSError:
        return None


def _status(name: str) -> str:
    """One line of this thread's /proc status, empty when it cannot be read."""
    try:
        lines = Path("/proc/thread-self/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _seccomp_filtered() -> bool:
    return _status("Seccomp:") == "2"  # 2: SECCOMP_MODE_FILTER


def _privileged() -> bool:
    """CAP_SYS_ADMIN (bit 21) is in effect."""
    return bool(int(_status("CapEff:") or "0", 16) & (1 << 21))
