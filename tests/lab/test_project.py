# SPDX-License-Identifier: MIT
"""[tool.lab] and lab.toml: what a repository says is what the lab takes it for, and what cannot be
meant is named with its line."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import project
from lab.errors import UsageError
from lab.project import ProgramFormat, Project
from lab.project import table as reader
from lab.project.globs import matches
from lab.project.positions import lines_of
from lab.project.travel import largest, weigh
from lab.vm import AccelKind, direct, launcher_named, rootfs
from lab.vm.processor import Accel
from lab.wishes import KEYS, Wishes

pytestmark = pytest.mark.lab

Write = Callable[[str], Path]


@pytest.fixture
def table(tmp_path: Path) -> Write:
    """Writes a pyproject.toml and returns the repository's root."""

    def write(text: str) -> Path:
        (tmp_path / "pyproject.toml").write_text(text)
        return tmp_path

    return write


def complaint(root: Path) -> list[str]:
    """The lines of what is wrong with the table."""
    with pytest.raises(UsageError) as raised:
        project.read(root)
    return str(raised.value).splitlines()


def names(found: Project) -> list[str]:
    """The paths of what travels."""
    return [str(one.path) for one in project.travellers(found)]


def files(root: Path, *paths: str, text: str = "") -> None:
    """Make files and the directories that they are in."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def git(root: Path, *words: str) -> None:
    """Run git in a directory, without the settings of this machine."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True)


# -- reading ---------------------------------------------------------------------------------


def test_only_the_kernels_are_needed(table: Write) -> None:
    found = project.read(table('[tool.lab]\nkernels = ["6.1", "6.12"]\n'))
    assert ("6.1", "6.12") == found.kernels
    assert Project(found.root, "pyproject.toml", ("6.1", "6.12")) == found
    assert (Wishes(), None, False) == (found.guest, found.plugins, found.skips_need_proof)


def test_a_repository_without_a_table_is_one_of_defaults(tmp_path: Path) -> None:
    assert Project(tmp_path.resolve()) == project.read(tmp_path)


def test_every_key_arrives(table: Write) -> None:
    found = project.read(
        table(
            """
[tool.lab]
kernels = ["6.12"]
include = ["src/**"]
exclude = ["src/data"]
products = ["src/a.so"]
environment-exclude = ["torch"]
plugins = ["asyncio"]
setup = "make -C 'a b'"
probe = ["python", "-m", "a"]
mask-variable = "A_CAPS"
contract = "tests/expected.toml"
skips-need-proof = true
issues = "tests/issues.txt"
dmesg-allow = "tests/allow.toml"
by-make = true
lock = "tests/kernels.lock"
cpus = 2
memory = "2G"
modules = ["veth"]
devices = ["virtio-rng-pci"]
sysctl = {"net.core.somaxconn" = 128}
cmdline = "nosmt  nokaslr"

[tool.lab.errata]
list = "tests/errata.toml"
reproducers = "tests/errata/"
sources = ["src/a.c"]

[[tool.lab.programs]]
name = "unit"
directory = "build/tests"
format = "tap"
timeout = 5

[[tool.lab.programs]]
name = "other"
command = "./list all"
"""
        )
    )
    assert ("make", "-C", "a b") == found.setup
    assert ("python", "-m", "a") == found.probe
    assert found.guest == Wishes(
        cpus=2,
        memory_mib=2048,
        modules=("veth",),
        devices=("virtio-rng-pci",),
        sysctl=(("net.core.somaxconn", "128"),),
        cmdline=("nosmt", "nokaslr"),
    )
    assert found.skips_need_proof is True
    assert found.by_make is True
    assert ("torch",) == found.environment_exclude
    assert found.errata is not None
    assert ("tests/errata", ("tests/errata",)) == (found.errata.reproducers, found.errata.followed)
    unit, other = found.programs
    assert ("unit", "build/tests", ProgramFormat.TAP, 5.0) == (
        unit.name,
        unit.directory,
        unit.format,
        unit.timeout_s,
    )
    assert (("./list", "all"), ProgramFormat.AUTO, None) == (
        other.command,
        other.format,
        other.timeout_s,
    )


def test_lab_toml_is_the_table_itself(tmp_path: Path) -> None:
    (tmp_path / "lab.toml").write_text('kernels = ["6.12"]\ncpus = 4\n')
    found = project.read(tmp_path)
    assert ("lab.toml", 4) == (found.file, found.guest.cpus)


