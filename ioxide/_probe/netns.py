# SPDX-License-Identifier: MIT
"""Two fresh network namespaces joined by a pair of devices with a NAPI each: a veth pair, or two
devices that this machine has and that are wired to each other.

Only for a process of its own: it moves the calling thread into new namespaces for good.  Nothing
has to be cleaned up, because namespaces and devices go with the last process and descriptor that
hold them.  No external program is needed (guests have neither ``ip`` nor ``ethtool``): rtnetlink(7)
makes the pair, netdevice(7) ioctls do the rest.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from ioxide._ring import lib

__all__ = ["Pair", "make_pair", "netstat"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Descriptors of both namespaces, the addresses in them, and how they could be made."""

    server_ns: int
    client_ns: int
    server_address: str
    client_address: str
    made_as: str

    def enter(self, namespace: int) -> None:
        """Move the calling thread; sockets stay in the namespace they were made in."""
        _check(lib.iox_probe_setns_net(namespace), "entering a network namespace")


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{what} failed: {os.strerror(-result)}")


def make_pair(devices: tuple[str, str] | None = None) -> Pair:
    """Make both namespaces and the pair, and configure it; the thread ends up in the client's.

    With `devices` the first of them becomes the server's and the second the client's, and there is
    no veth pair; that takes root, whose namespace they are in.

    :raises OSError: EPERM when neither a plain nor a user namespace may be made here, EOPNOTSUPP
        when the kernel has no veth (its module is not loaded and cannot be).
    """
    made_as = "root"
    home = _own_namespace()
    result = int(lib.iox_probe_unshare_net(0))
    if result == -errno.EPERM:
        # No uid map is written: the capabilities that come with a new user namespace last until
        # the next execve(2), and there is none.
        made_as = "user namespace"
        result = int(lib.iox_probe_unshare_net(1))
    _check(result, "making a network namespace")
    server_ns = _own_namespace()
    _check(lib.iox_probe_unshare_net(0), "making a second network namespace")
    client_ns = _own_namespace()
    pair = Pair(server_ns, client_ns, "10.203.0.1", "10.203.0.2", made_as)
    if devices is None:
        servers, clients = "probe-s", "probe-c"
        _new_veth(clients, servers, server_ns)
    else:
        servers, clients = devices
        pair.enter(home)
        _move(servers, server_ns)
        _move(clients, client_ns)
    os.close(home)
    pair.enter(server_ns)
    _configure(servers, pair.server_address)
    pair.enter(client_ns)
    _configure(clients, pair.client_address)
    return pair


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def netstat(name: str) -> int:
    """One ``TcpExt`` counter of the calling thread's network namespace.

    :raises KeyError: this kernel does not count it.
    """
    # /proc/net is the *process's* namespace; a thread may be in another one.
    lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
    rows = [line.split() for line in lines if line.startswith("TcpExt:")]
    return int(dict(zip(rows[0], rows[1], strict=True))[name])


# ---- rtnetlink: make the pair, or move it ----

# <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_link.h>, <linux/veth.h>
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
_NLMSG_ERROR = 2
_RTM_NEWLINK = 16
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 18, 28
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES, _IFLA_GSO_MAX_SEGS = 31, 32, 40
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFINFOMSG = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)


def _attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute: length, kind, payload, padding to four bytes."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


# One segment at a time: a paced connection would save up ten for one burst, and at the pace of our
# experiments (400 kB a second) the next burst comes later than a poll of 20 ms lasts.
_ONE_SEGMENT = _attribute(_IFLA_GSO_MAX_SEGS, struct.pack("=I", 1))


