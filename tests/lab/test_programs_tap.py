# SPDX-License-Identifier: MIT
"""TAP, KTAP and exit statuses: what a program says, and what becomes of it when that is damaged."""

from __future__ import annotations

import signal
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.programs.judgement import Format, Judged, judge
from lab.programs.tap import Point, Reader, Reading, State, read

pytestmark = pytest.mark.lab
# The machine may be busy: how long an example takes says nothing about the reader.
patient = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PASSED, FAILED, SKIPPED, TODO = State.PASSED, State.FAILED, State.SKIPPED, State.TODO


def judged(text: str | bytes, status: int = 0, wanted: Format = Format.TAP) -> Judged:
    data = text.encode() if isinstance(text, str) else text
    return judge(wanted, status, read(data))


def names(text: str) -> list[tuple[str, State]]:
    return [(point.name, point.state) for point in read(text.encode()).points]


# -- what is well-formed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("1..2\nok 1\nok 2\n", id="12"),
        pytest.param("ok\nok - b\n1..2\n", id="plan-last-no-numbers"),
        pytest.param("TAP version 13\n1..1\nok 1 - a\n  ---\n  not ok 2: x\n  ...\n", id="13-yaml"),
        pytest.param("TAP version 14\n# hello\n1..1\nok 1 - a # ms 3\n# bye\n", id="14"),
        pytest.param("1..1\r\nok 1\r\n", id="crlf"),
        pytest.param("1..1\ndebug: ok 2\npragma +strict\nok 1 a\n\n", id="text-between"),
        pytest.param("KTAP version 1\n1..1\nok 1 a\n", id="ktap"),
        pytest.param("1..2\nok 1 a # SKIP no\nok 2 b\n", id="one-skipped"),
        pytest.param("1..2\nnot ok 1 a # TODO not yet\nok 2 b\n", id="one-todo"),
        pytest.param("1..2\nok 1 a # XFAIL known\nok 2 b\n", id="kselftest-xfail"),
        pytest.param("1..1\nok 1 - costs \\# TODO nothing\n", id="escaped"),
    ],
)
def test_a_whole_stream_passes(text: str) -> None:
    assert judged(text) == Judged(PASSED, "", tuple(read(text.encode()).points))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1..0 # SKIP no io_uring here\n", "no io_uring here"),
        ("TAP version 13\n1..0 # skipped: none\n", "none"),
        ("1..0\n", "no reason given"),
        ("1..1\nok 1 a # SKIP no device\n", "no device"),
        ("1..2\nok 1 # skip one\nok 2 # SKIP two\n", "one (and 1 more)"),
        ("1..1\nnot ok 1 a # TODO later\n", "later"),
    ],
)
@pytest.mark.parametrize("status", [0, 4, 77])
def test_a_stream_without_a_pass_is_a_skip_with_its_reason(
    text: str, why: str, status: int
) -> None:
    result = judged(text, status)

    assert (SKIPPED, why) == (result.state, result.why)


def test_subtests_of_tap_14() -> None:
    text = (
        "TAP version 14\n1..2\n# Subtest: outer\n    # Subtest: outer\n    1..2\n"
        "    ok 1 - a\n        ok 1 - deep\n        1..1\n    not ok 2 - b\n"
        "not ok 1 - outer\nok 2 - plain\n"
    )

    assert [
        ("outer / a", PASSED),
        ("outer / b / deep", PASSED),
        ("outer / b", FAILED),
        ("plain", PASSED),
    ] == names(text)
    assert "1 of 4 subtests failed: outer / b" == judged(text, 1).why


def test_nested_ktap() -> None:
    text = (
        "KTAP version 1\n1..1\n  KTAP version 1\n  # Subtest: suite\n  1..2\n"
        "    KTAP version 1\n    1..2\n    ok 1 one\n    not ok 2 two\n  not ok 1 case\n"
        "  # a diagnostic\n  ok 2 other # SKIP no hardware\nnot ok 1 suite\n"
    )

    assert [
        ("suite / case / one", PASSED),
        ("suite / case / two", FAILED),
        ("suite / other", SKIPPED),
    ] == names(text)
    assert FAILED is judged(text, 1, Format.KTAP).state


