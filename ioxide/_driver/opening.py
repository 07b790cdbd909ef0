# SPDX-License-Identifier: MIT
"""Opens rings, and says in a sentence why one cannot be had, or cannot do what is asked of it."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ioxide._common import record
from ioxide._common.config import ServerConfig, WriteOverflow
from ioxide._driver import soundness
from ioxide._probe import mask
from ioxide._probe.findings import Capability
from ioxide._probe.refusal import explain
from ioxide._ring import _core, ffi, lib
from ioxide.errors import RingError, UnsupportedError

_REQUIRED = (
    Capability.MULTISHOT_RECV,
    Capability.MULTISHOT_ACCEPT,
    Capability.PBUF_RING,
    Capability.SINGLE_ISSUER,
    Capability.DEFER_TASKRUN,
)
"""Without these no reactor runs; Linux 6.1 has all of them."""


def ring_error(code: int, config: ServerConfig, what: str) -> RingError:
    """`what` failed with the errno `code`; the sentence adds the reason and the way out."""
    if code == errno.EINVAL:
        reason = (
            "this kernel does not know a flag that ioxide needs (SINGLE_ISSUER and DEFER_TASKRUN); "
            "Linux 6.1 is the oldest that will do."
        )
    else:
        reason = explain(OSError(code, os.strerror(code)))
    if code == errno.ENOMEM:
        reason += (
            f" This ring has ring_entries={config.ring_entries}, cq_entries={config.cq_entries} "
            f"and recv_slots={config.recv_slots}: smaller ones need less."
        )
    return RingError(code, f"{what}: {reason}")


def no_descriptor(code: int, what: str) -> str:
    """The sentence for EMFILE and ENFILE: `what` is the thing that needs a descriptor."""
    return (
        f"there is no file descriptor left for {what} ({os.strerror(code)}): close some, or raise "
        "the limit with `ulimit -n`."
    )


def open_driver(config: ServerConfig, connection_type: type[_core.Connection]) -> _core.Driver:
    """The owner of a new ring on the calling thread that can do all that `config` asks for.

    Raises `RingError` when the kernel refuses the ring, `UnsupportedError` when it lacks what the
    configuration asks for.
    """
    masked = _masked()
    _check_features(config, masked)
    try:
        driver = _core.Driver(connection_type, **_settings(config, masked))
    except OSError as error:
        raise _start_error(error, config) from error
    try:
        if config.napi_busy_poll_us:
            _set_napi(driver, config, masked)
    except BaseException:
        driver.close()
        raise
    return driver


def _settings(config: ServerConfig, masked: frozenset[Capability]) -> dict[str, Any]:
    """What the core is told: `config`'s values by their own names, but for those that differ."""
    own = config.incremental
    differing = {
        "cq_entries": config.cq_entries or 2 * config.ring_entries,
        "register_ring_fd": (
            config.register_ring_fd and Capability.REGISTERED_RING_FD not in masked
        ),
        "groups": own.max_connections if own else 0,
        "recv_slots": own.recv_slots if own else config.recv_slots,
        "recv_buffer_size": own.recv_buffer_size if own else config.recv_buffer_size,
        "max_connections": config.max_connections or 2**32 - 1,
        "record": record.wanted(),
        "segmented": config.write_overflow is WriteOverflow.SEGMENTED,
    }
    return {
        name: differing[name] if name in differing else getattr(config, name)
        for name in _core.SETTINGS
    }


def _start_error(error: OSError, config: ServerConfig) -> RingError:
    """Which call of a start the kernel refused, as the core names it, and what to do."""
    code = error.errno or 0
    if error.strerror == "eventfd(2)":
        if code in (errno.EMFILE, errno.ENFILE):
            return RingError(code, no_descriptor(code, "the eventfd that wakes a ring"))
        return ring_error(code, config, "the eventfd that wakes a ring could not be made")
    if error.strerror == "io_uring_setup(2)":
        return ring_error(code, config, "io_uring_setup failed")
    return ring_error(
        code,
        config,
        f"{config.recv_slots} receive buffers of {config.recv_buffer_size} bytes could not "
        "be registered",
    )


def _masked() -> frozenset[Capability]:
    """What IOXIDE_CAPS takes away. Raises `UnsupportedError` if no reactor runs without it."""
    masked = mask.active()
    for capability in _REQUIRED:
        if capability in masked:
            raise UnsupportedError(
                errno.EOPNOTSUPP,
                f"{mask.VARIABLE} takes away {capability}, which every reactor needs.",
            )
    return masked


