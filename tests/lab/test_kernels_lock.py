# SPDX-License-Identifier: MIT
"""kernels.lock and the catalogue: what they say is booted, and nonsense in them is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError, UsageError
from lab.facts.kernel import version_key
from lab.kernels import Kernel, known, lock, resolve
from lab.kernels.catalogue import catalogue
from lab.kernels.catalogue import read as read_catalogue
from lab.kernels.model import Release, RemoteFile

pytestmark = pytest.mark.lab

word = st.text("abcdefghijklmnopqrstuvwxyz0123456789.+~-", min_size=1, max_size=20)
releases = st.builds(
    Release,
    kernel=st.builds(
        Kernel,
        series=word,
        upstream=st.from_regex(r"\A[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\Z"),
        package=word,
        release=word,
        source=st.just("debian"),
        locked=st.just(True),
        verified_by=word,
    ),
    suite=word,
    files=st.lists(
        st.builds(
            RemoteFile,
            path=word.filter(lambda path: path != ".."),
            size=st.integers(1, 2**40),
            sha256=st.from_regex(r"\A[0-9a-f]{64}\Z"),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
)

ENTRY = """\
[[kernel]]
series = "6.12"
upstream = "6.12.107"
package = "6.12.107-1"
release = "6.12.107-cloud"
source = "debian"
suite = "trixie"
verified_by = "a key"
[[kernel.file]]
path = "pool/linux.deb"
size = 10
sha256 = "{digits}"
""".format(digits="0" * 64)


@given(several=st.lists(releases, max_size=4, unique_by=lambda release: release.kernel.release))
def test_a_lock_file_reads_back_as_it_was_written(
    several: list[Release], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever `update` writes, `read` understands, newest first."""
    path = tmp_path_factory.mktemp("lock") / "kernels.lock"
    path.write_text(lock.render(several))
    read = lock.read(path)
    assert sorted(read, key=repr) == sorted(several, key=repr)
    upstreams = [version_key(release.kernel.upstream) for release in read]
    assert upstreams == sorted(upstreams, reverse=True)


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("size = 10", "size = 0", "pool/linux.deb has size 0, expected a positive number"),
        ("size = 10", "size = '10'", "has size '10'"),
        ("size = 10", "siz = 10", "has size None"),
        ("0" * 64, "0" * 63, "expected 64 hexadecimal digits"),
        ("0" * 64, "G" * 64, "expected 64 hexadecimal digits"),
        ('"pool/linux.deb"', '"/pool/linux.deb"', "is not a relative path"),
        ('"pool/linux.deb"', '"pool/../../linux.deb"', "is not a relative path"),
        ('upstream = "6.12.107"', "upstream = 6", "upstream is 6, expected a text"),
        ('series = "6.12"\n', "", "series is None, expected a text"),
        (ENTRY, ENTRY + ENTRY, "names 6.12.107-cloud more than once"),
        (ENTRY, ENTRY.partition("[[kernel.file]]")[0], "no file is named"),
        ("[[kernel]]", "[[kernel]", "is not TOML"),
    ],
)
def test_a_wrong_lock_is_refused_by_name(
    tmp_path: Path, right: str, wrong: str, complaint: str
) -> None:
    """A lock that cannot be meant is an error with entry and value, never a guess."""
    path = tmp_path / "kernels.lock"
    path.write_text(ENTRY)
    assert ["6.12.107-cloud"] == [r.kernel.release for r in lock.read(path)]
    path.write_text(ENTRY.replace(right, wrong))
    with pytest.raises(LabError, match=r"kernels\.lock") as caught:
        lock.read(path)
    assert complaint in str(caught.value)


def test_every_locked_kernel_belongs_to_a_series_of_the_catalogue() -> None:
    """The two data files agree: each locked release fits its series' own package pattern."""
    rows = {row.name: row for row in catalogue()}
    locked = lock.read()
    assert "6.12" in {release.kernel.series for release in locked}
    for release in locked:
        assert rows[release.kernel.series].source == release.kernel.source
        if release.kernel.source == "debian":
            name = f"linux-image-{release.kernel.release}"
            matches = [pattern.match(name) for pattern in read_catalogue().debian.packages]
            assert [release.kernel.release] == [match["release"] for match in matches if match]


def test_a_kernel_is_found_by_each_of_its_names() -> None:
    """Series, upstream version, package version and uname -r all lead to the same kernel."""
    newest = next(kernel for kernel in known() if kernel.series == "6.12")
    names = ("6.12", "v6.12", newest.upstream, newest.package, newest.release)
    assert {resolve(name) for name in names} == {newest}
    assert resolve("newest") == known()[0]


def test_an_unknown_kernel_is_a_usage_error_that_lists_the_known() -> None:
    """KERNEL=nonsense ends with code 2 and names what there is."""
    with pytest.raises(UsageError, match=r"unknown kernel 'nonsense'") as caught:
        resolve("nonsense")
    assert 2 == caught.value.exit_code
    assert all(row.name in str(caught.value) for row in catalogue())
    assert all(kernel.release in str(caught.value) for kernel in known())


CATALOGUE = """\
[debian]
suites = ["trixie"]
packages = ['^linux-image-(?P<release>.*)$']
[mainline]
mirror = "http://localhost"
fingerprint = "00"
key_url = "http://localhost/key"
[series."6.12"]
why = "because"
source = "debian"
"""


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("(?P<release>.*)", "(", "not a kernel catalogue"),
        ("(?P<release>.*)", "x", "no group 'release'"),
        ('["trixie"]', '"trixie"', "suites is 'trixie', expected a list of texts"),
        ('source = "debian"', "", "not a kernel catalogue: KeyError"),
        ('why = "because"', "why = 1", "why is 1, expected a text"),
        ("[debian]", "[debian", "not a kernel catalogue"),
    ],
)
def test_a_wrong_catalogue_is_refused(
    tmp_path: Path, right: str, wrong: str, complaint: str
) -> None:
    """A catalogue that cannot be meant is an error that names the file."""
    good, bad = tmp_path / "good.toml", tmp_path / "kernels.toml"
    good.write_text(CATALOGUE)
    bad.write_text(CATALOGUE.replace(right, wrong))
    assert ("trixie",) == read_catalogue(good).debian.suites
    with pytest.raises(LabError, match=r"kernels\.toml") as caught:
        read_catalogue(bad)
    assert complaint in str(caught.value)


def test_versions_sort_as_numbers() -> None:
    """6.12.9 is older than 6.12.107, and a backport older than what it was made from."""
    versions = ["6.12.107-1", "6.12.107-1~bpo12+1", "6.12.9", "7.0.1", "6.2"]
    ordered = ["6.2", "6.12.9", "6.12.107-1~bpo12+1", "6.12.107-1", "7.0.1"]
    assert ordered == sorted(versions, key=version_key)


def test_inner_pytest_leaves_the_outer_one_its_lock(tmp_path: Path) -> None:
    """A repository without a lock, run by a pytest inside this one, unlocks nothing here."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_inner.py").write_text("def test_it(): pass\n")
    inner = (f"--rootdir={tmp_path}", "-p", "lab.suite.plugin", "-p", "no:cacheprovider", "-q")
    bound = lock.LOCK
    seen: list[Path | None] = []

    class Look:
        """Looks at the lock while the inner pytest runs."""

        @staticmethod
        def pytest_collection_finish() -> None:
            seen.append(lock.LOCK)

    code = pytest.main([*inner, str(tmp_path)], plugins=[Look()])

    assert code == 0
    assert seen == [None], "the inner run bound no lock of its own, so nothing was asked"
    assert bound is not None
    assert bound == lock.LOCK
