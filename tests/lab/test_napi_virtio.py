# SPDX-License-Identifier: MIT
"""Issue #103 over two virtio-net devices: busy polling of a real driver, in a guest that has them.

tests/kernel_gated/test_issue_103_waiting_knobs.py asks the same of a veth pair, which every machine
has.  A guest's two devices hang on a hub of QEMU's, so what one sends arrives at the other by
interrupt, as from a wire.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lab import project
from lab.kernels import obtain, resolve
from lab.remote import sending
from lab.vm import NetworkPair, boot, build_rootfs, choose_accel

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.issue(103), pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
PLACE = "/run/napi"


def test_the_reactor_polls_a_network_device_only_when_asked_to(tmp_path: Path) -> None:
    """Of two virtio-net devices the server's is polled with the knob on, and never without."""
    files = obtain(resolve("6.12"))
    sent = sending.of(project.read(ROOT))
    with boot(
        files,
        rootfs=build_rootfs(),
        accel=choose_accel(files),
        results=tmp_path,
        devices=[NetworkPair()],
    ) as guest:
        guest.push_tree(sent.pack(sent.bytecode()), PLACE)
        patience = 60 * max(1.0, guest.slowdown / 8)
        loaded = guest.run(["modprobe", "virtio_net"], timeout_s=patience)
        assert (0, b"") == (loaded.status, loaded.stderr)
        listed = guest.run(["ls", "/sys/bus/virtio/drivers/virtio_net"], timeout_s=patience)
        assert 2 == listed.stdout.count(b"virtio"), f"network devices: {listed.stdout!r}"
        done = guest.run(
            [sys.executable, "-P", "tests/kernel_gated/napi_reactor.py", "eth0", "eth1"],
            env={"PYTHONPATH": PLACE, "IOXIDE_TEST_TIMEOUT": f"{patience:.0f}"},
            cwd=PLACE,
            timeout_s=4 * patience,
        )
        assert (0, b"") == (done.status, done.stderr)
    (came_before, before), (came_with, polled), (came_after, after) = json.loads(done.stdout)
    assert [60_000] * 3 == [came_before, came_with, came_after]
    assert (0, True, 0) == (before, polled > 0, after)