def test_a_pyproject_without_the_table_leaves_it_to_lab_toml(table: Write) -> None:
    root = table('[project]\nname = "a"\n')
    (root / "lab.toml").write_text('kernels = ["6.12"]\n')
    assert "lab.toml" == project.read(root).file


def test_two_tables_are_one_sentence(table: Write) -> None:
    root = table('[tool.lab]\nkernels = ["6.12"]\n')
    (root / "lab.toml").write_text('kernels = ["6.12"]\n')
    [line] = complaint(root)
    assert "has [tool.lab] in pyproject.toml and a lab.toml" in line


def test_what_is_no_toml_is_one_sentence(table: Write) -> None:
    [line] = complaint(table("[tool.lab\n"))
    assert "pyproject.toml cannot be read" in line
    assert "line 1" in line


@pytest.mark.parametrize("file", ["", "\n# nothing\n"])
def test_an_empty_lab_toml_lacks_its_kernels(tmp_path: Path, file: str) -> None:
    (tmp_path / "lab.toml").write_text(file)
    [line] = complaint(tmp_path)
    assert line.startswith("lab.toml:1: kernels is missing")


def test_all_faults_at_once_each_with_its_line_and_what_was_meant(table: Write) -> None:
    lines = complaint(
        table(
            '''\
[project]
description = """
[tool.lab]
cpus = 3
"""
[tool.lab]
kernel = ["6.12"]
memory = "lots"
skips_need_proof = true
cpus = true
sysctl = {somaxconn = 1}
include = [
  "/etc",
]

[[tool.lab.programs]]
name = "a"
directory = "b"

[[tool.lab.programs]]
name = "a"
format = "kselftests"
'''
        )
    )
    assert [
        "pyproject.toml:6: kernels is missing: name what to test on, such as "
        'kernels = ["6.1", "6.12"]',
        "pyproject.toml:7: kernel is no key of [tool.lab]; did you mean kernels?",
        "pyproject.toml:8: memory is 'lots', which is no size: a number of MiB, or one like 768M "
        "or 2G",
        "pyproject.toml:9: skips_need_proof is no key of [tool.lab]; did you mean "
        "skips-need-proof?",
        "pyproject.toml:10: cpus is True, which is no number of processors, 1 to 64",
        "pyproject.toml:11: sysctl names 'somaxconn', which is no name like vm.swappiness",
        "pyproject.toml:12: include is ['/etc'], expected a path in the repository, relative to "
        "its root",
        "pyproject.toml:20: program 'a': one of directory and command, and not both",
        "pyproject.toml:21: two programs are called a",
        "pyproject.toml:22: format is 'kselftests', expected one of exit, tap, ktap, auto, "
        "kselftest; did you mean kselftest?",
    ] == lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kernels = "6.12"', "a list of kernels in quotes"),
        ("kernels = [6.12]", "a list of kernels in quotes"),
        ("kernels = []", "a list of kernels in quotes"),
        ("cpus = 0", "a guest has 1 to 64 processors"),
        ("memory = 64", "a guest needs at least"),
        ('exclude = ["../a"]', "a path in the repository"),
        ('contract = ""', "a string that is not empty"),
        ('setup = "a \'b"', "No closing quotation"),
        ('cmdline = "lab.nonce=1"', "the lab's own to set"),
        ('mask-variable = "A B"', "the name of an environment variable"),
        ("errata = 3", "[tool.lab.errata] is 3, expected a table"),
        ('errata = {list = "a"}', "[tool.lab.errata] has no reproducers"),
        ('programs = {name = "a"}', "an array of tables"),
        ('programs = [{directory = "a"}]', "[tool.lab.programs] has no name"),
        ('contract = "a.toml"', "there is no probe"),
        ("skips-need-proof = true", "name them both"),
        ("nonsense-of-all-kinds = 1", "the keys are by-make, cmdline, contract"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(table: Write, text: str, said: str) -> None:
    kernels = "" if text.startswith("kernels") else 'kernels = ["6.12"]'
    [line] = complaint(table(f"[tool.lab]\n{kernels}\n{text}\n"))
    assert line.startswith("pyproject.toml:3: ")
    assert said in line


VALUES = {
    "text": '"3"',
    "number": "3",
    "fraction": "1.5",
    "switch": "true",
    "date": "2026-01-01",
    "texts": '["a.b=3"]',
    "numbers": "[3]",
    "mixed": '["a.b=3", 3]',
    "lists": '[["a.b=3"]]',
    "table": "{a = 3}",
    "tables": "[{a = 3}]",
}
"""A value of each type that TOML has, as it is written."""
_TEXT, _LIST, _COMMAND = {"text"}, {"texts"}, {"text", "texts"}
TYPES: dict[str, set[str]] = {
    "kernels": _LIST,
    "include": _LIST,
    "exclude": _LIST,
    "products": _LIST,
    "environment-exclude": _LIST,
    "plugins": _LIST,
    "setup": _COMMAND,
    "probe": _COMMAND,
    "mask-variable": _TEXT,
    "contract": _TEXT,
    "skips-need-proof": {"switch"},
    "issues": _TEXT,
    "errata": {"table"},
    "errata.list": _TEXT,
    "errata.reproducers": _TEXT,
    "errata.followed": _TEXT | _LIST,
    "errata.sources": _LIST,
    "errata.page": _TEXT,
    "errata.table": _TEXT,
    "dmesg-allow": _TEXT,
    "by-make": {"switch"},
    "lock": _TEXT,
    "programs": {"tables"},
    "programs.name": _TEXT,
    "programs.directory": _TEXT,
    "programs.command": _COMMAND,
    "programs.format": _TEXT,
    "programs.timeout": {"number", "fraction"},
    "cpus": {"number"},
    "memory": {"number", "text"},
    "sysctl": {"table"},
    "cmdline": _COMMAND,
    "modules": _LIST,
    "devices": _LIST,
}
"""Which of them each key of the table takes."""


def test_types_of_all_keys_are_known() -> None:
    """A new key has its row here."""
    nested = {f"errata.{key}" for key in reader._ERRATA}
    nested |= {f"programs.{key}" for key in reader._PROGRAM_KEYS}
    assert {*reader._KEYS, *KEYS, *nested} == TYPES.keys()


@pytest.mark.parametrize("key", TYPES)
def test_values_of_wrong_types_are_refused_with_their_line(table: Write, key: str) -> None:
    above, _, last = key.rpartition(".")
    needed = {
        "": {} if key == "kernels" else {"kernels": '["6.12"]'},
        "errata": {"list": '"a"', "reproducers": '"b"'},
        "programs": {"name": '"a"', "directory": '"b"'},
    }[above]
    if key == "programs.command":
        del needed["directory"]
    needed.pop(last, None)
    header = {"": "", "errata": "[tool.lab.errata]", "programs": "[[tool.lab.programs]]"}[above]
    kernels = 'kernels = ["6.12"]' if above else ""
    others = "\n".join(f"{name} = {text}" for name, text in needed.items())

    for kind in VALUES.keys() - TYPES[key]:
        text = f"[tool.lab]\n{kernels}\n{header}\n{last} = {VALUES[kind]}\n{others}\n"
        lines = complaint(table(text))

        assert all(line.startswith("pyproject.toml:4: ") for line in lines), (kind, lines)
        assert f"{last} " in lines[0] or f".{last}] " in lines[0], kind
        (wrong,) = tomllib.loads(f"key = {VALUES[kind]}").values()
        shown = (wrong, wrong[0]) if isinstance(wrong, list) else (wrong,)
        assert any(repr(one) in lines[0] for one in shown), (kind, lines)


def test_lines_of_dotted_keys_and_tables() -> None:
    text = 'a.b = 1\n[c]\nd = [\n1,\n2]\n[[e.f]]\ng = """\n[x]\n"""\n[[e.f]]\n[e.f.h]\ni = 1\n'
    assert {
        ("a",): 1,
        ("a", "b"): 1,
        ("c",): 2,
        ("c", "d"): 3,
        ("c", "d", 0): 3,
        ("c", "d", 1): 3,
        ("e", "f", 0): 6,
        ("e", "f", 0, "g"): 7,
        ("e", "f", 1): 10,
        ("e", "f", 1, "h"): 11,
        ("e", "f", 1, "h", "i"): 12,
    } == lines_of(text)


# -- what travels ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("src", "src/a/b.py", True),
        ("src", "srcs/a.py", False),
        ("src/**", "src/a/b.py", True),
        ("src/**", "src", False),
        ("**/*.c", "a.c", True),
        ("**/*.c", "a/b/c.c", True),
        ("*.c", "a/b.c", False),
        ("src/*/a.py", "src/b/a.py", True),
        ("src/*/a.py", "src/b/c/a.py", False),
        ("a.so", "axso", False),
        ("a[0-9].py", "a7.py", True),
        ("a[!0-9].py", "a7.py", False),
        ("?.py", "/.py", False),
        ("build*", "build-3.11/lib/a.so", True),
    ],
)
def test_globs(pattern: str, path: str, expected: bool) -> None:
    assert expected is matches(pattern, path)


