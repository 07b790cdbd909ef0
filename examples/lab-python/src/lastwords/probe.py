# SPDX-License-Identifier: MIT
"""What this kernel can do of what lastwords needs, found out by doing it.

`python -m lastwords.probe` prints it as JSON, which is how the lab asks.
"""

from __future__ import annotations

import json
import os
import select
import threading

from . import _pidfd


def observe_pidfd_thread() -> dict[str, object]:
    """Whether a descriptor for a thread tells of the end of that thread alone."""
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    try:
        descriptor = _pidfd.open(thread.native_id, _pidfd.THREAD)
    except OSError as error:
        return finding(False, {"errno": error.errno}, f"pidfd_open(2): {error.strerror}")
    else:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        early = bool(poll.poll(0))
        go.set()
        late = bool(poll.poll(5000))
        os.close(descriptor)
        return finding(late and not early, {"while_it_ran": early, "at_its_end": late})
    finally:
        go.set()
        thread.join()


def finding(observed: bool, evidence: dict[str, object], note: str = "") -> dict[str, object]:
    """As the lab reads it. The kernel declares nothing of its pidfds."""
    return {
        "declared": None,
        "accepted": "errno" not in evidence,
        "observed": observed,
        "evidence": evidence,
        "note": note,
    }


def main() -> None:
    """Print the findings as JSON."""
    capabilities = {"PIDFD_THREAD": observe_pidfd_thread()}
    print(json.dumps({"release": os.uname().release, "error": None, "capabilities": capabilities}))


if __name__ == "__main__":
    main()