def test_the_output_of_the_kernels_own_runner() -> None:
    text = (
        "TAP version 13\n1..3\n# timeout set to 45\n# selftests: net: tls\n# TAP version 13\n"
        "# 1..2\n# ok 1 a\n# # some words\n# not ok 2 b\n"
        "not ok 1 selftests: net: tls # exit=1\n"
        "# selftests: net: words\n# just words\n# ok\nok 2 selftests: net: words\n"
        "# selftests: net: gone\n# TAP version 13\n# 1..0 # SKIP no ipv6\n"
        "ok 3 selftests: net: gone # SKIP\n"
    )

    assert [
        ("selftests: net: tls / a", PASSED),
        ("selftests: net: tls / b", FAILED),
        ("selftests: net: words", PASSED),
        ("selftests: net: gone", SKIPPED),
    ] == names(text)


# -- what must not pass --------------------------------------------------------------------------


def test_a_failure_behind_the_runners_hash_is_not_lost_with_its_result() -> None:
    """The runner says a test's result behind what the test said; where that is missing, what was
    said counts all the same."""
    said = read(
        b"TAP version 13\n1..1\n# selftests: net: tls\n# TAP version 13\n# 1..1\n# not ok 1 a\n"
        b"# selftests: net: words\n# just words\nok 1 selftests: net: words\n"
    )

    assert 1 == said.counts[FAILED]
    assert any("not followed by the result" in problem for problem in said.problems)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it printed no TAP"),
        ("hello\nok\n", "it printed no TAP"),
        ("1..3\nok 1\nok 2\n", "3 tests planned, 2 reported"),
        ("1..1\nok 1\nok 2\n", "1 test planned, 2 reported"),
        ("ok 1\nok 2\n", "there is no plan (1..N) for its 2 tests"),
        ("1..2\nok 1\nok 1\n", "result number 1 where 2 was due"),
        ("1..2\nok 2\nok 1\n", "result number 2 where 1 was due"),
        ("ok 1\n1..2\nok 2\n", "a result behind the plan"),
        ("1..1\nok 1\n1..1\n", "a second plan, '1..1'"),
        ("1..1\nok 1\nBail out! no memory\n", "it bailed out: no memory"),
        ("1..2\nok 1\nBail out!\n", "it bailed out: no reason given (and 1 more)"),
        ("1..1\nok 1", "the output ends within a line: 'ok 1'"),
        ("1..1\nok 1\nnot o", "the output ends within a line: 'not o'"),
        ("TAP version 15\n1..1\nok 1\n", "a version that the lab does not know"),
        ("1..1\nok 1\nTAP version 13\n", "in the middle of it"),
        ("1..2\nok 1\n  ---\n  a: b\nok 2\n", "a block of YAML is not closed"),
        ("1..2\nok 1 a\nnot ok 2 b\n", "1 of 2 subtests failed: b"),
        ("1..1\nnot ok 1 a # SKIP x\n", "1 of 1 subtests failed: a"),
        ("1..1\n    1..2\n    ok 1\nok 1 sub\n", "sub: 2 tests planned, 1 reported"),
        ("1..1\n    ok 1 - a\nok 1 sub\n", "sub: there is no plan"),
        ("1..1\n    1..1\n    not ok 1 - a\nok 1 sub\n", "subtests failed: sub / a"),
        ("1..1\n    1..1\n    ok 1 - a\nnot ok 1 sub\n", "1 of 2 subtests failed: sub"),
        ("1..1\nok 1\n    1..1\n    ok 1 - a\n", "not followed by the result of their test"),
        ("1..1\nok 1\n  not ok\n", "subtests failed"),
        ("1..1\nok 1 " + "x" * 20_000 + "\n", "1 lines are longer than 16384 bytes"),
    ],
)
@pytest.mark.parametrize("status", [0, 4, 77])
def test_a_stream_that_is_not_whole_fails(text: str, why: str, status: int) -> None:
    result = judged(text, status)

    assert FAILED is result.state
    assert why.removesuffix("(and 1 more)") in result.why


def test_ktap_needs_its_version() -> None:
    assert "there is no version line" == judged("1..1\nok 1 a\n", 0, Format.KTAP).why


