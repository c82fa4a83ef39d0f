"""The tables of one owned partition of `slo-partials`, and how its records are folded into them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
from aiokafka.structs import ConsumerRecord

from schemas.blocks import Reject
from schemas.codec import DecodeError
from streams.core.cells import CELL_ROWS
from streams.core.series import SeriesIndex
from streams.core.summaries import Shown
from streams.core.table import Heading, SloTable
from streams.engine.frames import FrameError
from streams.engine.page_heads import Origin
from streams.engine.partials import heading, read_partial
from streams.engine.transport import require_append_time
from streams.processors.dead_letters import dead_letters

Records = Sequence[ConsumerRecord[bytes, bytes]]
Letters = list[tuple[bytes | None, bytes]]

OBJECTIVES, PLAIN = "objectives", "series"


@dataclass(slots=True)
class Part:
    """The tables of one owned partition, and the changelog keys of their pages by (family, part).

    The tables are of one thread; `shown` is what everybody may read, as it was after some fold.
    """

    tables: dict[str, SloTable]
    keys: dict[tuple[str, str], set[bytes]]
    origin: Origin = Origin()  # noqa: RUF009 - frozen
    saved: int = -1
    shown: Shown = field(init=False)

    def __post_init__(self) -> None:
        """There is always something to read."""
        self.show()

    def show(self) -> None:
        """From now on the tables are read as they are: in one step, so that nobody reads half of a fold."""
        self.shown = self.tables[OBJECTIVES].show()

    @property
    def applied(self) -> int:
        """Everything up to and with this offset of `slo-partials` is in the tables."""
        return min(table.applied for table in self.tables.values())


class PartFolder:
    """Folds records into parts; touched by one thread only."""

    def __init__(self, index: SeriesIndex) -> None:
        self.index = index
        self._judged: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    def fold(self, part: Part, records: Records) -> Letters:
        """In log order; records that were folded before change nothing. Returns letters for what cannot be read."""
        require_append_time(records)
        letters: Letters = []
        heads: list[Heading] = []
        frames = [pl.DataFrame(schema={**CELL_ROWS, "offset": pl.Int64})]
        for row, record in enumerate(records):
            try:
                partial, rows = read_partial(record.value, self.index)
            except (DecodeError, FrameError) as error:
                letters += dead_letters(list(records), [_reject(row, error)], "worker")
                heads.append(Heading(record.offset, ()))
            else:
                frames.append(rows.with_columns(offset=pl.lit(record.offset, pl.Int64)))
                heads.append(heading(record.offset, partial))
        rows = pl.concat(frames)
        judged = pl.Series(self._judged_by_number()[rows["series"].to_numpy()], dtype=pl.Boolean)
        part.tables[OBJECTIVES].fold(heads, rows.filter(judged))
        part.tables[PLAIN].fold(heads, rows.filter(~judged))
        return letters

    def _judged_by_number(self) -> npt.NDArray[np.bool_]:
        """For each series number, whether it is an objective's."""
        new = [name.startswith("slo:") for name in self.index.names[len(self._judged) :]]
        self._judged = np.concatenate((self._judged, np.array(new, dtype=np.bool_)))
        return self._judged


def _reject(row: int, error: DecodeError | FrameError) -> Reject:
    if isinstance(error, DecodeError):
        return Reject(row, error.reason, error.detail)
    return Reject(row, "bad-cells", str(error))
