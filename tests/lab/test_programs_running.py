# SPDX-License-Identifier: MIT
"""Programs that behave badly, each run on this machine: its own verdict, and nothing is left."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.programs import confinement, running
from lab.programs.items import judged_by
from lab.programs.listing import programs_of
from lab.programs.running import CannotRun, run
from lab.programs.spec import ProgramTest
from lab.programs.tap import State
from lab.project import Program, Project, read

pytestmark = pytest.mark.lab


def _groups() -> list[Path]:
    """The control groups that this user may write to: none without root, and in some containers."""
    top = confinement.control_groups()
    return [top] if top is not None and os.access(top / "cgroup.procs", os.W_OK) else []


GROUPS = _groups()
REAL = time.monotonic
Script = Callable[..., Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes a program; in Python unless it has a first line of its own."""

    def write(text: str, name: str = "program", mode: int = 0o755) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        head = (
            "" if text.startswith("#!") else f"#!{sys.executable} -ISu\nimport os, signal, time\n"
        )
        path.write_text(head + text)
        path.chmod(mode)
        return path

    return write


def ended(path: Path, seconds: float = 60.0) -> running.Ended:
    return run(path, directory=path.parent, seconds=seconds)


def alive(marker: str) -> bool:
    """Whether a process with this word in its arguments or environment still runs."""
    word = marker.encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if word in (entry / "environ").read_bytes():
                    return True
            except OSError:
                continue
    return False


def test_status_and_words_of_a_program(script: Script) -> None:
    found = ended(script("print('1..1'); print('ok 1'); os.write(2, b'why\\n'); os._exit(3)"))

    assert (3, b"1..1\nok 1\n", b"why\n", "why", "") == (
        found.status,
        found.stdout,
        found.stderr,
        found.last_line,
        found.why,
    )
    assert found.said.recognised
    assert not found.said.problems


def test_signal_that_killed_it(script: Script) -> None:
    assert -signal.SIGABRT == ended(script("os.abort()")).status


def test_its_standard_input_is_empty_and_its_directory_its_own(script: Script) -> None:
    path = script("print(os.read(0, 9), os.getcwd(), os.path.isdir(os.environ['TMPDIR']))")

    assert f"b'' {path.parent} True\n".encode() == ended(path).stdout


def test_program_that_does_not_end_is_killed(script: Script) -> None:
    found = ended(
        script("signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(300)"), 2.0
    )

    assert ("it did not end within 2 s and was killed", b"on\n") == (found.why, found.stdout)


def test_program_that_was_ended_has_failed_whatever_it_printed(script: Script) -> None:
    found = ended(script("print('1..1\\nok 1', flush=True)\ntime.sleep(300)"), 2.0)
    judged = judged_by(ProgramTest("unit/program", "program", "."), found)

    assert (State.FAILED, "it did not end within 2 s and was killed") == (judged.state, judged.why)


def test_much_output_ends_it(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MOST_OUTPUT", 4 << 20)
    found = ended(script("while True: os.write(1, b'ok 1 ' + b'x' * 60000)"))

    assert "it wrote more than 4 MiB and was killed" == found.why
    assert len(found.stdout) <= 5 * running.TAIL_BYTES


def test_daemon_that_holds_its_output_ends_with_it(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = f"lab-daemon-{os.getpid()}"
    monkeypatch.setenv("MARKER", marker)
    path = script("if os.fork() == 0: time.sleep(300)\nprint('1..1\\nok 1')")
    begun = time.monotonic()
    found = ended(path)

    assert (0, b"1..1\nok 1\n", "") == (found.status, found.stdout, found.why)
    assert time.monotonic() - begun < 60
    assert not alive(marker)


@pytest.mark.parametrize("groups", [True, False] if GROUPS else [False])
def test_what_left_its_session_ends_with_its_control_group(
    script: Script, monkeypatch: pytest.MonkeyPatch, groups: bool
) -> None:
    if not groups:
        monkeypatch.setattr(confinement, "control_groups", lambda: None)
    marker = f"lab-escaped-{os.getpid()}"
    monkeypatch.setenv("MARKER", marker)
    found = ended(
        script("if os.fork() == 0:\n os.setsid()\n if os.fork(): os._exit(0)\n time.sleep(20)")
    )

    assert 0 == found.status
    assert alive(marker) is not groups
    if groups:
        top = confinement.control_groups()
        assert top is not None
        assert not list(top.glob(f"{confinement.PREFIX}{os.getpid()}"))


if GROUPS:

    def test_programs_of_a_process_that_is_gone_are_ended(tmp_path: Path) -> None:
        [top] = GROUPS
        pid = os.fork()
        if pid == 0:  # what a pytest does that its program has killed
            with confinement.confinement() as confined:
                child = os.fork()
                if child == 0:
                    os.setsid()
                    confined.enter()
                    (tmp_path / "pid.new").write_text(str(os.getpid()))
                    (tmp_path / "pid.new").rename(tmp_path / "pid")
                    time.sleep(300)
                while not (tmp_path / "pid").exists():
                    time.sleep(0.01)
                os._exit(0)
        os.waitpid(pid, 0)
        left = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
        assert left.read_text().split()[2] not in "ZX"

        confinement.end_leftovers(top)

        assert not left.exists() or left.read_text().split()[2] in "ZX"
        assert not (top / f"{confinement.PREFIX}{pid}").exists()


def test_what_it_leaves_is_removed_where_that_is_asked_for(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "kept").touch()
    monkeypatch.setattr(running, "_SHARED", (str(shared),))
    path = script(
        f"os.makedirs('{shared}/a/b'); open('{shared}/f', 'w'); open('mine', 'w')", "in/program"
    )
    run(path, directory=path.parent, seconds=60.0)
    assert {"kept", "a", "f"} == {entry.name for entry in shared.iterdir()}
    for left in (shared / "f", path.parent / "mine"):
        left.unlink()
    (shared / "a/b").rmdir()
    (shared / "a").rmdir()

    run(path, directory=path.parent, seconds=60.0, tidy=True)

    assert ["kept"] == [entry.name for entry in shared.iterdir()]
    assert ["program"] == [entry.name for entry in path.parent.iterdir()]


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("#!/bin/sh\n", 0o644, "program is not executable (chmod +x)"),
        ("#!/no/such/shell\n", 0o755, "its interpreter /no/such/shell is not here"),
    ],
)
def test_program_that_cannot_start(script: Script, text: str, mode: int, why: str) -> None:
    with pytest.raises(CannotRun) as caught:
        ended(script(text, mode=mode))

    assert why == str(caught.value)


