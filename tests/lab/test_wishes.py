# SPDX-License-Identifier: MIT
"""What a guest may be asked for, and in which words the rest is refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from lab.errors import LabError, UsageError
from lab.vm import Accel, AccelKind, launchpad, provide, room
from lab.wishes import KEYS, OPTIONS, Wishes, from_options, read

pytestmark = pytest.mark.lab


def test_a_table_and_a_command_line_mean_the_same() -> None:
    """Number or text, table or NAME=VALUE: the wishes are equal, and so is their hash."""
    table, wrong = read(
        {
            "cpus": 2,
            "memory": "1G",
            "sysctl": {"vm.swappiness": 10, "net.core.somaxconn": "128"},
            "cmdline": 'nosmt dyndbg="file a.c +p"',
            "modules": ["veth"],
            "devices": ["virtio-rng-pci,max-bytes=64"],
        }
    )
    assert not wrong
    typed = from_options(
        {
            "cpus": "2",
            "memory": "1024",
            "sysctl": ["vm.swappiness=10", "net.core.somaxconn=128"],
            "cmdline": ["nosmt", 'dyndbg="file a.c +p"'],
            "modules": ["veth"],
            "devices": ["virtio-rng-pci,max-bytes=64"],
        }
    )
    assert table == typed
    assert hash(table) == hash(typed)
    assert table.cmdline == ("nosmt", 'dyndbg="file a.c +p"')
    assert table.memory_mib == 1024


def test_wishes_are_typed_again_as_options() -> None:
    """What is printed is what a shell and the command line read back."""
    wishes = Wishes(2, 512, (("a.b", "1 2"),), ('dyndbg="x y"',), ("veth",), ("virtio-rng-pci",))
    back: dict[str, list[str]] = {}
    for word in shlex.split(str(wishes)):
        option, _, value = word.removeprefix("--").partition("=")
        back.setdefault(option, []).append(value)
    given: dict[str, object] = {key: back[option] for key, option in OPTIONS.items()}
    given |= {key: back[key][0] for key in ("cpus", "memory")}
    assert from_options(given) == wishes
    assert str(Wishes()) == ""
    assert not Wishes()
    assert wishes


def test_later_wishes_win_or_are_added() -> None:
    """A test's wishes stand above the command line's, those above the project's."""
    project = Wishes(1, 512, (("a.b", "1"), ("c.d", "1")), ("x",), ("veth",), ("one",))
    test = Wishes(2, None, (("a.b", "2"),), ("y",), ("dummy", "veth"), ("two",))
    assert test.over(project) == Wishes(
        *(2, 512, (("a.b", "2"), ("c.d", "1"))),
        *(("x", "y"), ("veth", "dummy"), ("one", "two")),
    )
    assert Wishes().over(project) == project


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("cpus", 0, "is 0; a guest has 1 to 64 processors"),
        ("cpus", 65, "is 65; a guest has 1 to 64 processors"),
        ("cpus", "2", "is '2', which is no number of processors, 1 to 64"),
        ("cpus", "two", "is 'two', which is no number of processors, 1 to 64"),
        ("cpus", True, "is True, which is no number of processors, 1 to 64"),
        ("cpus", 1.5, "is 1.5, which is no number of processors, 1 to 64"),
        ("memory", "1Q", "is '1Q', which is no size: a number of MiB, or one like 768M or 2G"),
        ("memory", "-1", "is '-1', which is no size: a number of MiB, or one like 768M or 2G"),
        ("memory", 1, "is 1; a guest needs at least 128 MiB to boot"),
        ("memory", "3T", "is 3T; a guest has at most 1 TiB"),
        ("sysctl", ["a.b=1"], "is ['a.b=1'], which is not a table of names and values"),
        (
            "sysctl",
            {"vm": {"swappiness": 1}},
            "has a table called 'vm': a name with dots stands in quotes, \"vm.swappiness\" = ...",
        ),
        ("sysctl", {"../x": 1}, "names '../x', which is no name like vm.swappiness"),
        ("sysctl", {"vm/../../x": 1}, "names 'vm/../../x', which is no name like vm.swappiness"),
        ("sysctl", {"a.b": 1.5}, "sets a.b to 1.5, which is neither text nor a whole number"),
        ("sysctl", {"a.b": "1\n2"}, "sets a.b to '1\\n2', which is not one line of text"),
        ("sysctl", 3, "is 3, which is not a table of names and values"),
        ("cmdline", 'a="b', "is 'a=\"b', which is not one line of ASCII with its quotes closed"),
        ("cmdline", "a\nb", "is 'a\\nb', which is not one line of ASCII with its quotes closed"),
        ("cmdline", "x" * 1024, "has 1025 bytes; at most 1024 fit beside the lab's own words"),
        ("modules", ["../x"], "names '../x', which is no name of a kernel module"),
        ("modules", 3, "is 3, which is not a list of kernel modules"),
        ("modules", "veth", "is 'veth', which is not a list of kernel modules"),
        ("devices", "a", "is 'a', which is not a list of devices"),
        ("devices", ["a b"], "is 'a b', which is not DRIVER[,PROPERTY=VALUE]..."),
        ("colour", 1, f"is unknown; a guest is asked for {', '.join(KEYS)}"),
    ],
)
def test_what_cannot_be_meant_is_refused(key: str, value: object, sentence: str) -> None:
    """Each with its value and what it may be."""
    wishes, (wrong,) = read({key: value})
    assert (wrong.key, wrong.why) == (key, sentence)
    assert not wishes


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("cpus", "65", "--cpus is 65; a guest has 1 to 64 processors"),
        ("cpus", "two", "--cpus is 'two', which is no number of processors, 1 to 64"),
        ("sysctl", ["vm.swappiness"], "--sysctl is 'vm.swappiness', which is not NAME=VALUE"),
        ("sysctl", ["a.b=1", "a.b=2"], "--sysctl sets a.b twice, to '1' and '2'"),
    ],
)
def test_option_that_cannot_be_meant_is_refused(key: str, value: object, sentence: str) -> None:
    """On a command line numbers are text, and a sysctl is NAME=VALUE."""
    with pytest.raises(UsageError, match=f"^{re.escape(sentence)}$"):
        from_options({key: value})


