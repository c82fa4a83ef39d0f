"""What queries may take: of the process that also writes the archive, and one user of that."""

from dataclasses import dataclass

_BLOCK_ROWS = 65_409  # the engine's own: a piece of a streamed result is a block


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the whole endpoint; of each user too, unless the users file says something else."""

    running: int = 4
    waiting: int = 32
    wait_s: float = 10.0
    execution_s: int = 30
    threads: int = 2
    result_bytes: int = 256 << 20
    """Of a result that is one document, built before it is sent."""
    stream_bytes: int = 16 << 30
    """Of a result that is sent as it comes."""
    query_bytes: int = 256 << 10  # the engine's own max_query_size
    read_rows: int = 0  # zero: as many as there are
    read_bytes: int = 0
    memory_bytes: int = 0  # zero: its share of half of the store's memory
    sessions: int = 256
    """Kept at once for each user."""
    slow_s: float = 1.0
    """Queries that take longer are written down."""

    def settings(self, memory_cap_bytes: int) -> dict[str, int]:
        """As settings of one query; all together they may fill half of the memory, so inserts go on."""
        share_bytes = memory_cap_bytes // (2 * self.running)
        asked = {
            "max_execution_time": self.execution_s,
            "max_threads": self.threads,
            "max_block_size": _BLOCK_ROWS,
            "max_result_bytes": self.stream_bytes,
            "max_memory_usage": min(self.memory_bytes or share_bytes, share_bytes),
        }
        if self.read_rows:
            asked["max_rows_to_read"] = self.read_rows
        if self.read_bytes:
            asked["max_bytes_to_read"] = self.read_bytes
        return asked
