# SPDX-License-Identifier: MIT
"""Scenarios for hypothesis to make and to shrink."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from .corpus import COMPLAINTS, TALK
from .program import report
from .scenario import MESSAGES, MOMENTS, Deed, Scenario

OTHER = "tests/test_fuzzed_a.py::test_1"
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, 1.0, -1, 10**30, 0.5, float("nan"), "", "passed", "failed",
    "skipped", "error", "setup", "call", "teardown", "amazing", "\ud800", "\0\x1b[2J", "x" * 70_000,
    OTHER, "tests/test_nowhere.py::test_nobody", [], {}, [[]], [None, 1, "x"], [OTHER, OTHER],
    {"a": {"b": []}}, [["a", "b"]], [["a", None]], ["x", 1, "Skipped: because"],
    ["x", 1, "Skipped: needs NAPI: not observed"], ["x", 1, "Skipped: needs INC: not observed"],
    {"reprcrash": None, "reprtraceback": {}, "sections": []},
)  # fmt: skip
"""What a field may be instead."""
_OF_A_REPORT = (
    "nodeid", "outcome", "when", "longrepr", "sections", "duration", "keywords", "location",
    "user_properties", "start", "$report_type", "_report_type", "wasxfail", "context",
    "lab_verdict", "lab_erratum", "item_index", "__class__",
)  # fmt: skip
PATHS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "hello": tuple(
        (name,)
        for name in ("nonce", "release", "tree_sha256", "extension_sha256", "bytecode_sha256")
    ),
    "collected": (("ids",), ("errors",)),
    "start": (("id",),),
    "report": (("id",), ("data",), *(("data", name) for name in _OF_A_REPORT)),
    "finish": (("id",), ("reports",)),
    "done": (("finished",), ("status",), ("left",)),
    "exited": (("status",),),
}
_EXTRA: tuple[Mapping[str, Any], ...] = (
    {"type": "hello"},
    {"type": "start", "id": OTHER},
    {"type": "finish", "id": OTHER, "reports": 3},
    {"type": "report", "id": OTHER, "data": report(OTHER, "call", "passed")},
    {"type": "trouble", "text": "pytest broke: \ud800"},
    {"type": "trouble", "text": 5},
    {"type": "done", "finished": 1, "status": 0, "left": []},
    {"type": "hurrah"},
    {"type": 7},
    {},
)
_BYTES = st.sampled_from(
    ("x", "\0\x1b[2J", "\udcff\udcfe", "no newline", '{"n": 3, "type": "finish"}\n')
)
_KMSG = st.sampled_from(
    (
        "no record\n", "4,0,0,-;again\n", "4,99999,1,-;later\n", "\udcff\n", "4,1,1,-;half",
        "99999999999999999999,1,1,-;x\n", "4,1,1,c;y\n", " SUBSYSTEM=none\n", "4,1,1;x\n",
    )
)  # fmt: skip
_WHAT = st.sampled_from((*COMPLAINTS, *map(str, range(len(TALK)))))
_SAYS = st.fixed_dictionaries(
    {"what": _WHAT, "how": st.sampled_from(("whole", "cut", "woven", "broken", "user"))}
)
_ANYWHERE: Mapping[str, st.SearchStrategy[Mapping[str, Any]]] = {
    "say": _SAYS,
    "gap": st.fixed_dictionaries({"count": st.sampled_from((1, 17, 10**6))}),
    "lost": st.fixed_dictionaries(
        {
            "what": st.sampled_from(("", *COMPLAINTS)),
            "how": st.sampled_from(("newline", "no newline")),
        }
    ),
    "deaf": st.just({}),
    "jump": st.fixed_dictionaries({"seconds": st.sampled_from((1, 61, 10**6))}),
    "frame": st.fixed_dictionaries(
        {
            "how": st.sampled_from(("flip", "cut", "twice", "add", "gone")),
            "at": st.integers(0, 400),
        }
    ),
}
_OF_PROCESSES: Mapping[str, st.SearchStrategy[Mapping[str, Any]]] = {
    "exit": st.fixed_dictionaries({"status": st.sampled_from((0, 1, 3, 5, -6, -9, -11, 255))}),
    "silence": st.just({}),
    "noise": st.fixed_dictionaries({"bytes": _BYTES, "times": st.sampled_from((1, 1000))}),
}
_FIT = st.booleans()
_OF_MESSAGES: Mapping[str, st.SearchStrategy[Mapping[str, Any]]] = {
    "drop": st.fixed_dictionaries({"fit": _FIT}),
    "twice": st.fixed_dictionaries({"fit": _FIT}),
    "later": st.just({}),
    "insert": st.fixed_dictionaries({"fit": _FIT, "value": st.sampled_from(_EXTRA)}),
}


def _sets(at: str) -> st.SearchStrategy[Mapping[str, Any]]:
    paths = PATHS[at] if at == "exited" else (*PATHS[at], ("n",), ("type",), ("more",))
    return st.fixed_dictionaries(
        {"path": st.sampled_from(paths).map(list), "value": st.sampled_from(VALUES)}
    )


def _acts(at: str) -> Mapping[str, st.SearchStrategy[Mapping[str, Any]]]:
    acts = dict(_ANYWHERE)
    if at in (*MESSAGES, "spawn", "probe"):
        acts |= _OF_PROCESSES
    if at in MESSAGES:
        acts |= _OF_MESSAGES
    if at in PATHS:
        acts["set"] = _sets(at)
    if at == "exited":
        acts |= {"drop": st.just({}), "twice": st.just({})}
    if at == "log":
        acts["data"] = st.fixed_dictionaries({"bytes": _KMSG})
    if at in ("log", "tar", "spawn", "probe", "kill"):
        acts["error"] = st.just({"text": "[Errno 5] Input/output error"})
    return acts


@st.composite
def _deeds(draw: st.DrawFn) -> Deed:
    # What is not about the conversation is as likely as what is, at whichever moment.
    at = draw(st.sampled_from(MOMENTS + MESSAGES))
    acts = _acts(at)
    act = draw(st.sampled_from([*acts, *(["set"] * 4 if "set" in acts else [])]))
    nth = draw(st.sampled_from((0, 0, 1, 1, 2, 4, -1)))
    return Deed(at, nth, act, draw(acts[act]))


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A run of up to six tests in one or two guests, with up to four deeds."""
    outcomes = draw(
        st.lists(st.sampled_from(("passed", "passed", "skipped", "failed")), min_size=1, max_size=4)
    )
    guests = draw(st.sampled_from((1, 1, 1, 2)))
    deeds = draw(st.lists(_deeds(), max_size=4))
    most = 6 if guests > 1 else 3
    return Scenario(tuple(outcomes[:most]), guests, tuple(deeds))
