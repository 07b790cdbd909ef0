# SPDX-License-Identifier: MIT
"""``python -m bench.foreign``: granian, a server that is no program on a loop of ours.

It runs in a process of its own and knows no commands, so this one says its port and obeys
``stats`` on standard input as `bench.peer` does, by what the kernel knows of that process.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from bench.peer import application, say
from bench.scenes import PLAIN, SCENES

LIMIT = 30.0
"""Seconds for its start."""
_SCENE = "IOXIDE_BENCH_SCENE"
_TICKS = os.sysconf("SC_CLK_TCK")
_ESTABLISHED = "01"

app = application(SCENES[os.environ.get(_SCENE, PLAIN.name)], date=True)


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            found += family(int(child))
    return found


def used(pid: int) -> dict[str, float]:
    """Processor time of the process and its descendants, in steps of a clock tick (10 ms)."""
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime (proc_pid_stat(5))
    return {"cpu_s": ticks / _TICKS, "switches": 0}


def connections(port: int) -> int:
    """How many connections of that port of 127.0.0.1 are established (proc_net_tcp(5))."""
    local = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[1] == local and row[3] == _ESTABLISHED for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.foreign", description=__doc__)
    parser.add_argument("--scene", choices=SCENES, default=PLAIN.name)
    options = parser.parse_args()
    with socket.socket() as holder:  # see bench.process.reserved_ports()
        holder.bind(("127.0.0.1", 0))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = holder.getsockname()[1]
        command = [sys.executable, "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--http", "1", "--no-ws", "--log-level", "error"]
        command += ["--workers", "1", "--runtime-threads", "1", "bench.foreign:app"]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, env={**os.environ, _SCENE: options.scene}
        )
        try:
            deadline = time.monotonic() + LIMIT
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit("granian does not listen; see above") from None
                    time.sleep(0.05)
            say({"port": port})
            for line in sys.stdin:
                known = line.strip() == "stats"
                now = {"connections_now": connections(port)}
                say({**used(process.pid), **now} if known else {"error": line.strip()})
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(LIMIT)


if __name__ == "__main__":
    main()
