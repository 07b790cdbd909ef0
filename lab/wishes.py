# SPDX-License-Identifier: MIT
"""What a guest is asked to have beyond what every guest has.

The command line, a project's table and `@pytest.mark.guest` all end in one `Wishes`, and all are
checked here, by `read`, so that a value means the same thing and is refused in the same words
wherever it was written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .errors import UsageError

MOST_CPUS = 64
LEAST_MEMORY_MIB = 128
"""Of which the programs in a guest have 35 (6.12); with 96 it still boots, and has 3 left."""
MOST_MEMORY_MIB = 1 << 20
MOST_CMDLINE = 1024
"""Bytes of a wished command line. The kernel cuts the whole of it at 2048 without a word
(COMMAND_LINE_SIZE of x86 and arm64), and the lab needs the others."""

_SIZE = re.compile(r"(\d{1,9}) ?([MGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_MIB = {"": 1, "M": 1, "G": 1 << 10, "T": 1 << 20}
_SYSCTL = re.compile(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_.:*@-]+)+", re.ASCII)
_MODULE = re.compile(r"[A-Za-z0-9_-]{1,55}", re.ASCII)
"""A module's name is shorter than MODULE_NAME_LEN, 56 on 64-bit machines."""
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(,[^,\s=]+(=\S*)?)*", re.ASCII)
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')
_THE_LABS: Mapping[str, str] = {
    "console": "the lab reads the kernel's console where it has put it",
    "panic": "a guest whose kernel panics has to end at once",
    "oops": "a guest whose kernel panics has to end at once",
    "init": "the lab's own init starts the agent",
    "rdinit": "the lab's own init starts the agent",
    "quiet": "what the kernel complains of while it boots has to be heard",
    "loglevel": "what the kernel complains of while it boots has to be heard",
    "printk.devkmsg": "the lab marks in the kernel's log where each test begins",
    "log_buf_len": "what a test makes the kernel say has to fit in the kernel's log",
    "module.sig_enforce": "nothing else vouches for some of the modules",
    "--": "the kernel takes nothing behind it for its own",
}
"""Parameters of the kernel's that are the lab's to set, and why."""
_THE_LABS_SYSCTLS: Mapping[str, str] = {
    "kernel.printk": "what a dying kernel complains of has to be heard on its console",
    "kernel.printk_devkmsg": "the lab marks in the kernel's log where each test begins",
    "kernel.panic": "a guest whose kernel panics has to end at once",
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one guest is to have. Guests with equal wishes are interchangeable.

    What is None or empty is the launcher's own choice. Made by `read`, except where the values are
    known to be sound.
    """

    cpus: int | None = None
    """Processors."""
    memory_mib: int | None = None
    """Memory, in MiB."""
    sysctl: tuple[tuple[str, str], ...] = ()
    """(name, value), sorted by name; set once the guest is up and its modules are loaded."""
    cmdline: tuple[str, ...] = ()
    """Words for the kernel's command line, behind the lab's own."""
    modules: tuple[str, ...] = ()
    """Kernel modules, loaded in this order once the guest is up."""
    devices: tuple[str, ...] = ()
    """As QEMU's -device takes them, or the name of one of the lab's own."""

    def __bool__(self) -> bool:
        """Whether anything is wished for."""
        return self != Wishes()

    def over(self, others: Wishes) -> Wishes:
        """These, and where they say nothing the others: of numbers and sysctls these win, words,
        modules and devices are added behind the others'."""
        return Wishes(
            cpus=self.cpus if self.cpus is not None else others.cpus,
            memory_mib=self.memory_mib if self.memory_mib is not None else others.memory_mib,
            sysctl=tuple(sorted({**dict(others.sysctl), **dict(self.sysctl)}.items())),
            cmdline=(*others.cmdline, *self.cmdline),
            modules=tuple(dict.fromkeys((*others.modules, *self.modules))),
            devices=(*others.devices, *self.devices),
        )

    def options(self, prefix: str = "--") -> list[str]:
        """The options of `lab run`, `shell` and `test` that ask for the same, each one word."""
        given = {
            "cpus": [] if self.cpus is None else [str(self.cpus)],
            "memory": [] if self.memory_mib is None else [f"{self.memory_mib}M"],
            "sysctl": [f"{name}={value}" for name, value in self.sysctl],
            "cmdline": self.cmdline,
            "modules": self.modules,
            "devices": self.devices,
        }
        return [
            f"{prefix}{OPTIONS[key]}={value}" for key, values in given.items() for value in values
        ]

    def __str__(self) -> str:
        """The options as a person types them; empty if nothing is wished for."""
        return shlex.join(self.options())


@dataclass(frozen=True, slots=True)
class Wrong:
    """One value that cannot be meant."""

    key: str
    why: str
    """A sentence without its subject: what the value is, and what it may be."""


class _Refused(Exception):
    """A value cannot be meant; the message is `Wrong.why`."""


def read(values: Mapping[str, object]) -> tuple[Wishes, Sequence[Wrong]]:
    """The wishes that `values` are, and all that is wrong with them.

    Keys are those of `KEYS`. `cpus` is a number; `memory` is a number of MiB or a text like "1G";
    `sysctl` is a table; `cmdline` is one text or a list of them; `modules` and `devices` are lists.
    A value of None counts as not given.
    """
    return _read(values, _READERS)


def _read(values: Mapping[str, object], readers: _Readers) -> tuple[Wishes, Sequence[Wrong]]:
    found: dict[str, Any] = {}
    wrong: list[Wrong] = []
    for key, value in values.items():
        if key not in readers:
            wrong.append(Wrong(key, f"is unknown; a guest is asked for {', '.join(KEYS)}"))
        elif value is not None:
            try:
                field, reader = readers[key]
                found[field] = reader(value)
            except _Refused as refused:
                wrong.append(Wrong(key, str(refused)))
    return Wishes(**found), wrong


def _cpus(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Refused(f"is {value!r}, which is no number of processors, 1 to {MOST_CPUS}")
    if not 1 <= value <= MOST_CPUS:
        raise _Refused(f"is {value}; a guest has 1 to {MOST_CPUS} processors")
    return value


def _typed_cpus(value: object) -> int:
    digits = isinstance(value, str) and re.fullmatch(r"\d{1,9}", value, re.ASCII) is not None
    return _cpus(int(value) if digits else value)  # type: ignore[call-overload]


def _memory(value: object) -> int:
    match = None
    if not isinstance(value, bool) and isinstance(value, int | str):
        match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise _Refused(f"is {value!r}, which is no size: a number of MiB, or one like 768M or 2G")
    mib = int(match[1]) * _MIB[match[2].upper()]
    if mib < LEAST_MEMORY_MIB:
        raise _Refused(f"is {value}; a guest needs at least {LEAST_MEMORY_MIB} MiB to boot")
    if mib > MOST_MEMORY_MIB:
        raise _Refused(f"is {value}; a guest has at most {MOST_MEMORY_MIB >> 20} TiB")
    return mib


def _sysctl(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise _Refused(f"is {value!r}, which is not a table of names and values")
    return _settings(list(value.items()))


def _typed_sysctl(value: object) -> tuple[tuple[str, str], ...]:
    given = []
    for text in _texts(value, "a list of NAME=VALUE"):
        name, equals, one = text.partition("=")
        if not equals:
            raise _Refused(f"is {text!r}, which is not NAME=VALUE")
        given.append((name.strip(), one.strip()))
    return _settings(given)


def _settings(given: Sequence[tuple[object, object]]) -> tuple[tuple[str, str], ...]:
    pairs: dict[str, str] = {}
    for name, one in given:
        if isinstance(one, Mapping):
            inner = next(iter(one), "name")
            raise _Refused(
                f"has a table called {name!r}: a name with dots stands in quotes, "
                f'"{name}.{inner}" = ...'
            )
        if not isinstance(name, str) or _SYSCTL.fullmatch(name) is None or ".." in name:
            raise _Refused(f"names {name!r}, which is no name like vm.swappiness")
        if why := _THE_LABS_SYSCTLS.get(name.replace("/", ".")):
            raise _Refused(f"sets {name}, which is the lab's own to set: {why}")
        if isinstance(one, bool) or not isinstance(one, int | str):
            raise _Refused(f"sets {name} to {one!r}, which is neither text nor a whole number")
        if not str(one) or not str(one).isprintable():
            raise _Refused(f"sets {name} to {one!r}, which is not one line of text")
        if pairs.setdefault(name, str(one)) != str(one):
            raise _Refused(f"sets {name} twice, to {pairs[name]!r} and {one!r}")
    return tuple(sorted(pairs.items()))


def _cmdline(value: object) -> tuple[str, ...]:
    words: list[str] = []
    texts = [value] if isinstance(value, str) else value
    for text in _texts(texts, "words for the kernel's command line"):
        if not text.isascii() or not text.isprintable() or text.count('"') % 2:
            raise _Refused(f"is {text!r}, which is not one line of ASCII with its quotes closed")
        words += _WORD.findall(text)
    for word in words:
        # The kernel reads a dash in a parameter's name as an underscore, and "a b"=1 as a b=1.
        name = word if word.startswith("--") else word.replace('"', "").partition("=")[0]
        plain = name.replace("-", "_") if name != "--" else name
        # The agent reads the lab's words without regard for quotes.
        of_lab = any(piece.lstrip('"').startswith("lab.") for piece in word.split())
        if plain in _THE_LABS or of_lab:
            why = _THE_LABS.get(plain, "by those words the guest proves which one it is")
            raise _Refused(f"has {word!r}, which is the lab's own to set: {why}")
    if (size := sum(len(word) + 1 for word in words)) > MOST_CMDLINE:
        raise _Refused(f"has {size} bytes; at most {MOST_CMDLINE} fit beside the lab's own words")
    return tuple(words)


def _modules(value: object) -> tuple[str, ...]:
    names = _texts(value, "a list of kernel modules")
    for name in names:
        if _MODULE.fullmatch(name) is None:
            raise _Refused(f"names {name!r}, which is no name of a kernel module")
    return tuple(dict.fromkeys(names))


def _devices(value: object) -> tuple[str, ...]:
    devices = _texts(value, "a list of devices")
    for device in devices:
        if _DEVICE.fullmatch(device) is None:
            raise _Refused(f"is {device!r}, which is not DRIVER[,PROPERTY=VALUE]...")
    return tuple(devices)


def _texts(value: object, meant: str) -> Sequence[str]:
    """A list of texts."""
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return list(value)
    raise _Refused(f"is {value!r}, which is not {meant}")


_Readers = Mapping[str, tuple[str, Callable[[object], object]]]
_READERS: _Readers = {
    "cpus": ("cpus", _cpus),
    "memory": ("memory_mib", _memory),
    "sysctl": ("sysctl", _sysctl),
    "cmdline": ("cmdline", _cmdline),
    "modules": ("modules", _modules),
    "devices": ("devices", _devices),
}
_TYPED: _Readers = {**_READERS, "cpus": ("cpus", _typed_cpus), "sysctl": ("sysctl", _typed_sysctl)}
"""Those of a command line, where everything is text."""
KEYS = tuple(_READERS)
"""What a table or a marker may say."""
OPTIONS: Mapping[str, str] = {
    "cpus": "cpus",
    "memory": "memory",
    "sysctl": "sysctl",
    "cmdline": "append",
    "modules": "module",
    "devices": "device",
}
"""What they are called on a command line, behind `--`."""
assert {field for field, _ in _READERS.values()} == {one.name for one in fields(Wishes)}


def from_options(values: Mapping[str, object], *, prefix: str = "--") -> Wishes:
    """The wishes of a command line, whose options begin with `prefix`: numbers are text, `sysctl`
    is a list of NAME=VALUE. Raises UsageError that names all that cannot be meant."""
    wishes, wrong = _read(values, _TYPED)
    if wrong:
        named = (f"{prefix}{OPTIONS[one.key]} {one.why}" for one in wrong)
        raise UsageError("; ".join(named))
    return wishes