@pytest.mark.parametrize(
    ("text", "status", "why"),
    [
        ("1..1\nok 1\n", 1, "it ended with status 1, but its TAP says that it passed"),
        ("1..1\nok 1\n", 4, "it ended with status 4, but its TAP says that it passed"),
        ("1..1\nok 1\n", -11, "it was killed by SIGSEGV, but its TAP says that it passed"),
        ("1..0 # SKIP x\n", 1, "it ended with status 1, but its TAP reports no failure"),
        ("1..1\nnot ok 1 a\n", -6, "1 of 1 subtests failed: a; it was killed by SIGABRT"),
        ("1..1\nnot ok 1 a\n", 0, "1 of 1 subtests failed: a; it ended with status 0"),
        ("words\n", -9, "it printed no TAP, and it was killed by SIGKILL"),
    ],
)
def test_status_and_stream_must_agree(text: str, status: int, why: str) -> None:
    assert (FAILED, why) == (judged(text, status).state, judged(text, status).why)


@pytest.mark.parametrize(
    ("status", "state", "why"),
    [
        (0, PASSED, ""),
        (77, SKIPPED, "no veth"),
        (4, SKIPPED, "no veth"),
        (1, FAILED, "it ended with status 1: no veth"),
        (127, FAILED, "it ended with status 127: no veth"),
        (139, FAILED, "it ended with status 139 (128 + SIGSEGV): no veth"),
        (-signal.SIGTERM, FAILED, "it was killed by SIGTERM: no veth"),
        (-64, FAILED, "it was killed by SIGRTMAX: no veth"),
        (-70, FAILED, "it was killed by signal 70: no veth"),
    ],
)
@pytest.mark.parametrize("wanted", [Format.EXIT, Format.AUTO])
def test_the_status_alone(status: int, state: State, why: str, wanted: Format) -> None:
    assert Judged(state, why) == judge(wanted, status, Reading(), "no veth\n")


def test_a_skip_by_status_without_a_word_names_the_status() -> None:
    assert "exit status 77" == judge(Format.EXIT, 77, Reading()).why


def test_auto_takes_one_line_of_tap_for_tap() -> None:
    assert PASSED is judged("all is\nok\n", 0, Format.AUTO).state
    assert FAILED is judged("ok 1 - a\n", 0, Format.AUTO).state
    assert FAILED is judged("words\n  not ok\n", 0, Format.AUTO).state
    assert PASSED is judged("not ok 1\n", 0, Format.EXIT).state


def test_what_is_no_utf_8_is_named_by_its_bytes() -> None:
    result = judged(b"1..1\nnot ok 1 \xff\xfe\n", 1)

    assert (FAILED, "1 of 1 subtests failed: \\xff\\xfe") == (result.state, result.why)


def test_much_output_takes_little_memory() -> None:
    reader = Reader()
    tracemalloc.start()
    try:
        for _ in range(20):
            reader.feed(b"x" * (1 << 20))  # one line of 20 MiB
        reader.feed(b"\n")
        for number in range(1, 5_001):
            reader.feed(b"not ok %d - a test\n" % number)
        said = reader.end()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (5_000, 500) == (said.counts[FAILED], len(said.points))
    assert peak < 8 << 20


def test_deep_and_many_subtests_take_little_memory() -> None:
    lines = [b" " * depth + b"not ok 1 " + b"n" * 4000 + b"\n" for depth in range(300)]
    reader = Reader()
    tracemalloc.start()
    try:
        for line in lines * 4:
            reader.feed(line)
        reader.end()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 32 << 20


# -- damage --------------------------------------------------------------------------------------

WORD = st.text(alphabet="abc \\-", max_size=6)


@st.composite
def streams(draw: st.DrawFn, step: int, depth: int = 0) -> tuple[list[str], bool]:
    """The lines of one level as a producer writes them, and whether all of it is good."""
    pad = " " * (step * depth)
    count = draw(st.integers(1, 4))
    lines, good = [], True
    for number in range(1, count + 1):
        fine = draw(st.booleans())
        if depth < 2 and draw(st.integers(0, 3)) == 0:
            inner, fine = draw(streams(step, depth + 1))
            lines += inner
        good = good and fine
        lines.append(f"{pad}{'' if fine else 'not '}ok {number} - {draw(WORD)}")
        if draw(st.integers(0, 4)) == 0:
            lines += [f"{pad}  ---", f"{pad}  message: {draw(WORD)}", f"{pad}  ..."]
        if draw(st.integers(0, 4)) == 0:
            lines.append(f"{pad}# {draw(WORD)}")
    lines.insert(draw(st.sampled_from([0, len(lines)])), f"{pad}1..{count}")
    if step == 2 or (depth == 0 and draw(st.booleans())):
        lines.insert(0, f"{pad}{'KTAP version 1' if step == 2 else 'TAP version 14'}")
    return lines, good


