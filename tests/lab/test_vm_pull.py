# SPDX-License-Identifier: MIT
"""Files come out of a guest whole, and nowhere but where they are wanted."""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab.commands import pulling
from lab.errors import LabError, UsageError
from lab.vm.pull import MOST_ENTRIES, Landing
from tests.lab.test_vm_agent import Local, local_guest

pytestmark = pytest.mark.lab


@pytest.fixture
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A guest whose agent is a process of this machine."""
    with local_guest(tmp_path_factory.mktemp("guest")) as made:
        yield made


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory of the guest's."""
    place = tmp_path / "there"
    place.mkdir()
    return place


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where things are to come to."""
    place = tmp_path / "here"
    place.mkdir()
    return place


def test_a_directory_comes_with_all_below_it(local: Local, there: Path, here: Path) -> None:
    """Bytes, modes, times, names with spaces and without UTF-8, empty files and directories, and
    links that stay inside; what is no file is left out with its reason."""
    big = os.urandom(3 << 20)
    (there / "a b/c\nd").mkdir(parents=True)
    (there / "a b/big").write_bytes(big)
    (there / "a b/big").chmod(0o4755)
    os.utime(there / "a b/big", (1_000_000_000, 1_000_000_000))
    (there / "a b/c\nd/empty").touch()
    Path(os.fsdecode(bytes(there) + b"/\xff")).write_bytes(b"odd")
    os.link(there / "a b/big", there / "second name")
    (there / "link").symlink_to("a b/big")
    (there / "absolute").symlink_to(there / "a b")
    (there / "away").symlink_to("/etc/passwd")
    (there / "up").symlink_to("a b/../../x")
    os.mkfifo(there / "pipe")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.path.relpath(there / "socket"))

        pulled = local.guest.pull(str(there), here / "got")

    got = here / "got"
    assert (got / "a b/big").read_bytes() == big
    assert (got / "a b/big").stat().st_mode & 0o7777 == 0o755
    assert (got / "a b/big").stat().st_mtime == 1_000_000_000
    assert (got / "a b/c\nd/empty").read_bytes() == b""
    assert Path(os.fsdecode(bytes(got) + b"/\xff")).read_bytes() == b"odd"
    assert (got / "second name").read_bytes() == big
    assert (got / "link").readlink() == Path("a b/big")
    assert (got / "absolute").readlink() == Path("a b")
    assert not os.path.lexists(got / "away")
    assert not os.path.lexists(got / "up")
    assert sorted(pulled.left_out) == [
        "away: a link to /etc/passwd, which is not in " + str(there),
        "pipe: neither a file, a directory nor a link",
        "socket: neither a file, a directory nor a link",
        "up: a link to a b/../../x, which is not in " + str(there),
    ]
    assert (pulled.files, pulled.bytes) == (4, 2 * len(big) + 3)
    assert not list(got.rglob(".lab-*"))


def test_one_file_comes_to_its_place(local: Local, there: Path, here: Path) -> None:
    """What was there is replaced, a link there is not followed; a link in the guest is; and a file
    of /proc, whose size is said to be 0, has its text."""
    (there / "real").write_text("new")
    (there / "name").symlink_to("real")
    (here / "mine").write_text("mine")
    (here / "got").symlink_to("mine")

    local.guest.pull(str(there / "name"), here / "got")

    assert (here / "got").read_text() == "new"
    assert not (here / "got").is_symlink()
    assert (here / "mine").read_text() == "mine"
    local.guest.pull("/proc/version", here / "version")
    assert (here / "version").read_text() == Path("/proc/version").read_text()


def test_what_cannot_be_had_is_one_sentence(local: Local, there: Path, here: Path) -> None:
    """A path that is not there, more than is allowed, a destination without a directory; after
    each the guest is as good as before."""
    guest = local.guest
    (there / "file").write_bytes(bytes(2000))
    with pytest.raises(LabError, match=r"^the guest has no /nosuch/file: No such file or direct"):
        guest.pull("/nosuch/file", here / "x")
    with pytest.raises(LabError, match=r"holds 2000 bytes; at most 1999 are pulled \(pull a part"):
        guest.pull(str(there), here / "x", most_bytes=1999)
    with pytest.raises(LabError, match=r"nosuch/x cannot be written: No such file or directory"):
        guest.pull(str(there), here / "nosuch/x")
    assert list(here.iterdir()) == []
    (here / "x").write_text("a file")
    with pytest.raises(LabError, match=r"x cannot be written: Not a directory"):
        guest.pull(str(there), here / "x")
    (here / "d/file").mkdir(parents=True)
    with pytest.raises(LabError, match=r"^file cannot be written: Is a directory"):
        guest.pull(str(there), here / "d")
    assert list((here / "d").iterdir()) == [here / "d/file"]
    with (there / "file").open("r+b") as file:
        file.truncate(64 << 20)
    with pytest.raises(LabError, match=r"x cannot be written: Not a directory"):
        guest.pull(str(there), here / "x")
    agent = local.agent.pid  # it was killed, and does not wait for somebody to read the rest
    assert Path(f"/proc/{agent}/task/{agent}/children").read_text() == ""
    (there / "file").write_bytes(bytes(2000))
    guest.pull(str(there), here / "y")
    assert (here / "y/file").stat().st_size == 2000
    guest.ping()


def test_what_is_there_already_is_not_written_through(
    local: Local, there: Path, here: Path, tmp_path: Path
) -> None:
    """A link in the destination that leads away ends the pull, and nothing is written behind it."""
    (there / "sub").mkdir()
    (there / "sub/file").write_text("theirs")
    outside = tmp_path / "outside"
    outside.mkdir()
    (here / "got").mkdir()
    (here / "got/kept").write_text("ours")
    (here / "got/sub").symlink_to(outside)

    with pytest.raises(LabError, match=r"got/sub cannot be written: Not a directory"):
        local.guest.pull(str(there), here / "got")

    assert list(outside.iterdir()) == []
    assert (here / "got/kept").read_text() == "ours"


def entry(**words: object) -> bytes:
    """A line of a guest's."""
    return json.dumps(words).encode() + b"\n"


