"""The tables of one owned partition of `slo-partials`, and how its records are folded into them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from aiokafka.structs import ConsumerRecord

from schemas.blocks import Reject
from schemas.codec import DecodeError
from streams.core.naming import Naming
from streams.core.rollup import CELL_ROWS
from streams.core.series import OF_OBJECTIVES, SeriesIndex
from streams.core.slices import PLAIN_TIERS
from streams.core.table import Heading, SloTable
from streams.engine.frames import FrameError
from streams.engine.page_heads import Origin
from streams.engine.partials import heading, read_partial
from streams.engine.transport import require_append_time
from streams.processors.dead_letters import dead_letters

Records = Sequence[ConsumerRecord[bytes, bytes]]
Letters = list[tuple[bytes | None, bytes]]

OBJECTIVES, PLAIN = "objectives", "series"
# Plain series of a partition: a twelfth of 250,000, and what chance may put there more.
SERIES_MOST = 21_412


@dataclass(slots=True)
class Part:
    """The tables of one owned partition, and the changelog keys of their pages by (family, part)."""

    tables: dict[str, SloTable]
    keys: dict[tuple[str, str], set[bytes]]
    origin: Origin = Origin()  # noqa: RUF009 - frozen
    saved: int = -1

    @property
    def applied(self) -> int:
        """Everything up to and with this offset of `slo-partials` is in the tables."""
        return min(table.applied for table in self.tables.values())


class PartFolder:
    """Folds records into parts; touched by one thread only."""

    def __init__(self, index: SeriesIndex, series_most: int = SERIES_MOST) -> None:
        """`series_most`: plain series that a partition keeps apart from each other."""
        self.index = index
        self._series_most = series_most
        self._judged: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._generation = index.generation

    def new_tables(self) -> dict[str, SloTable]:
        """Of a partition, empty."""
        naming = Naming(self._series_most, self.index, PLAIN_TIERS[-1])
        return {
            OBJECTIVES: SloTable(histograms_in_hours=True),
            PLAIN: SloTable(histograms_in_hours=False, naming=naming),
        }

    def forget_series(self, parts: Iterable[Part]) -> None:
        """Only series that are in some of the parts, which are all there are, stay in the index."""
        tables = [table for part in parts for table in part.tables.values()]
        used = np.zeros(len(self.index.names), np.bool_)
        for table in tables:
            table.mark_series(used)
        numbers = self.index.forget(used)
        for table in tables:
            table.renumber(used, numbers)

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
        if self._generation != self.index.generation:
            self._generation, self._judged = self.index.generation, self._judged[:0]
        new = [name.startswith(OF_OBJECTIVES) for name in self.index.names[len(self._judged) :]]
        self._judged = np.concatenate((self._judged, np.array(new, dtype=np.bool_)))
        return self._judged


def _reject(row: int, error: DecodeError | FrameError) -> Reject:
    if isinstance(error, DecodeError):
        return Reject(row, error.reason, error.detail)
    return Reject(row, "bad-cells", str(error))