WHOLE = st.sampled_from([2, 4]).flatmap(streams)


@patient
@given(WHOLE, st.integers(1, 50))
def test_whole_streams_are_read_alike_in_pieces_of_any_size(
    stream: tuple[list[str], bool], size: int
) -> None:
    lines, good = stream
    data = "".join(f"{line}\n" for line in lines).encode()
    reader = Reader()
    for first in range(0, len(data), size):
        reader.feed(data[first : first + size])

    assert read(data) == reader.end()
    assert (PASSED if good else FAILED) is judged(data).state


@patient
@given(WHOLE, st.data())
def test_no_cut_stream_passes(stream: tuple[list[str], bool], data: st.DataObject) -> None:
    whole = "".join(f"{line}\n" for line in stream[0]).encode()
    wanted = data.draw(st.sampled_from([Format.TAP, Format.KTAP, Format.AUTO]))
    must_fail = judged(whole, 0, wanted).state is FAILED
    end = data.draw(st.integers(0, len(whole) - 1))
    cut = whole[:end]
    if wanted is Format.AUTO and not read(cut).recognised:
        return  # nothing says that it was to be TAP; `format = "tap"` does

    # What follows the last result and the plan carries no verdict.
    told = [n for n, line in enumerate(stream[0]) if "ok " in line or "1.." in line][-1]
    needed = len("".join(f"{line}\n" for line in stream[0][: told + 1]).encode())
    if must_fail or end < needed:
        assert FAILED is judged(cut, 0, wanted).state


@settings(patient, max_examples=200)
@given(WHOLE, st.data())
def test_no_damage_makes_a_failure_a_pass(
    stream: tuple[list[str], bool], data: st.DataObject
) -> None:
    lines, good = stream
    kind = data.draw(st.sampled_from(["drop", "twice", "swap", "byte", "insert", "join"]))
    place = data.draw(st.integers(0, len(lines) - 1))
    changed = list(lines)
    if kind == "drop":
        del changed[place]
    elif kind == "twice":
        changed.insert(place, lines[place])
    elif kind == "swap":
        other = data.draw(st.integers(0, len(lines) - 1))
        changed[place], changed[other] = changed[other], changed[place]
    elif kind == "insert":
        changed.insert(place, data.draw(st.text(alphabet="not ok1.#-\t\0é", max_size=10)))
    elif kind == "join" and place:
        changed[place - 1 : place + 1] = [changed[place - 1] + changed[place]]
    raw = bytearray("".join(f"{line}\n" for line in changed).encode("utf-8", "surrogatepass"))
    if kind == "byte":
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))

    if not good:
        assert PASSED is not judged(bytes(raw)).state
    told = "ok " in lines[place] or "1.." in lines[place]
    if kind == "drop" and told:
        assert PASSED is not judged(bytes(raw)).state


@patient
@given(st.binary(max_size=200), st.integers(-64, 255).filter(bool))
def test_whatever_is_printed_a_bad_status_never_passes(data: bytes, status: int) -> None:
    for wanted in Format:
        assert PASSED is not judged(data, status, wanted).state


@patient
@given(st.binary(max_size=300))
def test_no_bytes_upset_the_reader(data: bytes) -> None:
    said = read(data)

    assert said.counts.total() >= len(said.points)


def test_names_of_failures_are_few() -> None:
    text = "1..9\n" + "".join(f"not ok {n} t{n}\n" for n in range(1, 10))

    assert "9 of 9 subtests failed: t1, t2, t3, t4, t5 and 4 more" == judged(text, 1).why


def test_a_point_without_words_is_named_by_its_number() -> None:
    assert [Point("1", PASSED)] == read(b"1..1\nok 1\n").points