def test_file_that_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_bytes(b"\0\1\2 words")
    path.chmod(0o755)
    with pytest.raises(
        CannotRun, match=r"^words is no program of this machine, and has no #! line$"
    ):
        ended(path)
    with pytest.raises(CannotRun, match=r"^there is no file .*/gone$"):
        ended(tmp_path / "gone")


# -- which programs there are --------------------------------------------------------------------


def listed(root: Path, table: str) -> list[ProgramTest]:
    (root / "lab.toml").write_text(f'kernels = ["6.12"]\n{table}')
    return programs_of(read(root))


def test_directory_of_executables(script: Script, tmp_path: Path) -> None:
    for name in ("b/two", "b/one"):
        script("pass", name)
    script("#!/bin/sh\n", "b/lib.so.1")
    (tmp_path / "b/one.c").write_text("int main;")
    (tmp_path / "b/.hidden").write_text("#!/bin/sh\n")
    found = listed(tmp_path, '[[programs]]\nname = "unit"\ndirectory = "b"\ntimeout = 3\n')

    assert [
        ProgramTest("unit/one", "b/one", "b", seconds=3.0),
        ProgramTest("unit/two", "b/two", "b", seconds=3.0),
    ] == found
    assert found == [ProgramTest.from_object(test.to_object()) for test in found]


def test_command_that_lists_them(script: Script, tmp_path: Path) -> None:
    script("pass", "x/a")
    script("pass", "y/b")
    found = listed(
        tmp_path,
        '[[programs]]\nname = "unit"\nformat = "tap"\n'
        "command = ['printf', '# two\\nx/a\\n\\n./y/b\\n']\n",
    )

    assert [("unit/a", "x/a", "."), ("unit/b", "y/b", ".")] == [
        (test.name, test.path, test.directory) for test in found
    ]


def test_layout_of_kselftest(script: Script, tmp_path: Path) -> None:
    script("pass", "k/size/get_size")
    script("pass", "k/net/tls")
    script("pass", "k/net/deep/er.sh")
    (tmp_path / "k/net/settings").write_text("timeout=1500\n")
    (tmp_path / "k/kselftest-list.txt").write_text("size:get_size\nnet:tls\nnet:deep/er.sh\n")
    found = listed(tmp_path, '[[programs]]\nname = "k"\ndirectory = "k"\nformat = "kselftest"\n')

    assert [
        ("k/size:get_size", "k/size/get_size", "k/size", 45.0),
        ("k/net:tls", "k/net/tls", "k/net", 1500.0),
        ("k/net:deep/er.sh", "k/net/deep/er.sh", "k/net", 1500.0),
    ] == [(test.name, test.path, test.directory, test.seconds) for test in found]


DIRECTORY = '[[programs]]\nname = "unit"\ndirectory = "b"\n'
KSELFTEST = '[[programs]]\nname = "k"\ndirectory = "b"\nformat = "kselftest"\n'


