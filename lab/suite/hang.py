# SPDX-License-Identifier: MIT
"""What a test that hangs is at, gathered before its process is killed: a file beside its guest's
console.

Each part is asked for by itself. A guest too dead for one of them still gives the others, and the
file has a sentence in the place of what could not be had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import LabError
from ..facts.evidence import Part
from ..remote.log import Log
from ..remote.losses import Gone
from ..remote.process import TREE
from ..vm import Guest
from . import knows
from .kernel_watch import KernelWatch
from .memory import dumped, named, unused
from .waits import in_short, kernel_function, python_frames, python_line
from .wire import HANG_SIGNAL

LAST_PRINTED = "Captured stdout until it was lost"
"""The section of a report that has it, by a name that junit_logging of pytest knows."""
PART_S, PART_PER_SLOWDOWN_S = 10.0, 2.0
"""So long, in seconds, a guest may take to one part."""
_FAMILY = """
children() {
    for status in /proc/[0-9]*/status; do
        while read -r key value; do
            case $key in
            PPid:) [ "$value" = "$1" ] && { of=${status#/proc/}; echo "${of%/status}"; }; break ;;
            esac
        done <"$status"
    done 2>/dev/null
}
family() { echo "$1"; for one in $(children "$1"); do family "$one"; done; }
"""
STACKS = f"""{_FAMILY}
for process in $(family "$1"); do
    for thread in /proc/$process/task/*; do
        read -r name <"$thread/comm"
        read -r where <"$thread/wchan"
        read -r call <"$thread/syscall"
        echo "process $process, thread ${{thread##*/}} ($name): wchan $where, system call $call"
        cat "$thread/stack"
    done
done 2>&1
"""
RINGS = f"""{_FAMILY}
for process in $(family "$1"); do
    for descriptor in /proc/$process/fd/*; do
        case $(readlink "$descriptor") in
        "anon_inode:[io_uring]")
            echo "process $process, descriptor ${{descriptor##*/}}:"
            cat "/proc/$process/fdinfo/${{descriptor##*/}}" ;;
        esac
    done
done 2>&1
echo "these are all"
"""
SOCKETS = """
if command -v ss >/dev/null; then ss -a -n -p -e -m -o -i; else
    for kind in tcp tcp6 udp udp6 unix; do echo "/proc/net/$kind:"; cat "/proc/net/$kind"; done
fi 2>&1
"""
CAPTURED = """
for number in 1 2; do
    [ ! -f "/proc/$1/fd/$number" ] || tail -c 1000000 "/proc/$1/fd/$number"
