# SPDX-License-Identifier: MIT
"""What came from 6.13 on, each used in another way than the probe uses it.

NAPI_STATIC and WAIT_REGION (6.13), RECV_MSHOT_LIM (6.17), QUERY (6.18), SQ_REWIND (7.0), MIN_LEFT,
NOTIF_USER_DATA and ZCRX_NODEV (7.1), SEND_RECV_FIXED (7.2).  NO_IOWAIT has a file of its own.
"""

from __future__ import annotations

import errno
import socket
import struct
from mmap import PAGESIZE, mmap

import pytest

from ioxide._probe import zcrx
from ioxide._probe.rawring import RawRing
from ioxide._ring._native import ffi, lib
from tests.kernel_gated.rawtools import REACTOR_FLAGS, pattern, tcp_pair

pytestmark = pytest.mark.kernel_gated

REGISTER_NAPI = 27  # IORING_REGISTER_NAPI, 6.9
NAPI_REGISTER, NAPI_ADD, NAPI_DELETE = 0, 1, 2  # IO_URING_NAPI_*, 6.13
NAPI_TRACKS_STATIC, NAPI_TRACKS_NOTHING = 1, 255


def address(of: object) -> int:
    """Where a C object is."""
    return int(ffi.cast("uintptr_t", of))


def napi(ring: RawRing, operation: int, parameter: int) -> tuple[int, int]:
    """The result of IORING_REGISTER_NAPI, and what it hands back as the parameter of before."""
    argument = bytearray(struct.pack("=IBBHII", 10, 1, operation, 0, parameter, 0))
    result = ring.register(REGISTER_NAPI, ffi.from_buffer(argument))
    return result, struct.unpack("=IBBHII", argument)[4]


@pytest.mark.needs("NAPI_STATIC")
def test_devices_are_named_one_by_one() -> None:
    """With static tracking a device is added once and deleted once, and without it not at all."""
    device = 9_999  # no number of a processor; the kernel does not look whether there is one
    with RawRing(flags=REACTOR_FLAGS) as ring:
        assert napi(ring, NAPI_ADD, device)[0] == -errno.EINVAL
        assert napi(ring, NAPI_REGISTER, NAPI_TRACKS_STATIC) == (0, NAPI_TRACKS_NOTHING)
        added = [napi(ring, NAPI_ADD, device)[0] for _ in range(2)]
        deleted = [napi(ring, NAPI_DELETE, device)[0] for _ in range(2)]
    assert ([0, -errno.EEXIST], [0, -errno.ENOENT]) == (added, deleted)


@pytest.mark.needs("WAIT_REGION")
def test_each_place_of_the_region_is_a_wait_of_its_own() -> None:
    """Waits of 5 and of 60 ms lie side by side; a place beyond the region is refused."""
    short, long = 5, 60
    with RawRing(flags=lib.IOX_SETUP_R_DISABLED) as ring:
        region = mmap(-1, PAGESIZE)
        described = ffi.new("uint64_t[8]", [ring.keep(region), len(region), 1])
        argument = ffi.new("uint64_t[4]", [address(described), 1])
        assert ring.register(lib.IOX_REGISTER_MEM_REGION, argument) == 0
        assert ring.register(lib.IOX_REGISTER_ENABLE_RINGS, ffi.NULL, 0) == 0
        for place, wait_ms in enumerate((short, long)):
            region[place * 64 : place * 64 + 24] = struct.pack("=qqII", 0, wait_ms * 10**6, 0, 1)
        took = []
        for place in (1, 0, 1):
            assert lib.iox_probe_enter_by_region(ring.raw, 1, place * 64) == -errno.ETIME
            took.append(ring.last_us / 1000)
        assert lib.iox_probe_enter_by_region(ring.raw, 1, len(region)) == -errno.EFAULT
    assert [True] * 3 == [t >= w for t, w in zip(took, (long, short, long), strict=True)], took


@pytest.mark.needs("RECV_MSHOT_LIM")
def test_limits_divide_a_stream() -> None:
    """Two multishot receives take three buffers and one, and no more."""
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        buffers = ring.provide(group=2, entries=8, size=64)
        near.sendall(pattern(300))
        got, lengths = b"", []
        for limit in (192, 64):
            ring.push(
                lib.IOX_PROBE_OP_RECV,
                fd=far.fileno(),
                ioprio=lib.IOX_RECV_MULTISHOT,
                flags=lib.IOX_PROBE_SQE_BUFFER_SELECT,
                buf_group=2,
                file_index=limit,  # in a union with optlen
            )
            found = ring.collect(lambda cqes: any(not c.more for c in cqes))
            lengths.append([c.res for c in found])
            got += b"".join(buffers.read(c.buffer_id or 0, c.res) for c in found)
        assert [[64, 64, 64], [64]] == lengths
        assert pattern(300) == got + far.recv(100)


@pytest.mark.needs("QUERY")
def test_queries_in_a_chain_are_answered_each() -> None:
    """A query that no kernel knows is refused, and the one behind it is answered."""
    unknown, opcodes = 12_345, 0
    with RawRing() as ring:
        answers = [ffi.new("uint64_t[7]") for _ in range(2)]
        headers = [ffi.new("uint32_t[10]") for _ in range(2)]
        following = (address(headers[1]), 0)
        for header, after, answer, asked in zip(
            headers, following, answers, (unknown, opcodes), strict=True
        ):
            where = address(answer)
            words = [after & 0xFFFFFFFF, after >> 32, where & 0xFFFFFFFF, where >> 32, asked, 56]
            for place, word in enumerate(words):
                header[place] = word
        assert ring.register(lib.IOX_REGISTER_QUERY, headers[0], 0) == 0
        results = [int(ffi.cast("int32_t", header[6])) for header in headers]
        assert [-errno.EOPNOTSUPP, 0] == results
        assert ([0] * 7, ring.features) == (list(answers[0]), answers[1][1])


