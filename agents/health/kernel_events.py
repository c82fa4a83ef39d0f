"""Has the kernel count what TCP sockets change to, by the bpf system call alone, and reads the counts from its memory.

Needs Linux 5.5, CAP_BPF and CAP_PERFMON (before 5.8 CAP_SYS_ADMIN). The kernel holds the program as long as this
process holds its files: nothing is left behind, however it ends.
"""

import ctypes
import mmap
import os
import struct
import sys
from contextlib import ExitStack

from agents.health.bytecode import COUNT_BYTES, COUNTS, entered_time_wait, established, program

TRACEPOINT = b"inet_sock_set_state"
# The number of the system call, by machine; those that are not here have no tests anywhere.
_CALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_MAP_CREATE, _PROG_LOAD, _RAW_TRACEPOINT_OPEN = 0, 5, 17
_ARRAY, _MMAPABLE, _RAW_TRACEPOINT = 2, 1 << 10, 17
_LOG_BYTES = 16_384
_INSTRUCTION_BYTES = 8
_LICENSE = b"Apache-2.0"


class KernelEventsError(RuntimeError):
    """The kernel does not let us; the message says which step it refused and why."""


class KernelEvents:
    """Counts that the kernel adds to; to read them is no system call and copies nothing but the numbers asked for."""

    def __init__(self, memory: mmap.mmap, attached: int) -> None:
        self._memory = memory
        self._attached = attached
        self._counts = memoryview(memory).cast("Q")

    def read(self) -> tuple[int, int]:
        """(established, entered TIME_WAIT) since it was loaded, of all network namespaces."""
        return established(self._counts), entered_time_wait(self._counts)

    def close(self) -> None:
        """The kernel stops counting."""
        self._counts.release()
        self._memory.close()
        os.close(self._attached)


def load() -> KernelEvents:
    """Counting from now on. Raises KernelEventsError."""
    number = _call_number()
    with ExitStack() as files:  # the kernel keeps map and program for what is attached
        shape = struct.pack("=5I", _ARRAY, 4, COUNT_BYTES, COUNTS, _MMAPABLE)
        counts_file = _bpf(number, "a map", _MAP_CREATE, shape)
        files.callback(os.close, counts_file)
        code_file = _load_program(number, counts_file)
        files.callback(os.close, code_file)
        try:
            memory = mmap.mmap(counts_file, COUNTS * COUNT_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
        except OSError as cause:
            raise KernelEventsError(f"its map cannot be read in place: {cause.strerror}") from cause
        name = ctypes.create_string_buffer(TRACEPOINT)
        where = struct.pack("=QI", ctypes.addressof(name), code_file)
        return KernelEvents(memory, _bpf(number, f"the tracepoint {TRACEPOINT.decode()}", _RAW_TRACEPOINT_OPEN, where))


def _call_number() -> int:
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in _CALLS or sys.maxsize < 1 << 32:
        raise KernelEventsError(f"{sys.platform} on {machine}; expected linux on {', '.join(_CALLS)}, 64 bits")
    return _CALLS[machine]


def _load_program(number: int, counts_file: int) -> int:
    code = program(counts_file)
    text, license_, said = (
        ctypes.create_string_buffer(code, len(code)),
        ctypes.create_string_buffer(_LICENSE),
        ctypes.create_string_buffer(_LOG_BYTES),
    )
    attributes = struct.pack(
        "=2I2Q2IQI",
        _RAW_TRACEPOINT,
        len(code) // _INSTRUCTION_BYTES,
        ctypes.addressof(text),
        ctypes.addressof(license_),
        1,
        _LOG_BYTES,
        ctypes.addressof(said),
        0,
    )
    try:
        return _bpf(number, "the program", _PROG_LOAD, attributes)
    except KernelEventsError as cause:
        lines = said.value.decode(errors="replace").strip().splitlines()
        raise KernelEventsError(f"{cause}{f'; its verifier: {lines[-1]}' if lines else ''}") from cause


def _bpf(number: int, what: str, command: int, attributes: bytes) -> int:
    """An open file. Raises KernelEventsError."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    file = int(ctypes.CDLL(None, use_errno=True).syscall(number, command, buffer, len(attributes)))
    if file < 0:
        why = os.strerror(ctypes.get_errno())
        raise KernelEventsError(f"bpf({command}) refused {what}: {why}; expected CAP_BPF and CAP_PERFMON, Linux 5.5")
    os.set_inheritable(file, False)  # noqa: FBT003 - what the call says
    return file
