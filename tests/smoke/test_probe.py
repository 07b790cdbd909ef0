# SPDX-License-Identifier: MIT
"""ioxide.probe() on any kernel: it tells the truth, in a form that travels, and leaves no trace."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import ioxide
from ioxide import Capability, Finding, ProbeReport
from ioxide.__main__ import main
from ioxide._commands import probe as cli
from ioxide._probe import capabilities, facts, netns, refusal, rings
from ioxide._probe.rawring import RawRing
from ioxide._probe.table import EXPERIMENTS, Experiment, Facts
from tests.support import probed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report() -> ProbeReport:
    return probed()


def _open_files() -> dict[str, str]:
    links = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            links[path.name] = str(path.readlink())
        except FileNotFoundError:
            continue  # the listing's own
    return links


def _children() -> set[int]:
    """The child processes of this one, those that have ended and were not waited for among them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has gone
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


@dataclass(frozen=True)
class Traces:
    """What a probe could leave behind, as it is now."""

    files: dict[str, str] = field(default_factory=_open_files)
    threads: set[threading.Thread] = field(default_factory=lambda: set(threading.enumerate()))
    network: Path = field(default_factory=lambda: Path("/proc/thread-self/ns/net").readlink())
    children: set[int] = field(default_factory=_children)


@dataclass(frozen=True)
class Again:
    """Another probe, and what there was before it and after."""

    before: Traces
    report: ProbeReport
    after: Traces


@pytest.fixture(scope="module")
def again(report: ProbeReport) -> Again:
    assert report.error is None  # whatever is opened once and for all is open by now
    return Again(Traces(), ioxide.probe(), Traces())


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd="/",
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_probe_finds_out_about_every_capability(report: ProbeReport) -> None:
    """Each capability has exactly one finding, and io_uring works where this suite runs."""
    assert report.error is None
    assert [e.capability for e in EXPERIMENTS] == [f.capability for f in report.findings]
    assert sorted(Capability) == sorted(f.capability for f in report.findings)


def test_probe_names_the_running_kernel(report: ProbeReport) -> None:
    """The release is that of uname."""
    assert os.uname().release == report.release


@pytest.mark.parametrize("capability", list(Capability))
def test_finding_is_consistent(report: ProbeReport, capability: Capability) -> None:
    """Observed needs acceptance and evidence; what was not observed says why in a note."""
    finding = report[capability]
    if finding.observed:
        assert finding.accepted is True
        assert finding.evidence
        assert finding.note == ""
    else:
        assert finding.note
    if finding.accepted is not True:
        assert finding.observed is not True
    assert report.observed(capability) is (finding.observed is True)


def test_every_supported_kernel_shows_the_floor(report: ProbeReport) -> None:
    """What the reactor cannot do without is observed: all of it is older than 6.1."""
    floor = [
        Capability.PBUF_RING,
        Capability.MULTISHOT_RECV,
        Capability.MULTISHOT_ACCEPT,
        Capability.SINGLE_ISSUER,
        Capability.DEFER_TASKRUN,
        Capability.REGISTERED_RING_FD,
    ]
    assert [] == [report[c] for c in floor if not report.observed(c)]


def test_report_survives_json(report: ProbeReport) -> None:
    """from_json reads what to_json wrote, without loss."""
    assert report == ProbeReport.from_json(report.to_json())


