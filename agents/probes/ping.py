"""The way out for echo requests: to a checked address, over a socket that needs no privilege or else a raw one."""

import errno
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from agents.probes.addresses import Address

PING_GROUP_RANGE = Path("/proc/sys/net/ipv4/ping_group_range")

_IPV4 = 4
_NS_PER_S = 1_000_000_000
# Of linux/in.h, linux/in6.h, linux/icmp.h and asm-generic/socket.h; Python does not name them.
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_SOL_RAW, _ICMP_FILTER = 255, 1
_ICMPV6_FILTER = 1
_SO_TIMESTAMPNS = 35
_ECHO_REPLY, _ECHO_REQUEST = 0, 8
_ECHO_REPLY_V6, _ECHO_REQUEST_V6 = 129, 128
_ROOM = 65_536
_TIMESPEC_BYTES = 16
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM})


class CannotPingError(Exception):
    """This process may not open a socket for ICMP; the message says what would have to be set."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to request `seq`; `received_ns` is the kernel's wall clock, None where it says none."""

    seq: int
    token: bytes
    received_ns: int | None


class PingSocket:
    """Echo requests to one address and the replies from it. Raises CannotPingError, and OSError for no route."""

    def __init__(self, address: Address) -> None:
        self._is_v4 = address.version == _IPV4
        self._socket, self._is_raw = _open(is_v4=self._is_v4)
        self._id = int.from_bytes(os.urandom(2))  # of a raw socket; to others the kernel gives one
        try:
            self._socket.setblocking(False)  # noqa: FBT003 - the socket module takes it so
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if self._is_v4:
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            else:
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            if self._is_raw:
                self._hear_replies_alone()
            self._socket.connect((str(address), 0))  # at once: a route is looked up, and nothing sent
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    @property
    def kind(self) -> str:
        """How it was opened."""
        return "raw" if self._is_raw else "unprivileged"

    def send(self, seq: int, payload: bytes) -> None:
        """One echo request. Raises OSError."""
        kind = _ECHO_REQUEST if self._is_v4 else _ECHO_REQUEST_V6
        head = struct.pack("!BBHHH", kind, 0, 0, self._id, seq)
        check = _checksum(head + payload) if self._is_v4 else 0  # that of ICMPv6 is the kernel's
        packet = struct.pack("!BBHHH", kind, 0, check, self._id, seq) + payload
        try:
            self._socket.send(packet)
        except OSError:
            # That was told of an earlier packet, and this one stayed here. Once more: now it is about this one.
            self._forget_errors()
            self._socket.send(packet)

    def receive(self, token_bytes: int) -> Reply | None:
        """What was heard; None for what is no reply to us. Raises BlockingIOError for nothing, OSError for a no."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_ROOM, 64)
        except BlockingIOError:
            raise
        except OSError:
            self._forget_errors()
            raise
        if self._is_raw and self._is_v4:
            data = data[(data[0] & 0x0F) * 4 :]  # the IP header
        if len(data) < 8 + token_bytes:
            return None
        kind, _, _, ident, seq = struct.unpack_from("!BBHHH", data)
        if kind != (_ECHO_REPLY if self._is_v4 else _ECHO_REPLY_V6) or (self._is_raw and ident != self._id):
            return None
        return Reply(seq, data[8 : 8 + token_bytes], _received_ns(ancillary))

    def close(self) -> None:
        """Gives the socket back."""
        self._socket.close()

    def _hear_replies_alone(self) -> None:
        """Everything else of ICMP would come in too, also what others are told."""
        if self._is_v4:
            mask = struct.pack("=I", ~(1 << _ECHO_REPLY) & 0xFFFFFFFF)
            self._socket.setsockopt(_SOL_RAW, _ICMP_FILTER, mask)
        else:
            words = [0xFFFFFFFF] * 8
            words[_ECHO_REPLY_V6 // 32] &= ~(1 << _ECHO_REPLY_V6 % 32)
            self._socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("=8I", *words))

    def _forget_errors(self) -> None:
        """While an error waits in its queue, the socket is readable for ever."""
        try:
            while True:
                self._socket.recvmsg(_ROOM, 1_024, socket.MSG_ERRQUEUE)
        except OSError:
            return


def check_may_ping() -> None:
    """Raises CannotPingError where this process may open no socket for ICMP."""
    opened, _ = _open(is_v4=True)
    opened.close()


def _open(*, is_v4: bool) -> tuple[socket.socket, bool]:
    """A socket, and whether it is a raw one."""
    family, protocol = (socket.AF_INET, socket.IPPROTO_ICMP) if is_v4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    for kind, is_raw in ((socket.SOCK_DGRAM, False), (socket.SOCK_RAW, True)):
        try:
            return socket.socket(family, kind, protocol), is_raw
        except OSError as cause:
            if cause.errno not in _NOT_ALLOWED:
                raise
    raise CannotPingError(_advice())


def _advice() -> str:
    try:
        allowed = "-".join(PING_GROUP_RANGE.read_text(encoding="ascii").split())
    except OSError:
        allowed = "unknown"
    return (
        f"group {os.getegid()} may not send ICMP: net.ipv4.ping_group_range is {allowed}; expected that group in it "
        "(sysctl net.ipv4.ping_group_range='0 2147483647'), or the capability CAP_NET_RAW"
    )


def _received_ns(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) >= _TIMESPEC_BYTES:
            seconds, nanoseconds = map(int, struct.unpack_from("=qq", data))
            return int(seconds) * _NS_PER_S + int(nanoseconds)
    return None


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