@pytest.mark.needs("SQ_REWIND")
def test_rewound_queue_does_what_its_first_place_says() -> None:
    """Receives from the same place, one for each message, get the messages in order."""
    messages = [bytes([number]) * (number + 1) for number in range(20)]
    with tcp_pair() as (near, far):
        flags = lib.IOX_SETUP_NO_SQARRAY | lib.IOX_SETUP_SQ_REWIND | REACTOR_FLAGS
        with RawRing(entries=4, flags=flags) as ring:
            into = bytearray(64)
            got = []
            for number, message in enumerate(messages):
                near.sendall(message)
                request = {
                    "opcode": int(lib.IOX_PROBE_OP_RECV),
                    "fd": far.fileno(),
                    "addr": ring.keep(into),
                    "len": len(message),
                    "op_flags": socket.MSG_WAITALL,
                    "user_data": number,
                }
                sqe = ffi.new("struct iox_probe_sqe *", request)
                assert lib.iox_probe_enter_first(ring.raw, sqe, 3_000_000) == 1
                got += [(c.user_data, bytes(into[: c.res])) for c in ring.reap()]
    assert list(enumerate(messages)) == got


@pytest.mark.needs("MIN_LEFT")
def test_buffer_is_used_while_enough_is_left() -> None:
    """With 512 of 1024 bytes left a buffer goes on, with one less it is given up and not used
    again before it comes back."""
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        buffers = ring.provide(
            group=2, entries=2, size=1024, flags=lib.IOX_PBUF_RING_INC, min_left=512
        )
        ring.recv(far.fileno(), group=2, ioprio=lib.IOX_RECV_MULTISHOT)
        told = []
        for length in (512, 1, 513):
            near.sendall(pattern(length))
            (cqe,) = ring.collect(1)
            told.append((cqe.res, cqe.buffer_id, cqe.buf_more))
        assert [(512, 0, True), (1, 0, False), (513, 1, False)] == told
        near.sendall(b"last")
        (cqe,) = ring.collect(1)
        assert (-errno.ENOBUFS, False) == (cqe.res, cqe.more)
        buffers.give(0)
        ring.recv(far.fileno(), group=2)
        (cqe,) = ring.collect(1)
        assert (4, 0) == (cqe.res, cqe.buffer_id)
        assert b"last" == buffers.read(0, 4)


@pytest.mark.needs("NOTIF_USER_DATA")
def test_each_notification_has_its_own_user_data() -> None:
    """Three sends: each result has the request's user data, each notification another one."""
    data = pattern(4096)
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        found = []
        for number in (1, 2, 3):
            ring.push(
                lib.IOX_PROBE_OP_SEND_ZC,
                fd=near.fileno(),
                addr=ring.keep(data),
                len=len(data),
                op_flags=socket.MSG_WAITALL,
                addr3=number << 40,
                user_data=number,
            )
            found += ring.collect(1)
            assert data == far.recv(len(data), socket.MSG_WAITALL)
        found += ring.collect(6 - len(found)) if len(found) < 6 else []
    assert [1, 2, 3] == [c.user_data for c in found if not c.notif]
    assert [1 << 40, 2 << 40, 3 << 40] == sorted(c.user_data for c in found if c.notif)


@pytest.mark.needs("ZCRX_NODEV")
def test_messages_arrive_in_the_area_one_after_the_other() -> None:
    """One request: three messages, each in a place of the area that no other one has."""
    flags = REACTOR_FLAGS | lib.IOX_SETUP_CQE_MIXED
    with tcp_pair() as (near, far), RawRing(flags=flags) as ring:
        area = mmap(-1, 32 * PAGESIZE)
        number = zcrx._register(ring, area)
        assert number >= 0
        ring.push(
            lib.IOX_PROBE_OP_RECV_ZC,
            fd=far.fileno(),
            ioprio=lib.IOX_RECV_MULTISHOT,
            file_index=number,
        )
        places = []
        for letter in (b"a", b"b", b"c"):
            near.sendall(letter * 700)
            # Such a completion has two places of the queue; the second says where the bytes are.
            said, where = ring.collect(2)
            assert (700, True) == (said.res, said.more)
            start = where.user_data & ((1 << 48) - 1)
            assert letter * 700 == area[start : start + 700]
            places.append(start)
        assert sorted(set(places)) == sorted(places)


@pytest.mark.needs("SEND_RECV_FIXED")
def test_registered_buffer_ends_where_it_was_registered() -> None:
    """A receive fills the middle of a buffer and nothing else; one beyond its end is refused."""
    with tcp_pair() as (near, far), RawRing(flags=REACTOR_FLAGS) as ring:
        memory = mmap(-1, 4 * PAGESIZE)
        start = ring.keep(memory)
        vector = ffi.new("uint64_t[2]", [start, 3 * PAGESIZE])  # struct iovec
        assert ring.register(lib.IOX_REGISTER_BUFFERS, vector) == 0
        results = []
        for offset in (PAGESIZE, 3 * PAGESIZE - 50):
            near.sendall(b"m" * 100)
            ring.push(
                lib.IOX_PROBE_OP_RECV,
                fd=far.fileno(),
                addr=start + offset,
                len=100,
                ioprio=lib.IOX_RECVSEND_FIXED_BUF,
            )
            results += [c.res for c in ring.collect(1)]
        assert [100, -errno.EFAULT] == results
        assert bytes(PAGESIZE) + b"m" * 100 + bytes(3 * PAGESIZE - 100) == memory[:]