def test_what_git_knows_travels_and_what_it_ignores_does_not(table: Write) -> None:
    root = table('[tool.lab]\nkernels = ["6.12"]\nproducts = ["src/a/*.so"]\n')
    files(root, "src/a/__init__.py", "src/a/data/x.bin", "tests/test_a.py", "new.py")
    files(root, "src/a/_c.so", "build/junk.o", "src/a/__pycache__/a.pyc", "lab-results/x/junit.xml")
    (root / ".gitignore").write_text("*.so\nbuild/\n__pycache__/\n")
    git(root, "init", "-q")
    git(root, "add", "src", "tests")
    found = project.read(root)
    assert [
        ".gitignore",
        "new.py",
        "pyproject.toml",
        "src/a/__init__.py",
        "src/a/_c.so",
        "src/a/data/x.bin",
        "tests/test_a.py",
    ] == names(found)
    assert ["src/a/_c.so"] == [str(one.path) for one in project.travellers(found) if one.product]


def test_a_submodule_travels(table: Write, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    files(other, "inner.py")
    git(other, "init", "-q")
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "a")
    root = table('[tool.lab]\nkernels = ["6.12"]\ninclude = ["vendor/**"]\n')
    git(root, "init", "-q")
    git(root, "submodule", "add", "-q", str(other), "vendor/other")
    assert ["pyproject.toml", "vendor/other/inner.py"] == names(project.read(root))


