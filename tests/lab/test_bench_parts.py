# SPDX-License-Identifier: MIT
"""The benchmarks' own parts: a run that proved nothing is void, and the rules can be broken."""

from __future__ import annotations

import dataclasses
import errno
import socket
from pathlib import Path

import pytest

from bench import affinity, gate, page, peers, peers_page, rounds, wrk
from bench.counts import (
    Counts,
    Instructions,
    agreed,
    check_clean,
    per_request,
    summed,
    total_calls,
    whole,
)
from bench.errors import Void
from bench.process import Load, reserved_ports, running
from bench.rounds import Sample, Spread
from bench.scenes import PLAIN

pytestmark = pytest.mark.lab

LOAD = Load(requests=1000, seconds=2.0, p50_us=10.0, p99_us=20.0, cpu_s=0.1, rounds=5)
SAID = (
    '{"requests": 1000, "seconds": 2.0, "p50_us": 10, "p99_us": 20, "cpu_s": 0.1, "rounds": 5, '
    '"error": "%s"}'
)
BEFORE = dict.fromkeys(("cpu_s", "enters", "cqes", "sends", "bytes_sent", "wake_writes"), 0.0)
BEFORE |= {"switches": 0.0, "recv_enobufs": 0.0}
AFTER = BEFORE | {"cpu_s": 0.01, "enters": 20, "cqes": 2000, "sends": 1000, "bytes_sent": 10}
GOOD = Counts(enters=0.03, posts=0, handles=0, wake_writes=0, wakeups=1, completions_per_enter=64)
POSTED = dataclasses.replace(GOOD, posts=1.0)


def cost(low: float) -> Instructions:
    return Instructions(low=low, high=low)


def test_a_load_is_what_the_generator_said() -> None:
    """A load without an error is taken as it is."""
    assert LOAD == Load.parse(SAID % "", 0)


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        ("", 0, "said ''"),
        ("[]", 0, "said"),
        ('{"requests": 3}', 0, "said"),
        (SAID % "connection 3: short", 1, "connection 3: short"),
        (SAID % "", 1, "no reason given"),
        (SAID.replace("1000", "0") % "", 0, "made no request"),
    ],
)
def test_a_load_with_an_error_is_void(text: str, status: int, why: str) -> None:
    """Whatever is wrong with a load, nothing is made of it."""
    with pytest.raises(Void, match=why):
        Load.parse(text, status)


def test_a_lost_buffer_makes_a_run_void() -> None:
    """ENOBUFS while it was measured: another thing was measured than was meant."""
    with pytest.raises(Void, match="recv_enobufs grew by 2"):
        Sample.of(LOAD, BEFORE, AFTER | {"recv_enobufs": 2})
    check_clean(BEFORE, AFTER)


def test_a_sample_is_per_request() -> None:
    """Time, enters and completions are of one request."""
    sample = Sample.of(LOAD, BEFORE, AFTER)
    assert 500.0 == sample.rate
    assert 10.0 == pytest.approx(sample.cpu_us)
    assert (0.02, 100.0) == (sample.enters, sample.completions)


@pytest.mark.parametrize("still", ["enters", "cpu_s", "bytes_sent"])
def test_counts_that_did_not_move_are_void(still: str) -> None:
    """A server whose counts stand still was not the one that answered."""
    with pytest.raises(Void):
        Sample.of(LOAD, BEFORE, AFTER | {still: 0})


def test_few_rounds_are_void() -> None:
    """Two rounds have no median, and two slices no noise."""
    with pytest.raises(Void, match="too few"):
        Spread.of([1, 2])
    with pytest.raises(Void, match="too few"):
        Instructions.of([1, 2])
    with pytest.raises(Void, match="vary"):
        Instructions.of([100, 100, 111])
    assert Instructions(low=100, high=109) == Instructions.of([109, 100, 101])


