# SPDX-License-Identifier: MIT
"""Configuration is checked whole, in the constructor, before anything exists (#102)."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import Any

import pytest

import ioxide
from ioxide import Counters, ServerConfig
from tests.support import SMALL, connect, echo, new_threads, open_fds, read_exactly

pytestmark = pytest.mark.issue(102)

BAD: list[tuple[str, Any]] = [
    ("host", ""),
    ("host", 7),
    ("port", -1),
    ("port", 65536),
    ("port", "80"),
    ("port", True),
    ("extra_ports", (0,)),
    ("extra_ports", (8080,)),
    ("extra_ports", (81, 81)),
    ("extra_ports", [81]),
    ("dual_stack", 1),
    ("listen_backlog", 0),
    ("reactors", 0),
    ("reactors", 1025),
    ("reactors", 1.0),
    ("ring_entries", 0),
    ("ring_entries", 32769),
    ("cq_entries", 0),
    ("cq_entries", 3000),
    ("cq_entries", 128),
    ("cq_entries", 131072),
    ("register_ring_fd", None),
    ("recv_buffer_size", 0),
    ("recv_buffer_size", 2**31),
    ("recv_slots", 0),
    ("recv_slots", 100),
    ("recv_slots", 65536),
    ("recv_queue_entries", 0),
    ("recv_queue_entries", 48),
    ("write_slab_size", 0),
    ("write_limit", 0),
    ("write_limit", 16383),
    ("write_limit", 2**31),
    ("write_overflow", "segmented"),
    ("write_overflow", None),
    ("pool_max", -1),
    ("max_connections", 0),
    ("continuation_mode", "inline"),
    ("pool_threads", 0),
    ("pool_threads", 257),
    ("incremental", True),
    ("recv_bundle", 1),
    ("zero_copy_send", None),
    ("napi_busy_poll_us", -1),
    ("napi_prefer_busy_poll", 1),
    ("min_wait_us", -1),
    ("min_wait_nr", 0),
    ("min_wait_nr", 8193),
    ("read_timeout_ms", -1),
    ("send_timeout_ms", -1),
    ("send_timeout_ms", None),
    ("stop_timeout_ms", -1),
    ("stall_warning_ms", -1),
    ("stall_warning_ms", 0.5),
    ("context", 1),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_bad_value_is_refused_by_name(field: str, value: object) -> None:
    """A bad value raises ConfigError naming field and value, before any descriptor or thread."""
    before, threads = open_fds(), threading.enumerate()

    with pytest.raises(ioxide.ConfigError) as caught:
        ServerConfig(**{field: value})  # type: ignore[arg-type]

    assert [(field, value)] == [(p.field, p.value) for p in caught.value.problems]
    assert f"{field}={value!r}" in str(caught.value)
    assert open_fds() <= before
    assert [] == new_threads(threads)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_connections", 0),
        ("max_connections", 65533),
        ("recv_slots", 0),
        ("recv_slots", 12),
        ("recv_slots", 65536),
        ("recv_buffer_size", 0),
        ("recv_buffer_size", True),
    ],
)
def test_bad_incremental_value_is_refused_by_name(field: str, value: Any) -> None:
    """A bad value of the incremental mode is refused at once, not at the first accept."""
    with pytest.raises(ioxide.ConfigError, match=rf"incremental\.{field}={value!r}"):
        ioxide.IncrementalConfig(**{field: value})


def test_bundles_with_incremental_buffers_are_refused() -> None:
    """The combination that released kernels get wrong is refused, and the page about it named."""
    with pytest.raises(ioxide.ConfigError, match=r"docs/bundles\.md"):
        ServerConfig(recv_bundle=True, incremental=ioxide.IncrementalConfig())


def test_all_errors_are_told_at_once() -> None:
    """Several bad values are named by one error."""
    with pytest.raises(ioxide.ConfigError) as caught:
        ServerConfig(port=-1, reactors=0, recv_slots=3)
    assert ["port", "reactors", "recv_slots"] == [p.field for p in caught.value.problems]


@pytest.mark.parametrize(
    "changes",
    [
        {"ring_entries": 1, "cq_entries": 2},
        {"ring_entries": 5, "cq_entries": None},
        {"recv_slots": 1},
        {"recv_slots": 32768, "recv_buffer_size": 64},
        {"recv_buffer_size": 1},
        {"recv_queue_entries": 1},
        {"write_slab_size": 1, "write_limit": 1 << 30},
        {"pool_max": 0},
        {"pool_max": 0, "write_overflow": ioxide.WriteOverflow.SEGMENTED},
        {"max_connections": 1},
        {"read_timeout_ms": 0, "send_timeout_ms": 0},
        {"register_ring_fd": False},
    ],
    ids=str,
)
def test_values_on_the_boundary_start_and_echo(changes: dict[str, object]) -> None:
    """The smallest and largest values allowed make a server that serves."""
    with ioxide.Server(echo, SMALL.replace(**changes)) as server, connect(server) as client:
        client.sendall(b"boundary")
        assert b"boundary" == read_exactly(client, 8)


@pytest.mark.slow  # 50 configs made up at random, and no kernel in it
def test_no_value_at_all_raises_anything_else() -> None:
    """Whatever is passed, it is a config or a ConfigError that names only fields passed."""
    # Here: it takes an emulated processor two seconds, in each guest that collects this file.
    from hypothesis import given, settings
    from hypothesis import strategies as st

    # Without st.text(): its table of all Unicode takes 40 s to make there.
    simple = st.none() | st.booleans() | st.integers() | st.floats()
    values = simple | st.sampled_from(["", "::", "80", ()])
    fields = st.sampled_from([field.name for field in dataclasses.fields(ServerConfig)])
    # These are judged with another field's value.
    related = {"cq_entries", "write_limit", "extra_ports", "min_wait_nr"}
    tried: list[int] = []

    @settings(max_examples=50, deadline=None, database=None)
    @given(st.dictionaries(fields, values, max_size=5))
    def blames_what_was_passed(passed: dict[str, object]) -> None:
        tried.append(len(passed))
        named: set[str] = set()
        with contextlib.suppress(ioxide.ConfigError):
            try:
                ServerConfig(**passed)  # type: ignore[arg-type]
            except ioxide.ConfigError as error:
                named = {problem.field for problem in error.problems}
                raise
        assert named <= set(passed) | related

    blames_what_was_passed()
    assert 50 <= len(tried)


def test_config_is_frozen() -> None:
    """A configuration cannot change after it was checked."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("config", [0, {}, "defaults"])
@pytest.mark.parametrize(
    "start",
    [lambda config: ioxide.Server(echo, config), ioxide.new_event_loop, ioxide.Driver],
    ids=["Server", "new_event_loop", "Driver"],
)
def test_what_is_no_configuration_is_named(start: Any, config: object) -> None:
    """Each door refuses it by its value; an empty one is not taken for the defaults."""
    with pytest.raises(TypeError, match=r"must be an ioxide\.ServerConfig") as caught:
        start(config)

    assert repr(config) in str(caught.value)


def test_handler_must_be_callable() -> None:
    """A handler that cannot be called is refused at once."""
    with pytest.raises(TypeError, match="async function"):
        ioxide.Server("handler")  # type: ignore[arg-type]


def test_counters_are_the_ring_s_own() -> None:
    """Every counter that C counts has its field, and the other way round."""
    driver = ioxide.Driver(SMALL)
    try:
        counted = set(driver._core.counters())
    finally:
        driver.close()
    python = {"posts", "callback_faults", "handler_faults", "timer_ticks", "ticker_faults"}
    python |= {"task_faults", "stalls"}
    assert {field.name for field in dataclasses.fields(Counters)} == counted | python