def test_without_git_all_files_travel_but_environments_and_caches(table: Write) -> None:
    root = table('[tool.lab]\nkernels = ["6.12"]\nexclude = ["big"]\n')
    files(root, "a.py", "big/x", "env/pyvenv.cfg", "env/lib/b.py", ".pytest_cache/c", "d/e/f.py")
    assert ["a.py", "d/e/f.py", "pyproject.toml"] == names(project.read(root))


def test_an_excluded_product_travels_all_the_same(table: Write) -> None:
    root = table('[tool.lab]\nkernels = ["6.12"]\nexclude = ["**/*.so"]\nproducts = ["a.so"]\n')
    files(root, "a.so", "b.so")
    assert ["a.so", "pyproject.toml"] == names(project.read(root))


# -- what must be there ----------------------------------------------------------------------


def test_what_is_named_and_not_there_is_said_all_at_once(table: Write) -> None:
    root = table(
        '[tool.lab]\nkernels = ["6.12"]\ninclude = ["src/**"]\nexclude = ["gone"]\n'
        'products = ["src/*.so"]\nprobe = "p"\ncontract = "c.toml"\nplugins = ["no_such_plugin"]\n'
        'issues = "i.txt"\nlock = "k.lock"\nerrata = {list = "e.toml", reproducers = "r"}\n'
        '[[tool.lab.programs]]\nname = "p"\ndirectory = "bin"\n'
    )
    with pytest.raises(UsageError) as raised:
        project.check(project.read(root))
    lines = str(raised.value).splitlines()
    no_file = (
        "matches no file that git knows or would add: paths are relative to the repository's root, "
        "and what git ignores is named in products"
    )
    assert [
        f"pyproject.toml:3: include: src/** {no_file}",
        f"pyproject.toml:4: exclude: gone {no_file}",
        "pyproject.toml:5: there is no build product src/*.so: build it first",
        "pyproject.toml:7: contract: there is no file c.toml",
        "pyproject.toml:9: issues: there is no file i.txt",
        "pyproject.toml:10: lock: there is no file k.lock; "
        "`python -m lab kernels update` writes it",
        "pyproject.toml:11: errata: there is no file e.toml",
        "pyproject.toml:11: errata: there is no directory r",
        "pyproject.toml:14: program p: there is no directory bin",
    ] == lines[:-1]
    assert lines[-1].startswith("pyproject.toml:8: the plugin no_such_plugin is not installed in ")
    assert lines[-1].endswith("; install it there, or take it out of the list")


def test_a_package_that_the_environment_has_not_cannot_be_left_out_of_it(table: Write) -> None:
    """A slip of the finger would leave the package in the image without a word."""
    root = table('[tool.lab]\nkernels = ["6.12"]\nenvironment-exclude = ["pytest", "tochr"]\n')
    with pytest.raises(UsageError) as raised:
        project.check(project.read(root))
    said = "pyproject.toml:3: environment-exclude: there is no package tochr in /"
    assert str(raised.value).startswith(said)
    assert "pytest" not in str(raised.value).partition(" in /")[0]