def test_slices_that_were_torn_are_measured_again() -> None:
    """So many of the least have to agree; one that is alone below the others does not."""
    assert not agreed([], 3)
    assert not agreed([100, 100], 3)
    assert agreed([100, 109, 100], 3)
    assert not agreed([100, 111, 100], 3)
    assert agreed([100, 111, 100, 300, 105], 3)
    assert not agreed([100, 120, 121, 122], 3)


def test_torn_batches_are_seen() -> None:
    """The least is only believed when it was measured three times; a lucky one may be torn, too."""
    assert whole([3, 2, 2, 5, 2])
    assert whole([2, 2, 2])
    assert not whole([2, 3, 3, 3])
    assert not whole([2, 2])


def test_start_up_is_in_no_count() -> None:
    """What both loads have is taken off; loads that do not differ are void."""
    assert 3.0 == per_request(1000, 1300, 100)
    with pytest.raises(Void):
        per_request(1, 2, 0)


def test_callgrinds_sum() -> None:
    """The sum is read; a file without one, or with nothing in it, is void."""
    assert 123 == summed("events: Ir\nsummary: 123\nfn=x\ntotals: 123\n")
    for text in ("", "events: Ir\n", "summary: 0\n"):
        with pytest.raises(Void):
            summed(text)


STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 99.00    0.100000          10      5000           io_uring_enter
  1.00    0.000100           1        20         3 openat
