# SPDX-License-Identifier: MIT
"""The parts of a guest's machine, each contributing its own QEMU arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .. import arch
from ..errors import UsageError
from . import qemu


class Device(Protocol):
    """One part of a machine."""

    def arguments(self) -> Sequence[str]:
        """Its part of QEMU's command line."""
        ...


def escaped(path: Path) -> str:
    """A path inside a QEMU option, where a comma separates and is written twice."""
    return str(path).replace(",", ",,")


def virtio(kind: str) -> str:
    """QEMU's name of a virtio device on this machine's bus."""
    return f"virtio-{kind}-{arch.here().transport}"


@dataclass(frozen=True, slots=True)
class SerialConsole:
    """The first serial port, written to a file: the kernel's console."""

    log: Path

    def arguments(self) -> Sequence[str]:
        return (
            *("-chardev", f"file,id=console,path={escaped(self.log)}"),
            *("-serial", "chardev:console"),
        )


@dataclass(frozen=True, slots=True)
class PortBus:
    """The virtio-serial controller the ports below hang on."""

    def arguments(self) -> Sequence[str]:
        return ("-device", f"{virtio('serial')},id=ports")


def _socket(label: str, peer: int | Path) -> str:
    """A socket for `-chardev`: inherited, with no name in any file system and gone with the
    processes that hold it; or, for a QEMU that somebody else starts, one it connects to."""
    where = f"fd={peer}" if isinstance(peer, int) else f"path={escaped(peer)}"
    return f"socket,id={label},{where}"


@dataclass(frozen=True, slots=True)
class SocketPort:
    """A virtio-serial port tied to a socket, inherited or listening."""

    name: str
    peer: int | Path

    def arguments(self) -> Sequence[str]:
        label = self.name.replace(".", "-")
        return (
            *("-chardev", _socket(label, self.peer)),
            *("-device", f"virtserialport,bus=ports.0,chardev={label},name={self.name}"),
        )


@dataclass(frozen=True, slots=True)
class PortConsole:
    """A console on the ports' bus (hvc0), written to a file: the kernel's where the serial port is
    somebody else's. Two serial ports cannot be consoles at once (6.12 took the first alone)."""

    log: Path

    def arguments(self) -> Sequence[str]:
        return (
            *("-chardev", f"file,id=kernel-log,path={escaped(self.log)}"),
            *("-device", "virtconsole,bus=ports.0,chardev=kernel-log"),
        )


@dataclass(frozen=True, slots=True)
class FilePort:
    """A virtio-serial port written to a file. Output that nobody asked for goes here: on one
    port with the agent's frames it would break them, and a full console can block its writer."""

    name: str
    log: Path
    append: bool = False
    """Whether the host may cut the file off while it is written to."""

    def arguments(self) -> Sequence[str]:
        label = self.name.replace(".", "-")
        append = ",append=on" if self.append else ""
        return (
            *("-chardev", f"file,id={label},path={escaped(self.log)}{append}"),
            *("-device", f"virtserialport,bus=ports.0,chardev={label},name={self.name}"),
        )


@dataclass(frozen=True, slots=True)
class Monitor:
    """QMP on a socket, inherited or listening."""

    peer: int | Path
    label: str = "qmp"

    def arguments(self) -> Sequence[str]:
        return (
            *("-chardev", _socket(self.label, self.peer)),
            *("-mon", f"chardev={self.label},mode=control"),
        )


@dataclass(frozen=True, slots=True)
class CoreInfo:
    """By which the kernel's module qemu_fw_cfg tells QEMU where its VMCOREINFO is: drgn takes no
    dump without that."""

    def arguments(self) -> Sequence[str]:
        return ("-device", "vmcoreinfo")


@dataclass(frozen=True, slots=True)
class Disk:
    """A read-only image on virtio-blk; the first one is /dev/vda, the next /dev/vdb."""

    name: str
    image: Path

    def arguments(self) -> Sequence[str]:
        # file.locking=off: the images are shared by every guest at once and never written; with
        # locking a guest would fail to start while a newer image is renamed into place.
        return (
            "-drive",
            f"if=none,id={self.name},file={escaped(self.image)},format=raw,readonly=on,"
            "file.locking=off",
            "-device",
            f"{virtio('blk')},drive={self.name}",
        )


@dataclass(frozen=True, slots=True)
class NetworkPair:
    """Two virtio network devices on one hub: what one of them sends the other receives.

    The kernel loads their driver when it is asked for by name (virtio_net); nothing else is on the
    hub, so no packet leaves the guest.
    """

    def arguments(self) -> Sequence[str]:
        # No boot ROM: the guest boots from no network, and reading one takes time. Only devices on
        # PCI have one: QEMU 7.2 knows no property romfile of virtio-net-device.
        no_rom = ",romfile=" if arch.here().transport == "pci" else ""
        return tuple(
            word
            for side in ("left", "right")
            for word in (
                *("-netdev", f"hubport,id={side},hubid=0"),
                *("-device", f"{virtio('net')},netdev={side}{no_rom}"),
            )
        )


@dataclass(frozen=True, slots=True)
class Wished:
    """What somebody asked for in the words of QEMU's -device."""

    words: str

    def arguments(self) -> Sequence[str]:
        return ("-device", self.words)


OWN: Mapping[str, Device] = {"network-pair": NetworkPair()}
"""Devices that are more than one word of QEMU's, by the names that the lab gives them."""


def wished(words: Sequence[str]) -> Sequence[Device]:
    """The devices that are wished for. Raises UsageError for one that QEMU does not know."""
    devices = [OWN.get(one) or Wished(one) for one in words]
    if any(isinstance(device, Wished) for device in devices):
        known = qemu.devices()
        for device in devices:
            driver = device.words.partition(",")[0] if isinstance(device, Wished) else ""
            if driver and driver not in known:
                raise UsageError(
                    f"there is no device {driver!r}",
                    hint=f"{', '.join(OWN)}, or what {qemu.program().name} -device help lists",
                )
    return devices


@dataclass(frozen=True, slots=True)
class Boot:
    """The kernel with its initramfs and command line."""

    kernel: Path
    initramfs: Path
    cmdline: Sequence[str]

    def arguments(self) -> Sequence[str]:
        return (
            *("-kernel", str(self.kernel)),
            *("-initrd", str(self.initramfs)),
            *("-append", " ".join(self.cmdline)),
        )