def _new_veth(name: str, peer_name: str, peer_namespace: int) -> None:
    """``ip link add NAME type veth peer name PEER_NAME netns PEER_NAMESPACE``, one queue each.

    One queue, because veth makes one per processor: then a connection's bytes could come through
    another NAPI instance than the one its socket was last seen on, and the ring would poll the
    wrong one.
    """
    one = struct.pack("=I", 1)
    limits = (
        _attribute(_IFLA_NUM_TX_QUEUES, one) + _attribute(_IFLA_NUM_RX_QUEUES, one) + _ONE_SEGMENT
    )
    peer = (
        _IFINFOMSG
        + _attribute(_IFLA_IFNAME, peer_name.encode() + b"\0")
        + _attribute(_IFLA_NET_NS_FD, struct.pack("=i", peer_namespace))
        + limits
    )
    link = _attribute(_IFLA_INFO_KIND, b"veth") + _attribute(
        _IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, peer)
    )
    body = (
        _IFINFOMSG
        + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
        + _attribute(_IFLA_LINKINFO, link)
        + limits
    )
    error = _request(body, _NLM_F_CREATE | _NLM_F_EXCL)
    if -error == errno.EOPNOTSUPP:
        raise OSError(-error, "this kernel has no veth device; try `modprobe veth` first")
    _check(error, "making a veth pair")


def _move(name: str, namespace: int) -> None:
    """``ip link set NAME netns NAMESPACE gso_max_segs 1``, from the namespace that has it."""
    link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(name), 0, 0)
    body = link + _attribute(_IFLA_NET_NS_FD, struct.pack("=i", namespace)) + _ONE_SEGMENT
    _check(_request(body, 0), f"moving {name} into a network namespace")


def _request(body: bytes, flags: int) -> int:
    """RTM_NEWLINK with this body; 0 or a negative errno."""
    flags |= _NLM_F_REQUEST | _NLM_F_ACK
    header = struct.pack("=IHHII", 16 + len(body), _RTM_NEWLINK, flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.settimeout(10)  # the kernel may load the module first, with modprobe(8)
        route.bind((0, 0))
        route.send(header + body)
        answer = route.recv(65536)
    _, kind, *_, error = struct.unpack_from("=IHHIIi", answer)
    if kind != _NLMSG_ERROR:
        raise OSError(errno.EPROTO, f"rtnetlink answered with message type {kind}, not an ack")
    return int(error)


# ---- ioctls: address, offloads, up ----

# <linux/sockios.h>, <linux/if.h>, <linux/ethtool.h>
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCSIFADDR, _SIOCSIFNETMASK = 0x8916, 0x891C
_SIOCETHTOOL = 0x8946
_IFF_UP = 0x1
_ETHTOOL_STSO, _ETHTOOL_SGRO = 0x1F, 0x2C


def _configure(name: str, address: str) -> None:
    """``ethtool -K NAME gro on tso off``, ``ip addr add ADDRESS/24 dev NAME``, ``ip link set up``.

    Any driver's receive side is a NAPI; veth hands a packet to its NAPI instance only when the
    receiver has GRO on *and* the sender has TSO off (veth_skb_is_eligible_for_gro(); otherwise it
    goes to netif_rx() and has no NAPI id).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command, value in ((_ETHTOOL_SGRO, 1), (_ETHTOOL_STSO, 0)):
            argument = array.array("I", [command, value])  # struct ethtool_value
            where, _ = argument.buffer_info()
            try:
                fcntl.ioctl(control, _SIOCETHTOOL, _ifreq(name, struct.pack("=Q", where)))
            except OSError as error:
                # A device without TSO has none to switch off (virtio-net on a hub).
                if command != _ETHTOOL_STSO or error.errno != errno.EOPNOTSUPP:
                    raise
        for request, text in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
            sockaddr = struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton(text))
            fcntl.ioctl(control, request, _ifreq(name, sockaddr))
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _ifreq(name, b""))
        (flags,) = struct.unpack_from("=H", answer, 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, _ifreq(name, struct.pack("=H", flags | _IFF_UP)))


def _ifreq(name: str, union: bytes) -> bytes:
    """struct ifreq: a name of 16 bytes and a union of 24."""
    return struct.pack("=16s24s", name.encode(), union)
