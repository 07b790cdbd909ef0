# SPDX-License-Identifier: MIT
"""``python refused_calls.py setup=ENOMEM,ENOMEM enter=EBUSY``: a server on a grudging kernel.

The first calls of each of these system calls are answered with the errnos named (of io_uring_enter,
those that submit something); every later one is the kernel's (seccomp_unotify(2), 5.5). A script
and not a fixture, because such a filter cannot be taken away; and what answers is a process of its
own, because the caller may hold the GIL. The last line on standard output is what happened, as
JSON.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import select
import socket
import struct
import sys
from collections.abc import Mapping

import ioxide
from tests.support import SMALL, connect, echo, read_exactly

CALLS = {"setup": 425, "enter": 426, "register": 427}
"""io_uring_setup(2) and its sisters; the numbers are the same on every machine."""
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_RET_ALLOW, _RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
_BPF_LD_W_ABS, _BPF_JEQ, _BPF_RET = 0x20, 0x15, 0x06
_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_REGISTER_PBUF_RING = 22
_SIZE = 80  # struct seccomp_notif
_TOTAL = 100_000


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _listener(numbers: list[int]) -> int:
    """A descriptor that is asked about these system calls of this thread and those it starts."""
    jumps = [(_BPF_JEQ, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_BPF_LD_W_ABS, 0, 0, 0),  # seccomp_data.nr
            *jumps,
            (_BPF_RET, 0, 0, _RET_ALLOW),
            (_BPF_RET, 0, 0, _RET_USER_NOTIF),
        )
    )
    prog = _SockFprog(len(program) // 8, program)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    number = _SYS_SECCOMP[platform.machine()]
    listener = int(libc.syscall(number, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(prog)))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)")
    return listener


def _answer(told: socket.socket, refusals: Mapping[int, list[int]]) -> None:
    """Answer every question until the other end of `told` is gone: b"n" goes back for each no, and
    b"r" for each enter that comes next to one, submits nothing and waits."""
    refused = False
    _, (listener,), _, _ = socket.recv_fds(told, 1, 1)
    questions = select.poll()
    questions.register(listener, select.POLLIN)
    questions.register(told, select.POLLIN)
    while True:
        for descriptor, _ in questions.poll():
            if descriptor == told.fileno():
                return
            question = bytearray(_SIZE)
            fcntl.ioctl(listener, _NOTIF_RECV, question)
            ident, _pid, _flags, number = struct.unpack_from("=QIIi", question)
            (command,) = struct.unpack_from("=Q", question, 40)  # the second argument
            (wanted,) = struct.unpack_from("=Q", question, 48)  # and the third
            left, enter = refusals[number], number == CALLS["enter"]
            if enter and refused and not command and wanted:
                told.send(b"r")
            refused = bool(left) and (
                number == CALLS["setup"]
                or (enter and command > 0)  # so many submissions
                or command == _REGISTER_PBUF_RING
            )
            if refused:
                no = struct.pack("=QqiI", ident, 0, -left.pop(0), 0)
                told.send(b"n")  # first: the caller may go on, and count, with the answer
                fcntl.ioctl(listener, _NOTIF_SEND, no)
            else:
                fcntl.ioctl(listener, _NOTIF_SEND, struct.pack("=QqiI", ident, 0, 0, _CONTINUE))


def main(rules: list[str]) -> int:
    refusals = {
        CALLS[call]: [getattr(errno, name) for name in names.split(",")]
        for call, _, names in (rule.partition("=") for rule in rules)
    }
    ours, its = socket.socketpair()
    child = os.fork()
    if not child:
        ours.close()
        status = 1
        try:
            _answer(its, refusals)
            status = 0
        finally:
            os._exit(status)
    its.close()
    listener = _listener(list(refusals))
    socket.send_fds(ours, [b"l"], [listener])
    os.close(listener)
    found: dict[str, object] = {"error": ""}
    sent = os.urandom(_TOTAL)
    try:
        with ioxide.Server(echo, SMALL) as server, connect(server) as client:
            client.sendall(sent)
            found["echoed"] = read_exactly(client, _TOTAL) == sent
        stats = server.stats()
        found["eagain"], found["ebusy"] = stats.enter_eagain, stats.enter_ebusy
    except OSError as error:  # RingError is one, and so is what an enter ended with
        found["error"], found["says"] = errno.errorcode[error.errno or 0], str(error)
    told = ours.recv(1000, socket.MSG_DONTWAIT)
    found["refused"], found["rested"] = told.count(b"n"), told.count(b"r")
    print(json.dumps(found))
    ours.close()
    os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