def test_a_plugin_of_the_environment_and_one_of_the_repository_are_there(table: Write) -> None:
    root = table(
        '[tool.lab]\nkernels = ["6.12"]\nplugins = ["timeout", "pytest_timeout", "tools.ours"]\n'
    )
    files(root, "src/tools/ours.py")
    project.check(project.read(root))


def test_a_heavy_tree_is_said_with_what_is_large(table: Write) -> None:
    root = table('[tool.lab]\nkernels = ["6.12"]\n')
    files(root, "a.py", "data/small")
    for name in ("data/models/one", "data/models/two", "data/models/three"):
        files(root, name)
        with (root / name).open("r+b") as sparse:
            sparse.truncate(700 << 20)
    found = project.read(root)
    with pytest.raises(UsageError) as raised:
        weigh(found, project.travellers(found), most_mib=384)
    said = str(raised.value)
    assert "has 2.1 GiB, more than the 384 MiB for which its memory has room" in said
    assert "data/models (2.1 GiB)" in said
    assert 'exclude = ["data/models"]' in said


def test_a_light_tree_is_not_said(table: Write) -> None:
    root = table('[tool.lab]\nkernels = ["6.12"]\n')
    found = project.read(root)
    weigh(found, project.travellers(found), most_mib=1)


def test_the_largest_are_named_apart() -> None:
    sizes = {"a/x": 500, "a/y": 400, "b": 300, "c/d/e": 200, "f": 1}
    assert [("a", 900), ("b", 300), ("c/d/e", 200)] == largest(sizes)


def test_a_heavy_environment_is_said_with_what_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    files(packages, "torch/lib/big.so", "one.py")
    files(packages, "small/__init__.py", text="x")
    with (packages / "torch/lib/big.so").open("r+b") as sparse:
        sparse.truncate(3 << 30)
    monkeypatch.setattr(rootfs, "_environment", lambda: (tmp_path,))
    assert rootfs.heavy([]) == (
        "the Python environment that goes into the root image has 3.0 GiB; the largest are torch "
        '(3072 MiB), small (0 MiB), one.py (0 MiB); environment-exclude = ["torch"] leaves it out'
    )
    assert "" == rootfs.heavy(["torch"])


def test_excluded_package_is_in_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its files nor its metadata; what is called alike stays, and the image is another."""
    packages = tmp_path / "lib/python3.11/site-packages"
    files(packages, "torch/big.py", "torch-2.0.dist-info/METADATA", "torchvision/one.py", "six.py")
    monkeypatch.setattr(rootfs, "_environment", lambda: (tmp_path,))
    monkeypatch.setattr(rootfs, "_standard_library", lambda: ())

    def gone(*leave_out: str) -> set[str]:
        kept = set(rootfs._walk(tmp_path, leave_out))
        return {path.relative_to(packages).as_posix() for path in {*everything} - kept}

    everything = set(rootfs._walk(tmp_path, ()))
    assert 4 == len(everything)
    assert {"torch/big.py", "torch-2.0.dist-info/METADATA"} == gone("torch")
    stamps = [list(rootfs._identity(one)) for one in ((), ("torch",))]
    assert stamps[0] != stamps[1]
    launcher = launcher_named("qemu", ["torch"])
    asked: list[object] = []
    monkeypatch.setattr(direct, "build_rootfs", asked.append)
    files_of: Any = None
    launcher.prepare(files_of, accel=Accel(AccelKind.TCG, "", "", ""), wishes=Wishes())
    assert [("torch",)] == asked


@pytest.mark.parametrize("by_git", [False, True], ids=["walked", "of-git"])
def test_a_link_to_a_directory_travels_with_what_is_in_it(table: Write, by_git: bool) -> None:
    """By its own name; a link to a directory that it is in leads nowhere."""
    root = table('[tool.lab]\nkernels = ["6.12"]\n')
    files(root, "data/a", "data/below/b")
    (root / "tests").mkdir()
    (root / "tests/data").symlink_to("../data")
    (root / "tests/up").symlink_to("..")
    if by_git:
        git(root, "init", "-q")
        git(root, "add", ".")

    found = names(project.read(root))

    assert {"data/a", "data/below/b", "tests/data/a", "tests/data/below/b"} <= set(found)
    assert not any(name.startswith("tests/up") for name in found)
