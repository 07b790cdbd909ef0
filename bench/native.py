# SPDX-License-Identifier: MIT
"""The two C files beside this one, built when first needed, into build/bench/."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.errors import Void

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "bench"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


def build(source: str, flags: Sequence[str] = ()) -> Path:
    """The program or library made of `source`, named after what it was made from."""
    text = (HERE / source).read_bytes()
    key = hashlib.sha256(text + " ".join((*FLAGS, *flags)).encode()).hexdigest()[:12]
    target = BUILD / f"{Path(source).stem}-{key}"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            new = target.with_suffix(".new")
            command = [os.environ.get("CC", "cc"), *FLAGS, "-o", str(new), str(HERE / source)]
            done = subprocess.run(
                [*command, *flags], stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
            if done.returncode:
                raise Void(f"bench/{source} does not compile:\n{done.stderr}")
            new.rename(target)
    return target


def loadgen(*, tls: bool = False) -> Path:
    """The load generator; the one that can TLS needs OpenSSL's headers (libssl-dev)."""
    return build("loadgen.c", ("-luring", *(("-DTLS", "-lssl", "-lcrypto") if tls else ())))


def bare() -> Path:
    """The servers without Python."""
    return build("bare.c", ("-luring",))


def callgrind_library() -> Path:
    """Callgrind's client requests, for ctypes."""
    return build("callgrind.c", ("-shared", "-fPIC"))