------ ----------- ----------- --------- --------- ----------------
100.00    0.100100           9      5020         3 total
"""


def test_straces_sum() -> None:
    """Calls are added up, the total's own row left out; without the ring's call it is void."""
    assert 5020 == total_calls(STRACE)
    with pytest.raises(Void):
        total_calls(STRACE.replace("io_uring_enter", "read"))


def test_wrks_rate() -> None:
    """Requests a second are read; none, or an error among them, is void."""
    report = "  Socket errors: connect 0, read 9, write 0, timeout 0\n"
    assert 12.5 == wrk.rate("Requests/sec:     12.50\n")
    for text in ("", "Requests/sec:  0.00\n", report + "Requests/sec:  12.50\n"):
        with pytest.raises(Void):
            wrk.rate(text)


def broken(*rules: gate.Rule) -> list[str]:
    return [rule.says for rule in rules if not rule.holds]


@pytest.mark.parametrize(
    ("inline", "off", "posted", "says"),
    [
        (GOOD, GOOD, POSTED, []),
        (dataclasses.replace(GOOD, posts=0.01), GOOD, POSTED, ["posts per request at most 0"]),
        (
            dataclasses.replace(GOOD, handles=1),
            GOOD,
            POSTED,
            ["asyncio handles per request at most 0"],
        ),
        (
            GOOD,
            dataclasses.replace(GOOD, enters=0.031),
            POSTED,
            ["enters per request with the context on and off within 2%"],
        ),
        (GOOD, GOOD, GOOD, ["mode posted posts each resumption"]),
    ],
)
def test_each_count_can_break_its_rule(
    inline: Counts, off: Counts, posted: Counts, says: list[str]
) -> None:
    """Every rule about counts holds for good ones and is broken by bad ones."""
    assert says == broken(*gate.counted_rules(inline, off, posted))


@pytest.mark.parametrize(
    ("inline", "off", "posted", "count"),
    [
        (6000, 6100, 7501, 0),
        (6000, 6200, 7501, 1),
        (6000, 6000, 7499, 1),
        (7001, 7001, 9000, 1),
    ],
)
def test_each_cost_can_break_its_rule(inline: int, off: int, posted: int, count: int) -> None:
    """Every rule about instructions holds for good ones and is broken by bad ones."""
    rules = gate.instruction_rules(cost(inline), cost(off), cost(posted), version=(3, 11))
    assert count == len(broken(*rules))


@pytest.mark.parametrize(
    ("handler", "protocol", "streams", "calls", "count"),
    [
        (8_800, 4_800, 25_500, 1.1, 0),
        (8_801, 4_800, 25_500, 1.1, 1),
        (8_800, 4_801, 25_500, 1.1, 1),
        (8_800, 4_800, 25_501, 1.1, 1),
        (8_800, 4_800, 25_500, 1.2, 3),
    ],
)
def test_a_lone_request_can_break_its_rules(
    handler: int, protocol: int, streams: int, calls: float, count: int
) -> None:
    """What serves one connection has limits of its own, for each of the three."""
    costs = {"handler": cost(handler), "protocol": cost(protocol), "streams": cost(streams)}
    counted = dict.fromkeys(costs, calls)
    assert count == len(broken(*gate.alone_rules(counted, costs, version=(3, 11))))


def test_a_page_keeps_what_is_outside_its_markers() -> None:
    """Only what is between the markers changes; a page without them, or with two, is refused."""
    begin, end = page.BEGIN.format(name="x"), page.END.format(name="x")
    text = f"before\n{begin}\nold\n{end}\nafter\n"
    new = page.filled(text, "x", "new")
    assert new == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    assert new == page.filled(new, "x", "new")
    for bad in ("", text + text, f"{end}\n{begin}", text.replace(end, "")):
        with pytest.raises(ValueError, match="the page needs"):
            page.filled(bad, "x", "new")


@pytest.mark.parametrize(
    ("path", "name"), [(affinity.PAGE, "affinity"), (peers_page.PAGE, "peers")]
)
def test_the_pages_have_their_markers(path: Path, name: str) -> None:
    """`make bench-affinity` and `make bench-peers` find where their tables go."""
    page.filled(path.read_text(), name, "")


@pytest.mark.parametrize("style", ["protocol", "streams"])
@pytest.mark.parametrize("loop", ["asyncio", "ioxide"])
def test_a_peer_is_measured(loop: str, style: str) -> None:
    """A server on another loop gives the same answers, and uses processor time for them."""
    with running({}, module="bench.peer", arguments=[loop, style]) as server:
        before = server.settled()
        load = server.load(seconds=0.3)
        sample = peers.Sample.of(load, before, server.settled())
    assert sample.rate > 0
    assert 0 < sample.p50_us <= sample.p99_us


def test_uvicorn_is_measured() -> None:
    """uvicorn's answer is compared byte for byte, like the others'."""
    with running(
        {}, module="bench.peer", arguments=["ioxide", "uvicorn", "--http", "h11"]
    ) as server:
        server.answer = PLAIN.asgi_answer
        assert server.load(requests=64).requests == 64
        server.answer = b"HTTP/1.1 500"
        with pytest.raises(Void, match="not the one that was expected"):
            server.load(requests=64)


def test_reserved_ports_are_for_their_server_alone() -> None:
    """They differ, a server with SO_REUSEADDR listens on each, and no other socket gets one."""
    with reserved_ports(64) as ports:
        assert len(set(ports)) == 64
        for port in ports:
            with socket.create_server(("127.0.0.1", port)) as server:
                assert server.getsockname() == ("127.0.0.1", port)
        for port in ports:
            with socket.socket() as other, pytest.raises(OSError) as raised:
                other.bind(("127.0.0.1", port))
            assert raised.value.errno == errno.EADDRINUSE
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports[0]))  # given back at the end


def test_a_peer_whose_time_stands_still_is_void() -> None:
    """A server that used no processor time was not the one that answered."""
    with pytest.raises(Void, match="did not move"):
        peers.Sample.of(LOAD, {"cpu_s": 1.0}, {"cpu_s": 1.0})


def test_interleaved_rounds_measure_every_server() -> None:
    """Two rounds over two modes give each two samples, and the tables have a row for each."""
    with running({}) as one, running({"continuation_mode": "posted"}) as other:
        servers = {"a": one, "b": other}
        samples = rounds.interleaved(servers, Sample.of, rounds=2, seconds=0.2)
    assert {"a": 2, "b": 2} == {name: len(found) for name, found in samples.items()}
    assert all(sample.rate > 0 for found in samples.values() for sample in found)


def test_a_server_that_cannot_start_is_void() -> None:
    """A configuration that the server refuses ends in a sentence, not in a figure."""
    with pytest.raises(Void, match="the server ended with 1"):
        with running({"pool_threads": 0}):
            pass