def test_report_with_error_survives_json() -> None:
    """A report that holds only a sentence travels too."""
    refused = ProbeReport(release="6.1.0", error="io_uring is forbidden.", findings=())
    assert refused == ProbeReport.from_json(refused.to_json())
    assert not refused.observed("INC")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must be JSON"),
        ("[]", "must be a JSON object, not list"),
        ('{"error": null, "capabilities": {}}', "no member 'release'"),
        ('{"release": 6, "error": null, "capabilities": {}}', "'release' of the report must be"),
        ('{"release": "6", "error": null, "capabilities": {"FLY": {}}}', "'FLY' is no capability"),
        ('{"release": "6", "error": null, "capabilities": {"INC": {}}}', "no member 'declared'"),
        (
            '{"release": "6", "error": null, "capabilities": {"INC": {"declared": null, '
            '"accepted": 1, "observed": true, "evidence": {}, "note": ""}}}',
            "'accepted' of the finding on INC must be bool or null, not int",
        ),
        ('{"release": "6", "error": null, "capabilities": {}}', "no member 'facts'"),
        (
            '{"release": "6", "error": null, "capabilities": {}, "facts": {"setup.SQPOLL": true}}',
            "'setup.SQPOLL' of the facts must be str, not bool",
        ),
    ],
)
def test_from_json_refuses_what_is_no_report(text: str, complaint: str) -> None:
    """A broken report is refused with a sentence that names the place."""
    with pytest.raises(ValueError, match=complaint):
        ProbeReport.from_json(text)


def test_facts_are_what_the_kernel_says(report: ProbeReport, again: Again) -> None:
    """Facts and findings are asked apart and agree, and a second probe is told the same."""
    agreeing = {
        "feature.RECVSEND_BUNDLE": report[Capability.BUNDLE].declared,
        "feature.MIN_TIMEOUT": report[Capability.MIN_WAIT].declared,
        "opcode.SEND_ZC": report[Capability.SEND_ZC].declared,
        "opcode.MSG_RING": report[Capability.MSG_RING].declared,
        "setup.SINGLE_ISSUER": report[Capability.SINGLE_ISSUER].accepted,
        "setup.DEFER_TASKRUN": report[Capability.DEFER_TASKRUN].accepted,
        "setup.NO_SQARRAY": report[Capability.NO_SQARRAY].accepted,
        "buffers.plain": report[Capability.PBUF_RING].accepted,
        "buffers.INC": report[Capability.INC].accepted,
        "napi.dynamic": report[Capability.NAPI].accepted,
        "napi.static": report[Capability.NAPI_STATIC].accepted,
        "setup.SQ_REWIND": report[Capability.SQ_REWIND].accepted,
        "buffers.INC+min_left": report[Capability.MIN_LEFT].accepted,
        "feature.NO_IOWAIT": report[Capability.NO_IOWAIT].accepted,
        "opcode.RECV_ZC": report[Capability.ZCRX_NODEV].declared,
    }
    # IOXIDE_CAPS takes findings away, and no facts.
    agreeing = {name: word for name, word in agreeing.items() if word is not None}
    assert agreeing == {name: report.facts[name] == "yes" for name in agreeing}
    assert "setup.SINGLE_ISSUER" in agreeing

    def words(of: ProbeReport) -> dict[str, str]:
        # Completions of a stream are told as they came, and TCP may cut it another time.
        return {name: word for name, word in of.facts.items() if not name.startswith("receive.")}

    assert words(report) == words(again.report)


def test_a_fact_is_the_kernels_own_answer() -> None:
    """What no kernel takes is its errno, what it has beyond our names has a number, and a bundle in
    incremental buffers is told by its completions."""
    assert "EINVAL" == facts._attempt(facts._opens, 1 << 31)
    said = facts.of_the_ring(1 << 40 | 1, frozenset({0, 200}))
    assert ["yes", "no", "yes"] == [
        said[f"feature.{name}"] for name in ("SINGLE_MMAP", "NODROP", "40")
    ]
    assert ["yes", "no", "yes"] == [said[f"opcode.{name}"] for name in ("NOP", "READV", "200")]
    bundle = said["receive.INC+BUNDLE"]
    assert bundle == "EINVAL" or bundle.startswith("res=1000 bid=0 MORE BUF_MORE; res=")