@pytest.mark.parametrize(
    "word",
    [
        *("console=tty0", "lab.nonce=0", "panic=0", "oops=ignore", "rdinit=/bin/sh", "init=/x"),
        *("printk.devkmsg=off", "log_buf_len=1k", "module.sig-enforce=0", "--", 'con"sole"=tty0'),
        *('x="a lab.nonce=0"', "quiet", "loglevel=0"),
    ],
)
def test_what_the_lab_needs_is_not_overridden(word: str) -> None:
    """A guest without its console, its nonce or its end after a panic would prove nothing."""
    _, (wrong,) = read({"cmdline": f"nosmt {word}"})
    assert f"has {word!r}, which is the lab's own to set: " in wrong.why


@pytest.mark.parametrize("name", ["kernel.printk", "kernel/printk_devkmsg", "kernel.panic"])
def test_no_sysctl_blinds_the_lab(name: str) -> None:
    """What a kernel complains of would not be heard, or its end would not be seen."""
    _, (wrong,) = read({"sysctl": {name: 0}})
    assert f"sets {name}, which is the lab's own to set: " in wrong.why


def test_all_that_is_wrong_is_told_at_once() -> None:
    """One sentence names each option as it was typed."""
    with pytest.raises(UsageError) as caught:
        from_options({"cpus": "0", "memory": "1Q", "sysctl": None}, prefix="--lab-")
    assert str(caught.value) == (
        "--lab-cpus is 0; a guest has 1 to 64 processors; --lab-memory is '1Q', which is no size: "
        "a number of MiB, or one like 768M or 2G"
    )


class Stuck:
    """A guest in which no command ends."""

    kernel = SimpleNamespace(release="9.9")
    slowdown = 2.0

    def run(self, argv: Sequence[str], *, timeout_s: float) -> NoReturn:
        raise TimeoutError(f"{argv[0]} did not end within {timeout_s:g} s")


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        (Wishes(modules=("bad",)), "9.9 does not load the module bad within 120 s"),
        (Wishes(sysctl=(("a.b", "1"),)), "9.9 does not take the sysctl a.b=1 within 120 s"),
    ],
)
def test_a_wish_that_takes_for_ever_is_a_sentence(wishes: Wishes, sentence: str) -> None:
    """A module that never ends its loading, say: its guest cannot be had."""
    with pytest.raises(LabError, match=f"^{re.escape(sentence)}$"):
        provide.settle(cast("Any", Stuck()), wishes)


@pytest.mark.parametrize(("others", "guests"), [((), 2), (("3G",), 1), (("512M", "1G"), 2)])
def test_guests_side_by_side_leave_room_for_the_largest(
    monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...], guests: int
) -> None:
    """A test may ask for more memory than the usual guest has."""
    monkeypatch.setattr(room, "processors", lambda: 4)
    monkeypatch.setattr(room, "free_mib", lambda: 4000)
    pad: Any = launchpad.Launchpad(cast(Any, None))
    pad._made = None, Accel(AccelKind.TCG, "none", "none", "a test")
    wishes = [read({"memory": size})[0] for size in others]

    assert guests == pad.side_by_side(wishes)
