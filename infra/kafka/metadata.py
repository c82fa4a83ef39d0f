"""One metadata request over a socket of its own: how the launcher knows that a broker serves."""

import socket
import ssl
import struct

from infra.state import LOOPBACK

_METADATA, _VERSION, _NO_TOPICS = 3, 2, 0
_CLIENT = b"fleetbeat-up"
_MAX_ANSWER_BYTES = 1 << 20


def answering_cluster(port: int, timeout_s: float, context: ssl.SSLContext | None = None) -> str | None:
    """The id of the cluster whose broker answers on that port with itself as a member; None while none does."""
    header = struct.pack(f">hhih{len(_CLIENT)}s", _METADATA, _VERSION, 1, len(_CLIENT), _CLIENT)
    request = header + struct.pack(">i", _NO_TOPICS)
    try:
        with _connected(port, timeout_s, context) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", _read(connection, 4))
            if not 0 < size <= _MAX_ANSWER_BYTES:
                return None
            return _parse(_read(connection, size), port)
    except (OSError, EOFError, struct.error, UnicodeDecodeError):
        return None


def _connected(port: int, timeout_s: float, context: ssl.SSLContext | None) -> socket.socket:
    connection = socket.create_connection((LOOPBACK, port), timeout_s)
    if context is None:
        return connection
    try:
        return context.wrap_socket(connection, server_hostname=LOOPBACK)
    except BaseException:
        connection.close()
        raise


def _read(connection: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        part = connection.recv(size - len(got))
        if not part:
            raise EOFError
        got += part
    return bytes(got)


def _parse(answer: bytes, port: int) -> str | None:
    """Metadata response v2: correlation id, brokers [(id, host, port, rack)], cluster id, and more that is not read."""
    brokers, position = struct.unpack_from(">i", answer, 4)[0], 8
    ports = []
    for _ in range(brokers):
        _, position = _string(answer, position + 4)
        ports.append(struct.unpack_from(">i", answer, position)[0])
        _, position = _string(answer, position + 4)
    cluster_id, _ = _string(answer, position)
    return cluster_id if port in ports else None


def _string(answer: bytes, position: int) -> tuple[str | None, int]:
    (size,) = struct.unpack_from(">h", answer, position)
    start = position + 2
    return (None, start) if size < 0 else (answer[start : start + size].decode(), start + size)
