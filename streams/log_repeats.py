"""What libraries say again and again, such as each try to reach a broker that is away: a few times, then how often."""

import logging
import time

LIBRARIES = ("aiokafka", "faust", "mode")
FEW, WINDOW_S = 5, 10.0
_MAX_KINDS = 1_000


class Repeats(logging.Filter):
    """Of a library's messages that differ in what they quote only, lets FEW through in WINDOW_S.

    The last of these has `muted_s`; the first one after it has `left_out`, how many there were in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is told."""
        if record.name.partition(".")[0] not in LIBRARIES:
            return True
        kind = (record.name, record.levelno, str(record.msg))
        now_s = time.monotonic()
        since_s, seen = self._seen.get(kind, (now_s, 0))
        if now_s - since_s >= WINDOW_S:
            if seen > FEW:
                record.left_out = seen - FEW
            since_s, seen = now_s, 0
        if len(self._seen) >= _MAX_KINDS:
            self._seen.clear()
        self._seen[kind] = since_s, seen + 1
        if seen + 1 == FEW:
            record.muted_s = round(since_s + WINDOW_S - now_s, 1)
        return seen < FEW
