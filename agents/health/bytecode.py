"""The program that counts what TCP sockets change to, in the kernel's own machine code. Pure: bytes out of numbers.

It stands behind the raw tracepoint inet_sock_set_state(sock, old, new) and adds one to the count number old * 16 + new:

    r6 = old, r7 = new; count = 16 * (r6 & 15) + (r7 & 15)
    r0 = address of that count in the map
    if r0 != 0: *r0 += 1, at once for all processors
    return 0

It calls one function of the kernel, map_lookup_elem, and reads only the two numbers it is called with: how the kernel
lays out a socket does not matter, and neither a compiler nor headers are needed.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum

STATES = 16
COUNTS = STATES * STATES
COUNT_BYTES = 8


class State(IntEnum):
    """TCP's states by the kernel's numbers (include/net/tcp_states.h)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


# Registers; 10 is the end of the stack.
_R0, _R1, _R2, _R6, _R7, _FP = 0, 1, 2, 6, 7, 10
# Operations, by include/uapi/linux/bpf.h.
_LOAD_8, _STORE_4, _ADD_8_AT = 0x79, 0x63, 0xDB
_MOVE, _MOVE_NUMBER, _ADD_NUMBER, _AND_NUMBER, _SHIFT_LEFT, _OR = 0xBF, 0xB7, 0x07, 0x57, 0x67, 0x4F
_LOAD_MAP, _CALL, _SKIP_IF_EQUAL, _EXIT = 0x18, 0x85, 0x15, 0x95
_MAP_BY_FILE, _LOOKUP = 1, 1


def program(counts_file: int) -> bytes:
    """The program for a map of `COUNTS` counts of 8 bytes that is open as this file."""
    return b"".join(
        (
            _code(_LOAD_8, _R6, _R1, offset=8),
            _code(_LOAD_8, _R7, _R1, offset=16),
            _code(_AND_NUMBER, _R6, number=STATES - 1),
            _code(_AND_NUMBER, _R7, number=STATES - 1),
            _code(_SHIFT_LEFT, _R6, number=4),
            _code(_OR, _R6, _R7),
            _code(_STORE_4, _FP, _R6, offset=-4),
            _code(_MOVE, _R2, _FP),
            _code(_ADD_NUMBER, _R2, number=-4),
            _code(_LOAD_MAP, _R1, _MAP_BY_FILE, number=counts_file),
            _code(0),  # the upper half of the map's 64 bits
            _code(_CALL, number=_LOOKUP),
            _code(_SKIP_IF_EQUAL, _R0, offset=2, number=0),
            _code(_MOVE_NUMBER, _R1, number=1),
            _code(_ADD_8_AT, _R0, _R1),
            _code(_MOVE_NUMBER, _R0, number=0),
            _code(_EXIT),
        )
    )


def established(counts: Sequence[int]) -> int:
    """Connections that were established, by either side."""
    return counts[State.SYN_SENT * STATES + State.ESTABLISHED] + counts[State.SYN_RECV * STATES + State.ESTABLISHED]


def entered_time_wait(counts: Sequence[int]) -> int:
    """Connections that entered TIME_WAIT: the kernel then closes the socket and keeps a smaller thing in its place.

    A socket that gives up in FIN_WAIT2, since the other side never closes, goes the same way.
    """
    return counts[State.FIN_WAIT2 * STATES + State.CLOSE] + counts[State.CLOSING * STATES + State.CLOSE]


def _code(operation: int, to: int = 0, of: int = 0, *, offset: int = 0, number: int = 0) -> bytes:
    return struct.pack("<BBhi", operation, to | of << 4, offset, number)
