# SPDX-License-Identifier: MIT
"""``python -m bench affinity``: what a handler pays for going on elsewhere than in the tick.

Four continuation modes, and inline without the context, measured in paired rounds on one core; the
table goes into docs/affinity.md.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from bench import page
from bench.native import ROOT
from bench.process import CONNECTIONS, running
from bench.rounds import Sample, Samples, Spread, interleaved, ratios

ROUNDS = 9
SECONDS = 1.0
PAGE = ROOT / "docs" / "affinity.md"
MODES: dict[str, Mapping[str, object]] = {
    "inline": {},
    "inline, context off": {"context": False},
    "posted": {"continuation_mode": "posted"},
    "pool_coalesced": {"continuation_mode": "pool_coalesced"},
    "pool": {"continuation_mode": "pool"},
}
STEPS = (
    ("inline", "posted", "queue discipline"),
    ("posted", "pool_coalesced", "migration, hop and GIL hand-over"),
    ("pool_coalesced", "pool", "the eventfd storm"),
)
"""What lies between two modes."""
COLUMNS = (
    ("CPU us/request", "cpu_us", ".2f"),
    ("enters/request", "enters", ".4f"),
    ("completions/enter", "completions", ".1f"),
    ("wake writes/request", "wake_writes", ".4f"),
    ("switches/request", "switches", ".3f"),
    ("p50 us", "p50_us", ".0f"),
    ("p99 us", "p99_us", ".0f"),
)


def _column(samples: Samples, name: str, field: str) -> Spread:
    return Spread.of([getattr(sample, field) for sample in samples[name]])


def table(samples: Samples) -> str:
    """A row for each mode: medians, and of what is compared the least and the most."""
    heads = ["mode", "req/s of inline's [min .. max]", *(head for head, _, _ in COLUMNS)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in samples:
        share = ratios(samples, name, "inline")
        cells = [name, f"{share.median:.2f} [{share.low:.2f} .. {share.high:.2f}]"]
        for head, field, form in COLUMNS:
            spread = _column(samples, name, field)
            cell = format(spread.median, form)
            if head.startswith("CPU"):
                cell += f" [{spread.low:{form}} .. {spread.high:{form}}]"
            cells.append(cell)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def steps(samples: Samples) -> str:
    """What each step down from inline costs, of the server's processor."""
    lines = [
        "| step | what it is | server CPU us/request [min .. max over rounds] |",
        "|---|---|---|",
    ]
    for upper, lower, meaning in STEPS:
        pairs = zip(samples[upper], samples[lower], strict=True)
        spread = Spread.of([below.cpu_us - above.cpu_us for above, below in pairs])
        cost = f"{spread.median:+.2f} [{spread.low:+.2f} .. {spread.high:+.2f}]"
        lines.append(f"| {lower} - {upper} | {meaning} | {cost} |")
    return "\n".join(lines)


def machine() -> str:
    """What it ran on, in words that stay true."""
    model = "an unnamed processor"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    series = ".".join(platform.release().split(".")[:2])
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} x {model}, Linux {series}, {python}"


def run(rounds: int, seconds: float, *, write: bool) -> int:
    """Measure, print, and write the page."""
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(running(mode)) for name, mode in MODES.items()}
        samples = interleaved(
            servers,
            Sample.of,
            rounds=rounds,
            seconds=seconds,
            told=lambda number: print(f"round {number} of {rounds}", flush=True),
        )
    load = os.getloadavg()[0]
    inline = Spread.of([sample.rate for sample in samples["inline"]])
    text = (
        f"{machine()}. {CONNECTIONS} connections, {rounds} rounds of {seconds:g} s a mode, server\n"
        f"and load generator on one core; load average at the end {load:.1f}, of which about 1\n"
        f"is the benchmark itself. Inline served {inline.median:.0f} requests/s\n"
        f"[{inline.low:.0f} .. {inline.high:.0f}]. No receive lacked a buffer.\n\n"
        f"{table(samples)}\n\n{steps(samples)}"
    )
    page.show(PAGE, "affinity", text, write=write)
    return 0