@contextlib.contextmanager
def _ring_to_ask(config: ServerConfig) -> Iterator[tuple[Any, int]]:
    """A small ring to try things on, so that nothing is left on the one that serves; its features.

    Raises `RingError` when the kernel refuses it.
    """
    code = ffi.new("int *")
    ring = lib.iox_ring_open(4, 8, False, code)
    if ring == ffi.NULL:
        raise ring_error(-code[0], config, "io_uring_setup failed")
    try:
        info = ffi.new("struct iox_ring_info *")
        lib.iox_ring_info(ring, info)
        yield ring, info.features
    finally:
        lib.iox_ring_close(ring, True)


@dataclass(frozen=True)
class _Need:
    """What a setting needs of the kernel, in the words of the refusal."""

    setting: str
    capability: Capability
    what: str
    since: str

    def check(self, masked: frozenset[Capability], there: Callable[[], bool]) -> None:
        """Raise `UnsupportedError` unless the kernel has it, and IOXIDE_CAPS leaves it."""
        gone = self.capability in masked
        if gone or not there():
            played = f", from which {mask.VARIABLE} takes away {self.capability}" if gone else ""
            raise UnsupportedError(
                errno.EOPNOTSUPP,
                f"{self.setting} needs {self.what}, which is in Linux {self.since} and newer; this "
                f"is {os.uname().release}{played}. Leave it out, or use a newer kernel.",
            )


def _needs(config: ServerConfig) -> list[tuple[_Need, Callable[[Any, int], bool]]]:
    """What `config` asks for beyond Linux 6.1, each with how a ring and its features tell of it."""
    needs: list[tuple[_Need, Callable[[Any, int], bool]]] = []
    if config.incremental is not None:
        what = "incremental buffer rings (IOU_PBUF_RING_INC)"
        need = _Need("incremental", Capability.INC, what, "6.12")
        needs.append((need, lambda ring, _: _knows_incremental(ring, config)))
    if config.recv_bundle:
        what = "receive bundles (IORING_FEAT_RECVSEND_BUNDLE)"
        need = _Need("recv_bundle=True", Capability.BUNDLE, what, "6.10")
        needs.append((need, lambda _, features: bool(features & lib.IOX_FEAT_RECVSEND_BUNDLE)))
    if config.zero_copy_send:
        need = _Need("zero_copy_send=True", Capability.SEND_ZC, "IORING_OP_SEND_ZC", "6.0")
        needs.append((need, lambda ring, _: _knows_zero_copy(ring, config)))
    if config.min_wait_us:
        what = "minimum waits (IORING_FEAT_MIN_TIMEOUT)"
        need = _Need(f"min_wait_us={config.min_wait_us}", Capability.MIN_WAIT, what, "6.12")
        needs.append((need, lambda _, features: bool(features & lib.IOX_FEAT_MIN_TIMEOUT)))
    return needs


def _check_features(config: ServerConfig, masked: frozenset[Capability]) -> None:
    """Refuse, before anything listens, what would otherwise fail at the first connection.

    Asks for no more than the configuration does: with the defaults no ring is opened for it.
    """
    needs = _needs(config)
    if not needs:
        return
    with _ring_to_ask(config) as (ring, features):
        for need, there in needs:
            need.check(masked, functools.partial(there, ring, features))
    try:
        complaint = soundness.complaint(config)
    except OSError as error:
        what = "this kernel's receives could not be tried"
        raise ring_error(error.errno or 0, config, what) from error
    if complaint:
        raise UnsupportedError(errno.EOPNOTSUPP, complaint)


def _knows_incremental(ring: Any, config: ServerConfig) -> bool:
    code: int = lib.iox_ring_incremental(ring)
    if code not in (0, -errno.EINVAL):
        raise ring_error(-code, config, "a group of receive buffers could not be registered")
    return code == 0


def _knows_zero_copy(ring: Any, config: ServerConfig) -> bool:
    operations = [lib.IOX_OP_SEND_ZC]
    if config.write_overflow is WriteOverflow.SEGMENTED:
        operations.append(lib.IOX_OP_SENDMSG_ZC)
    return all(lib.iox_ring_knows(ring, operation) for operation in operations)


def _set_napi(driver: _core.Driver, config: ServerConfig, masked: frozenset[Capability]) -> None:
    """Once, on the ring that serves: a kernel that lacks it refuses it, and nothing is left."""

    def there() -> bool:
        try:
            driver.set_napi(config.napi_busy_poll_us, config.napi_prefer_busy_poll)
        except OSError as error:
            # EOPNOTSUPP: a kernel built without CONFIG_NET_RX_BUSY_POLL.
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return False
            what = "NAPI busy polling could not be set"
            raise ring_error(error.errno or 0, config, what) from error
        return True

    setting = f"napi_busy_poll_us={config.napi_busy_poll_us}"
    what = "NAPI busy polling (IORING_REGISTER_NAPI)"
    _Need(setting, Capability.NAPI, what, "6.9").check(masked, there)