def file(name: str, size: int = 1) -> bytes:
    """A file of so many bytes, its line and its bytes."""
    return entry(kind="file", name=name, mode=0o644, mtime=1, size=size) + b"x" * size


def taken(landing: Landing, said: bytes) -> None:
    """All of it, in pieces that end anywhere."""
    for start in range(0, len(said), 999):
        landing.take(said[start : start + 999])
    landing.finish()


TOP = entry(kind="directory", name="", mode=0o755)
END = entry(end=True)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (TOP + file("../evil") + END, r"'\.\./evil' is no name in a directory"),
        (TOP + file("a/../../evil") + END, "is no name in a directory"),
        (TOP + file("/evil") + END, "is no name in a directory"),
        (TOP + file("a//b") + END, "is no name in a directory"),
        (TOP + file("a\0b") + END, "is no name in a directory"),
        (TOP + entry(kind="link", name="", target="x") + END, "neither a file, a directory nor"),
        (TOP + entry(kind="device", name="x") + END, "neither a file, a directory nor a link"),
        (TOP + entry(kind="file", name=3, mode=0, mtime=1, size=1), "its name is no text"),
        (TOP + entry(kind="file", name="a", mode=0, mtime=1, size=-1), "is more than 100 bytes"),
        (TOP + file("a", 60) + file("b", 60) + END, "is more than 100 bytes, which is more than"),
        (TOP + entry(kind="file", name="a"), "where a part of /there was due"),
        (TOP + entry(kind="file", name="a", mode=0, mtime=10**30, size=1) + b"x", "time is none"),
        (TOP + b'{"kind":"file","name":"a","mode":0,"mtime":1e999,"size":0}\n', "was due"),
        (TOP + b"[" * 60_000 + b"\n", "where a part of /there was due"),
        (TOP + b"[]\n", "where a part of /there was due"),
        (TOP + b"x" * (1 << 17), "a line without an end where a part of /there was due"),
        (TOP + file("a") + END + file("b"), "where a part of /there was due"),
        (TOP + file("a", 10)[:-1], "did not come whole"),
        (TOP + file("a"), "did not come whole"),
        (b"", "did not come whole"),
    ],
)
def test_a_guest_that_lies_writes_nothing_elsewhere(here: Path, said: bytes, sentence: str) -> None:
    """Names that lead away, more bytes than were told, lines that are none, an early end."""
    landing = Landing("/there", here / "got", most_bytes=100)
    try:
        with pytest.raises(LabError, match=sentence):
            taken(landing, said)
    finally:
        landing.close()
    assert [path.name for path in here.iterdir()] in ([], ["got"])
    assert {path.name for path in here.rglob("*")} <= {"got", "a"}