def test_a_link_to_nothing_is_no_program_less(tmp_path: Path) -> None:
    """A test that was not built is not left out without a word."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b/there").write_text("#!/bin/sh\n")
    (tmp_path / "b/there").chmod(0o755)
    (tmp_path / "b/gone").symlink_to("../built/gone")
    project = Project(tmp_path, programs=(Program("unit", directory="b"),))
    with pytest.raises(UsageError, match="programs unit: b/gone is a link to what is not there"):
        programs_of(project)


@pytest.mark.parametrize(
    ("files", "table", "why"),
    [
        ({"b/x.c": ""}, DIRECTORY, "programs unit: there is no executable in b (build them first"),
        ({"b/x": "#!/bin/sh"}, DIRECTORY, "programs unit: b/x has a #! line and is not executable"),
        ({"b/x*": "#!/no/sh"}, DIRECTORY, "the interpreter of b/x, /no/sh, is not on this machine"),
        ({"b/x y*": "#!/bin/sh"}, DIRECTORY, "'b/x y' is no name for a test: it has a space"),
        (
            {"b/x*": "#!/bin/sh", "c/x*": "#!/bin/sh"},
            "[[programs]]\nname = \"u\"\ncommand = ['printf', 'b/x\\nc/x\\n']\n",
            "two programs are called u/x: b/x and c/x (list them in two tables",
        ),
        (
            {"b/x": "#!/bin/sh"},
            "[[programs]]\nname = \"u\"\ncommand = ['printf', 'b/x\\n']\n",
            "programs u: b/x is not executable (chmod +x b/x)",
        ),
        (
            {},
            "[[programs]]\nname = \"u\"\ncommand = ['printf', '/etc/passwd\\n']\n",
            "programs u: /etc/passwd is outside of",
        ),
        (
            {},
            '[[programs]]\nname = "u"\ncommand = ["true"]\n',
            "programs u: `true` lists no program",
        ),
        (
            {},
            "[[programs]]\nname = \"u\"\ncommand = ['sh', '-c', 'echo no rule >&2; exit 2']\n",
            "ended with status 2: no rule",
        ),
        (
            {},
            '[[programs]]\nname = "u"\ncommand = ["no-such-lister"]\n',
            "programs u: `no-such-lister` cannot be run: No such file or directory",
        ),
        ({"b/x": ""}, KSELFTEST, "programs k: b/kselftest-list.txt cannot be read"),
        (
            {"b/kselftest-list.txt": "net"},
            KSELFTEST,
            "has the line 'net', expected `collection:test`",
        ),
        ({"b/kselftest-list.txt": "net:x"}, KSELFTEST, "programs k: there is no file b/net/x"),
        ({"b/kselftest-list.txt": ""}, KSELFTEST, "b/kselftest-list.txt lists no test"),
    ],
)
def test_what_is_no_program_is_one_sentence(
    tmp_path: Path, files: dict[str, str], table: str, why: str
) -> None:
    for name, text in files.items():
        path = tmp_path / name.removesuffix("*")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name.endswith("*") else 0o644)
    with pytest.raises(UsageError) as caught:
        listed(tmp_path, table)

    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_in_the_pipe_at_the_limit_is_read(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that ends in time is judged by all of its output, even if its time is up while that
    is read."""
    path = script(
        "import fcntl, sys\n"
        "fcntl.fcntl(1, 1031, 1 << 20)\n"  # F_SETPIPE_SZ
        "os.write(1, b'1..1\\n' + b'# words\\n' * 100_000 + b'not ok 1\\n')\n"
    )
    late = [0.0]
    monkeypatch.setattr("lab.programs.running.time.monotonic", lambda: REAL() + late[0])
    kill = confinement.Confinement.kill

    def end(self: confinement.Confinement) -> None:
        late[0] = 1000.0  # the process is gone, and so is its time
        kill(self)

    monkeypatch.setattr(confinement.Confinement, "kill", end)

    found = ended(path, seconds=500.0)

    assert "" == found.why
    assert [State.FAILED] == [point.state for point in found.said.points]


def test_tap_on_standard_error_is_read(script: Script) -> None:
    """Where standard output has none, it counts; else standard error is words."""
    test = ProgramTest("unit/a", "a", ".")
    failing = script("os.write(2, b'1..1\\nnot ok 1 - a\\n')")
    both = script("print('1..1\\nok 1'); os.write(2, b'1..1\\nnot ok 1 - a\\n')", "both")

    assert State.FAILED is judged_by(test, ended(failing)).state
    assert State.PASSED is judged_by(test, ended(both)).state


def test_program_that_cannot_be_confined_does_not_run_in_a_guest(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it starts would stay behind, in the way of the tests that follow."""
    path = script("open('ran', 'w')")
    monkeypatch.setattr(confinement, "control_groups", lambda: None)
    with pytest.raises(CannotRun, match="it was not run: no control groups"):
        run(path, directory=path.parent, seconds=60.0, tidy=True)

    monkeypatch.setattr(confinement, "control_groups", lambda: path.parent / "nowhere")
    with pytest.raises(CannotRun, match="it was not run: no control group can be made for it"):
        run(path, directory=path.parent, seconds=60.0, tidy=True)

    assert not (path.parent / "ran").exists()
