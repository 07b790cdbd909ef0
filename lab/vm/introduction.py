# SPDX-License-Identifier: MIT
"""A machine becomes a guest: its agent speaks, and proves that it is the one that was started."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

from ..errors import GuestLost, NoSignOfLife
from ..kernels import KernelFiles
from .channel import Channel
from .emulator import first_sign
from .guest import Guest
from .inguest.agent import SPIN, spin
from .link import Link
from .machine import Machine, Start
from .processor import Accel
from .silence import Silence

_OF_SOURCE: Mapping[str, Sequence[str]] = {
    # The kernel loads what its own build signed and nothing else; some of Debian's releases have
    # their modules vouched for by nothing but this (lab/kernels/debian.py).
    "debian": ("module.sig_enforce=1",),
}


@contextmanager
def introduced(
    files: KernelFiles,
    start: Start,
    *,
    accel: Accel,
    timeout_s: float,
    interrupt: int | None = None,
) -> Iterator[Guest]:
    """A guest on the machine that `start` starts when it is given the lab's words for the kernel's
    command line: once its agent has spoken, within `timeout_s` seconds, and is the one meant.

    Raises GuestLost, and what `start` raises.
    """
    nonce = secrets.token_hex(16)
    release = files.kernel.release
    words = (
        f"lab.nonce={nonce}",
        f"lab.release={release}",
        *_OF_SOURCE.get(files.kernel.source, ()),
    )
    begun = time.monotonic()
    with start(words) as machine:
        link = Link(
            Channel(machine.agent, watch=machine.process.pidfd, interrupt=interrupt),
            lambda cause: _lost(machine, cause),
        )
        silence = Silence(machine)
        try:
            hello = link.hello(deadline=begun + timeout_s, within_s=timeout_s, hopeless=silence.why)
        except GuestLost as lost:
            if silence.lifeless:
                raise NoSignOfLife(lost.reason, excuse=lost.excuse) from lost
            raise
        boot_seconds = time.monotonic() - begun
        if hello.get("nonce") != nonce:
            link.lose(f"the agent names the nonce {hello.get('nonce')!r}, this run's is {nonce}")
        if hello.get("release") != release:
            link.lose(f"the guest runs {hello.get('release')!r}, booted was {release}")
        memlock = hello.get("memlock")
        if type(memlock) is not int:
            link.lose(f"the agent names {memlock!r} as its limit of locked memory")
        answer = link.call("start", own_machine=True, time=time.time())
        its_spin = answer.get("spin")
        if not isinstance(its_spin, float) or its_spin <= 0:
            link.lose(f"the agent measured its speed as {its_spin!r} s")
        yield Guest(
            kernel=files.kernel,
            accel=accel,
            nonce=nonce,
            uname=release,
            boot_seconds=boot_seconds,
            slowdown=its_spin / _own_spin(),
            memlock=memlock,
            console=machine.console,
            link=link,
            deaths=machine.deaths,
            hypervisor=machine.hypervisor,
            printed=machine.printed,
        )


@cache
def _own_spin() -> float:
    return spin(SPIN)


def _lost(machine: Machine, cause: str) -> GuestLost:
    """The guest's end as its console tells it, else as seen from here."""
    # A panic's last lines and QEMU's end may be a moment behind the port's.
    ended = machine.process.ended(timeout_s=1.0)
    # A complaint on the console of a guest that still runs is not what it was lost to.
    reason = (machine.console.reason() or machine.process.how_it_ended()) if ended else ""
    sign = first_sign(machine.console.text().splitlines(), machine.deaths) if ended else None
    excuse = sign[1] if sign is not None else ""
    if not ended and machine.hypervisor is not None:
        # It hangs or lies: keep where its processors stand, nobody can ask them later.
        state = machine.console.path.with_name(machine.console.path.stem + "-state.txt")
        state.write_text(machine.hypervisor.describe().text)
    blamed = f"{reason} ({excuse})" if excuse else reason
    sentence = f"the guest died: {blamed} ({cause})" if reason else cause
    return GuestLost(sentence, console_tail=machine.console.tail(), excuse=excuse)