def test_a_link_that_came_is_not_followed(here: Path, tmp_path: Path) -> None:
    """Not by a file below it, not by a directory; and a chain of links cannot lead out."""
    for target in ("..", "a/..", "/", "../../x", ""):
        landing = Landing("/there", here / "one")
        landing.take(TOP + entry(kind="link", name="l", target=target) + END)
        landing.close()
        assert len(landing.finish().left_out) == 1, target
        assert not os.path.lexists(here / "one/l")
    landing = Landing("/there", here / "two")
    landing.take(TOP + entry(kind="link", name="sub/l", target="../a"))
    landing.take(entry(kind="link", name="x", target="sub"))
    try:
        with pytest.raises(LabError, match="x/evil cannot be written: Not a directory"):
            landing.take(file("x/evil"))
    finally:
        landing.close()
    assert [path.name for path in (here / "two/sub").iterdir()] == ["l"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def test_a_disk_without_room_is_a_sentence(here: Path) -> None:
    """And no half of a file is left there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    landing = Landing("/there", here / "got")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        with pytest.raises(LabError, match="a cannot be written: File too large"):
            landing.take(TOP + file("a", 1000))
    finally:
        landing.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [] == list((here / "got").iterdir())


def test_files_without_end_are_refused(here: Path) -> None:
    """So many empty files are as bad as too many bytes."""
    landing = Landing("/there", here / "got")
    try:
        with pytest.raises(LabError, match=f"holds more than {MOST_ENTRIES} files"):
            taken(landing, TOP * (MOST_ENTRIES + 1))
    finally:
        landing.close()


@pytest.mark.parametrize(
    ("text", "path", "place"),
    [
        ("out", "/work/out", "out"),
        ("/a b/c d", "/a b/c d", "c d"),
        ("../x:y", "/x", "y"),
        ("/x:dir", "/x", "dir/x"),
        ("/x:dir/", "/x", "dir/x"),
        (r"/x\:y:z\:1", "/x:y", "z:1"),
    ],
)
def test_what_is_asked_for_and_where_it_comes_to(
    here: Path, monkeypatch: pytest.MonkeyPatch, text: str, path: str, place: str
) -> None:
    """Relative to where the command starts; into a directory that is there; colons escaped."""
    monkeypatch.chdir(here)
    (here / "dir").mkdir()
    assert pulling.asked(text, "/work") == pulling.Pull(path, Path(place))


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ([""], "--pull '' names no file or directory of the guest"),
        (["/"], "--pull '/' names no file or directory of the guest"),
        (["..:x"], "--pull '..:x' names no file or directory of the guest"),
        (["/x:"], "--pull '/x:' names no place here behind its colon"),
        (["/x:nosuch/y"], "--pull '/x:nosuch/y': there is no directory nosuch here"),
        (["/a/x", "/b/x"], "--pull /b/x: another one comes to x as well"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, texts: Sequence[str], sentence: str
) -> None:
    """Before anything boots, by its own words."""
    monkeypatch.chdir(here)
    with pytest.raises(UsageError) as caught:
        pulling.all_asked(texts, "/work")
    assert str(caught.value).startswith(sentence)


def test_one_missing_thing_keeps_no_other_from_coming(
    local: Local, there: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be had is said, the rest comes, and it is known that not all did."""
    (there / "x").write_text("x")
    missing, good = pulling.Pull("/nosuch", here / "n"), pulling.Pull(f"{there}/x", here / "x")

    assert pulling.done(local.guest, [good]) is True
    assert pulling.done(local.guest, [missing, good]) is False

    assert (here / "x").read_text() == "x"
    assert capsys.readouterr().err == (
        "lab: --pull /nosuch: the guest has no /nosuch: No such file or directory\n"
    )