def test_limits_are_told_where_no_ring_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that is one sentence still holds the sysctl and the limit on locked memory."""

    def forbidden(*_: object, **__: object) -> RawRing:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(capabilities, "RawRing", forbidden)
    monkeypatch.setattr(facts, "sysctl", {"io_uring_disabled": "2"}.get)
    refused = ioxide.probe()
    assert refused.error is not None
    assert {"sysctl.io_uring_disabled", "rlimit.memlock"} == set(refused.facts)
    assert "2" == refused.facts["sysctl.io_uring_disabled"]


def test_unknown_names_are_errors(report: ProbeReport) -> None:
    """A misspelt capability is never just "not observed"."""
    with pytest.raises(ValueError, match="FLY"):
        report.observed("FLY")
    with pytest.raises(KeyError, match="no finding on FLY"):
        report["FLY"]


def test_table_has_a_line_for_each(report: ProbeReport) -> None:
    """The table for people names the kernel, and each capability with yes or no."""
    lines = report.table().splitlines()
    assert report.release in lines[0]
    words = {True: "yes", False: "no", None: "-"}
    rows = {line.split()[0]: line.split()[1:4] for line in lines if line.split()[:1]}
    for finding in report.findings:
        states = (finding.declared, finding.accepted, finding.observed)
        assert rows[finding.capability] == [words[state] for state in states]


def test_probe_leaves_nothing_behind(again: Again) -> None:
    """No descriptor, thread or child process outlives a probe, or changes our namespace."""
    assert len(again.report.findings) == len(EXPERIMENTS)
    assert again.before.files == again.after.files
    assert again.before.threads == again.after.threads
    assert again.before.network == again.after.network
    # A reproducer of an erratum may have left one that never ends (IOX-ERR-032).
    assert again.before.children == again.after.children


def test_a_child_that_nobody_waited_for_is_a_trace() -> None:
    """A process that has ended is one as long as it is not waited for."""
    before = Traces()
    child = os.posix_spawn("/bin/true", ["true"], {})
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        assert {child} == Traces().children - before.children
    finally:
        os.waitpid(child, 0)
    assert before.children == Traces().children


def test_experiment_leaves_the_callers_registered_ring_alone() -> None:
    """A ring that the calling thread has registered is still entered by its index afterwards."""
    from ioxide._ring._native import lib

    with RawRing() as ring:
        index = int(lib.iox_probe_ring_fd_register(ring.raw))
        assert index >= 0
        assert rings.registered_ring_fd().observed
        ring.push(lib.IOX_PROBE_OP_NOP, user_data=5)
        assert ring.enter(wait=1, fd=index, flags=lib.IOX_ENTER_REGISTERED_RING) == 1
        assert [5] == [c.user_data for c in ring.reap()]
        assert int(lib.iox_probe_ring_fd_unregister(ring.raw, index)) == 1


@pytest.mark.slow  # the lab asks each guest just this, and stops if it gets no report
def test_cli_prints_json_that_can_be_read() -> None:
    """``python -m ioxide probe --json`` exits 0 and prints the report."""
    done = _run("-m", "ioxide", "probe", "--json")
    assert (0, "") == (done.returncode, done.stderr)
    report = ProbeReport.from_json(done.stdout)
    assert os.uname().release == report.release
    assert set(Capability) == {f.capability for f in report.findings}


def test_cli_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], report: ProbeReport
) -> None:
    """``python -m ioxide probe`` exits 0 and prints the table."""
    monkeypatch.setattr(cli, "probe", lambda: report)
    assert main(["probe"]) == 0
    assert (report.table() + "\n", "") == capsys.readouterr()


def test_cli_without_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """A missing command is usage error 2, and the usage says that one is wanted."""
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


# ---- refusals, for real ----


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("EPERM", ["forbidden by a seccomp filter", "seccomp profile|its profile"]),
        pytest.param(
            "ENOSYS",
            ["hidden from this process by a seccomp filter", "seccomp profile"],
            marks=pytest.mark.slow,
        ),
        pytest.param("ENOMEM", ["RLIMIT_MEMLOCK", "ulimit -l"], marks=pytest.mark.slow),
        pytest.param("EMFILE", ["no file descriptor left", "ulimit -n"], marks=pytest.mark.slow),
        pytest.param("EBADF", ["failed with EBADF", "report"], marks=pytest.mark.slow),
    ],
)
def test_refusal_is_one_sentence_and_status_1(code: str, words: list[str]) -> None:
    """Where a filter refuses io_uring the CLI says so and what to do, without a traceback."""
    done = _run(str(ROOT / "tests/smoke/refused_probe.py"), f"seccomp:{code}")
    text, _, said = done.stdout.rstrip().rpartition("\n")
    assert said == code, "the filter did not work, so the rest would prove nothing"
    report = ProbeReport.from_json(text)
    assert report.error is not None
    assert report.findings == ()
    assert done.returncode == 1
    assert [f"ioxide: {report.error}"] == done.stderr.splitlines()
    for alternatives in words:
        assert any(word in report.error for word in alternatives.split("|")), report.error


def test_memlock_too_small_is_a_sentence() -> None:
    """Without locked memory the probe says so, on every kernel that wants it for rings."""
    done = _run(str(ROOT / "tests/smoke/refused_probe.py"), "memlock")
    text, _, said = done.stdout.rstrip().rpartition("\n")
    # 6.12 does not charge rings to this limit (its memory cgroup pays), 6.18 does: the script's
    # last line says which it is here, and it probes only where a ring is refused.
    if said == "ENOMEM":
        report = ProbeReport.from_json(text)
        assert done.returncode == 1
        assert [f"ioxide: {report.error}"] == done.stderr.splitlines()
        assert "RLIMIT_MEMLOCK) is 0 KiB" in (report.error or "")
    else:
        assert (0, "", "", "ok") == (done.returncode, text, done.stderr, said)


@pytest.mark.parametrize(
    ("setting", "privileged", "filtered", "words"),
    [
        ("2", True, False, "kernel.io_uring_disabled=2"),
        ("1", False, False, "kernel.io_uring_disabled=1"),
        ("1", True, True, "seccomp"),
        ("0", True, False, "security module"),
        (None, False, True, "seccomp"),
    ],
)
def test_forbidden_names_the_obstacle(
    monkeypatch: pytest.MonkeyPatch,
    setting: str | None,
    privileged: bool,
    filtered: bool,
    words: str,
) -> None:
    """EPERM is put down to the sysctl, the filter or a security module, as the machine is set."""
    values = {"io_uring_disabled": setting, "io_uring_group": "-1"}
    monkeypatch.setattr(refusal, "sysctl", values.get)
    monkeypatch.setattr(refusal, "_privileged", lambda: privileged)
    monkeypatch.setattr(refusal, "_seccomp_filtered", lambda: filtered)
    sentence = refusal.explain(OSError(errno.EPERM, "not permitted"))
    assert words in sentence
    assert sentence.endswith(".")


# ---- experiments that cannot be made ----


def test_experiment_that_cannot_be_made_is_not_tried() -> None:
    """Lack of memory or descriptors is no answer about the kernel: observed is None, with why."""

    def fail() -> ioxide._probe.outcome.Outcome:
        raise OSError(errno.EMFILE, "Too many open files")

    finding = Experiment(Capability.INC, fail).run(Facts(features=0, opcodes=frozenset()))
    assert finding == Finding(
        capability=Capability.INC,
        declared=None,
        accepted=None,
        observed=None,
        evidence={"error": "EMFILE"},
        note="could not be tried: Too many open files (EMFILE)",
    )


def test_unknown_setup_flag_is_not_accepted() -> None:
    """A set-up flag that no kernel knows is refused with EINVAL, and so would a new one be."""
    from ioxide._probe.outcome import open_ring

    assert (None, -errno.EINVAL) == open_ring(1 << 31)


def test_unknown_opcode_is_not_supported() -> None:
    """An opcode that no kernel knows is neither listed nor run."""
    with RawRing() as ring:
        assert not ring.has_opcode(250)
        ring.push(250)
        assert [-errno.EINVAL] == [c.res for c in ring.collect(1)]


def test_netstat_counts_in_the_threads_own_namespace() -> None:
    """The NAPI counter exists on this kernel, so that "did not grow" means something."""
    assert netns.netstat("BusyPollRxPackets") >= 0
    with pytest.raises(KeyError):
        netns.netstat("NoSuchCounter")
