# SPDX-License-Identifier: MIT
"""What kernels say, as recorded: complaints, each with its telling line first, and ordinary words.

It is written down here apart from `lab/rules/dmesg_deny.txt`, so that neither follows the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COMPLAINTS: Mapping[str, Sequence[str]] = {
    "oops": (
        "BUG: kernel NULL pointer dereference, address: 0000000000000028",
        "#PF: supervisor read access in kernel mode",
        "Oops: 0000 [#1] PREEMPT SMP NOPTI",
        "RIP: 0010:io_poll_wake+0x2a/0x3c0",
        "---[ end trace 0000000000000000 ]---",
    ),
    "general-protection": (
        "general protection fault, probably for non-canonical address 0xdead000000000108: 0000",
        "RIP: 0010:io_kbuf_recycle_legacy+0x11/0x90",
    ),
    "bug-on": (
        "kernel BUG at io_uring/io_uring.c:1043!",
        "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
    ),
    "panic": (
        "Kernel panic - not syncing: Fatal exception in interrupt",
        "Kernel Offset: disabled",
    ),
    "warn": (
        "WARNING: CPU: 1 PID: 211 at io_uring/kbuf.h:146 io_recv_finish+0x2f1/0x470",
        "Modules linked in: virtio_net net_failover failover",
        "Call Trace:",
        " <TASK>",
    ),
    "kasan": (
        "BUG: KASAN: slab-use-after-free in io_poll_wake+0x2a/0x3c0",
        "Read of size 8 at addr ffff888003a4b0c0 by task python3/97",
    ),
    "kcsan": ("BUG: KCSAN: data-race in io_submit_sqes / io_sq_thread", "race at unknown origin"),
    "kfence": ("BUG: KFENCE: use-after-free read in io_clean_op+0x5b/0x120",),
    "ubsan": (
        "UBSAN: array-index-out-of-bounds in io_uring/kbuf.c:41:12",
        "index 8 is out of range for type 'io_uring_buf [*]'",
    ),
    "lockdep": (
        "WARNING: possible circular locking dependency detected",
        "6.12.107 #1 Not tainted",
        "python3/97 is trying to acquire lock:",
    ),
    "lockdep-recursive": ("WARNING: possible recursive locking detected",),
    "rcu-stall": (
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "rcu: \t0-....: (5249 ticks this GP) idle=0b94/1/0x4000000000000000 softirq=2207/2207",
    ),
    "rcu-expedited": (
        "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... } 21 jiffies",
    ),
    "hung-task": (
        "INFO: task iou-wrk-97:98 blocked for more than 120 seconds.",
        "      Not tainted 6.12.107 #1",
    ),
    "soft-lockup": ("watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [python3:97]",),
    "hard-lockup": ("watchdog: Watchdog detected hard LOCKUP on cpu 1",),
    "out-of-memory": (
        "Out of memory: Killed process 97 (python3) total-vm:812340kB, anon-rss:700112kB",
    ),
    "refcount": ("refcount_t: underflow; use-after-free.",),
    "list": ("list_del corruption. prev->next should be ffff88800, but was 0000000000000000",),
}
TALK: Sequence[Sequence[str]] = (
    ("random: crng init done",),
    ("EXT4-fs (vda): mounted filesystem with ordered data mode",),
    ("loop: module loaded", "virtio_net virtio1 eth0: renamed from enp0s2"),
    ("virtio_net: loading out-of-tree module taints kernel.",),
    ("traps: python3[97] general protection fault ip:7f sp:7f error:0 in libc.so.6[7f]",),
    ("io_uring: 0xff debugging \\xff\\xfe is what a line looks like that was no text",),
    ("perf: interrupt took too long (2508 > 2500), lowering kernel.perf_event_max_sample_rate",),
)
"""The fifth looks like a complaint and is of a process of ours; no machine-checked list has it."""
