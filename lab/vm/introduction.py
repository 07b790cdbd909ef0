# SPDX-License-Identifier: MIT
"""A machine becomes a guest: its agent speaks, and proves that it is the one that was started."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

from ..errors import GuestLost, NoSignOfLife
from ..kernels import Flavour, Kernel, KernelFiles
from .channel import Channel
from .emulator import first_sign
from .guest import Guest
from .inguest.agent import CALLS, SPIN, calls, spin
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
        times = [one for one in map(answer.get, ("spin", "calls")) if isinstance(one, float)]
        if len(times) != 2 or min(times) <= 0:
            link.lose(f"the agent measured its speed as {answer!r}")
        yield Guest(
            kernel=files.kernel,
            accel=accel,
            nonce=nonce,
            uname=release,
            boot_seconds=boot_seconds,
            slowdown=slowdown(files.kernel, times, _own_times()),
            memlock=memlock,
            console=machine.console,
            link=link,
            deaths=machine.deaths,
            hypervisor=machine.hypervisor,
            printed=machine.printed,
        )


def slowdown(kernel: Kernel, its: Sequence[float], own: Sequence[float]) -> float:
    """How much slower than this host a guest is that needs these times for Python and for calls of
    the kernel. The latter count where the kernel looks for bugs in itself: there they are most of
    what a test waits for. Elsewhere they are not, and a test that hangs is to be given up."""
    python, calls_of_kernel = (theirs / ours for theirs, ours in zip(its, own, strict=True))
    return max(python, calls_of_kernel) if kernel.flavour is Flavour.DEBUG else python


@cache
def _own_times() -> tuple[float, float]:
    return spin(SPIN), calls(CALLS)


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