done
"""
"""pytest keeps what a test prints in files without names (its --capture=fd), which can be read."""
NO_ANSWER, TRIES = "no answer", 30
# The console would take seconds for these thousands of lines on an emulated serial port.
SYSRQ = """
read -r before rest </proc/sys/kernel/printk
echo 1 >/proc/sys/kernel/printk
for key in l w t; do echo $key >/proc/sysrq-trigger; done
echo "$before" >/proc/sys/kernel/printk
"""


ANSWER = f"""
while read -r key value; do [ "$key" != SigCgt: ] || caught=$value; done <"/proc/$1/status"
case $caught in [89a-f]*) ;; *) echo "{NO_ANSWER}: it handles no signal {HANG_SIGNAL}"; exit ;; esac
kill -{HANG_SIGNAL} "$1"
tries=0
while [ $tries -lt {TRIES} ]; do
    ls -l "/proc/$1/fd" | while read -r line; do
        case $line in
        *" -> /memfd:{knows.FILE} "*)
            number=${{line% -> *}}
            file=/proc/$1/fd/${{number##* }}
            [ "$(tail -n 1 "$file")" != "{knows.WHOLE}" ] || {{ cat "$file"; exit 1; }} ;;
        esac
    done || exit 0
    tries=$((tries + 1))
    sleep 0.1
done 2>&1
echo "{NO_ANSWER}: Python came to no handler"
"""
"""The signal is the highest bit of the mask. A thread that never leaves C does not answer."""


class Hang:
    """The evidence of one hang."""

    def __init__(
        self,
        guest: Guest,
        watch: KernelWatch,
        pid: int,
        name: str,
        why: str,
        *,
        base: Path,
        dump: bool,
    ) -> None:
        """Gather what there is of the process `pid` of the guest, in which the test `name` hangs,
        because of `why`; with `dump` its memory, too. Files are named by their paths from the
        directory `base`. What the kernel says meanwhile is its answer to us, and no complaint."""
        self.log = Log(unused(guest.console.parent, "hang", ".txt"))
        self._guest, self._pid, self._name, self._base = guest, pid, name, base
        self._kernel = ""
        # First of all: what is asked of the guest below leaves traces there.
        self.memory = dumped(guest, base) if dump else ""
        """What came of its memory, as a clause; empty if that was not asked for."""
        self._write(f"{name}: {why}\n")
        self._write(f"{self.memory}\n" if self.memory else "")
        self._part("registers of the processors, by QMP", self._registers)
        stacks = self._part("kernel stacks of its processes", lambda: self._asked(STACKS))
        self._part("its io_uring rings (fdinfo)", lambda: self._asked(RINGS))
        self._part("sockets", lambda: self._asked(SOCKETS))
        self._part("sysrq l, w, t", lambda: self._sysrq(watch))
        self.captured = self._part("what it had printed", lambda: self._asked(CAPTURED))
        self._known()
        self._kernel = kernel_function(stacks)

    def told(self, gone: Gone, printed: str) -> tuple[Gone, Part | None]:
        """The end of its process with where it waited, and where the evidence is. `printed` is the
        last that it has printed, its answer to SIGABRT included."""
        frames = list(python_frames(printed))
        self._part("Python stacks, by faulthandler", lambda: _python(printed, frames))
        summary = in_short(python_line(frames, TREE, self._name), self._kernel)
        end = self._write(f"\n==== in short\n{summary}\n")
        part = None if end is None else Part(end.file, 0, end.end)
        file = f"; {named(self.log.path, self._base)} has what was found" if part else ""
        words = f"{gone}; {summary}{file}"
        return Gone(words, guest_too=gone.guest_too, tail=gone.tail, killed=gone.killed), part

    def _part(self, name: str, have: Callable[[], str]) -> str:
        """Write one part; what it says, empty if it could not be had."""
        try:
            text = have()
        except (LabError, TimeoutError) as error:
            self._write(f"\n==== {name}\ncould not be had: {error}\n")
            return ""
        self._write(f"\n==== {name}\n{text.rstrip()}\n")
        return text

    def _registers(self) -> str:
        if self._guest.hypervisor is None:
            raise LabError("nobody can look into this guest from outside")
        return self._guest.hypervisor.registers()

    def _asked(self, script: str) -> str:
        guest = self._guest
        done = guest.run(
            ["/bin/sh", "-c", script, "sh", str(self._pid)],
            timeout_s=PART_S + PART_PER_SLOWDOWN_S * guest.slowdown,
        )
        return (done.stdout + done.stderr).decode("utf-8", "backslashreplace")

    def _known(self) -> None:
        """What the repository's own hook says, in parts of its own."""
        try:
            said = self._asked(ANSWER)
            if said.startswith(NO_ANSWER):
                raise LabError(said.rstrip())
        except (LabError, TimeoutError) as error:
            said = knows.part_of("what the repository knows", f"could not be had: {error}")
        self._write(said.removesuffix(f"{knows.WHOLE}\n"))

    def _sysrq(self, watch: KernelWatch) -> str:
        said = self._asked(SYSRQ)
        return said + watch.aside()

    def _write(self, text: str) -> Part | None:
        return self.log.append(text.encode("utf-8", "backslashreplace"))


def _python(printed: str, frames: Sequence[Mapping[str, str]]) -> str:
    if not frames:
        raise LabError("the process did not answer SIGABRT with its stacks")
    return printed
