"""The tables of one owned partition of `slo-partials`, and how its records are folded into them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

import numpy as np
import polars as pl
from aiokafka.structs import ConsumerRecord

from schemas.blocks import Reject
from schemas.codec import DecodeError
from streams.core.naming import Naming
from streams.core.rows import OPEN_SCHEMA, OpenCells, series_in
from streams.core.series import SeriesIndex, is_of_objective
from streams.core.slices import PLAIN_TIERS
from streams.core.summaries import Shown
from streams.core.table import Heading, SloTable, forget_series
from streams.engine.frames import FrameError
from streams.engine.page_heads import Origin
from streams.engine.partials import heading, read_partial
from streams.engine.partitioning import partition_share
from streams.engine.transport import require_append_time
from streams.processors.dead_letters import Letters, dead_letters

Records = Sequence[ConsumerRecord[bytes, bytes]]

OBJECTIVES, PLAIN = "objectives", "series"
# Plain series of a partition: a twelfth of 250,000, and what chance may put there more.
SERIES_MOST = 21_412
# A page of minutes must fit into a record: ten of these, good and bad, ten bytes each.
PARTITION_SERIES = 30_000
_NO_CELLS = OpenCells.from_frame(pl.DataFrame(schema=OPEN_SCHEMA))


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


def series_share(series_max: int, partitions: int) -> int:
    """Plain series that a partition keeps apart, of so many for all of them."""
    return min(partition_share(series_max, partitions), PARTITION_SERIES)


class PartFolder:
    """Folds records into parts; touched by one thread only."""

    def __init__(self, index: SeriesIndex, series_most: int = SERIES_MOST) -> None:
        """`series_most`: plain series that a partition keeps apart from each other."""
        self.index = index
        self._series_most = series_most
        self._tables = WeakSet[SloTable]()

    def new_tables(self) -> dict[str, SloTable]:
        """Of a partition, empty."""
        naming = Naming(self._series_most, self.index, PLAIN_TIERS[-1])
        tables = {
            OBJECTIVES: SloTable(histograms_in_hours=True, index=self.index),
            PLAIN: SloTable(histograms_in_hours=False, index=self.index, naming=naming),
        }
        self._tables.update(tables.values())
        return tables

    def bound(self, series_most: int) -> None:
        """From now on a partition keeps so many plain series apart; series that have a name keep it."""
        self._series_most = series_most
        for table in self._tables:
            if table.naming is not None:
                table.naming.most = series_most

    def forget_series(self, parts: Collection[Part]) -> None:
        """Only series that are in some table stay in the index; `parts`, which everybody may read, are shown anew.

        Tables of parts that are being built count too, and of lost ones of which pages are still to be taken. What was
        shown before has the numbers of before, and goes on to be right.
        """
        forget_series(self.index, list(self._tables))
        for part in parts:
            part.show()

    def fold(self, part: Part, records: Records) -> Letters:
        """In log order; records that were folded before change nothing. Returns letters for what cannot be read."""
        require_append_time(records)
        letters: Letters = []
        heads: list[Heading] = []
        arrived = list[OpenCells]()
        for row, record in enumerate(records):
            try:
                partial, rows = read_partial(record.value, self.index)
            except (DecodeError, FrameError) as error:
                letters += dead_letters(list(records), [_reject(row, error)], "worker")
                heads.append(Heading(record.offset, ()))
            else:
                arrived.append(OpenCells.arrived(rows, np.full(rows.height, record.offset)))
                heads.append(heading(record.offset, partial))
        cells = OpenCells.concat(*arrived) if arrived else _NO_CELLS
        judged = self.index.mask(is_of_objective)[series_in(cells.key)]
        part.tables[OBJECTIVES].fold(heads, cells.where(judged))
        part.tables[PLAIN].fold(heads, cells.where(~judged))
        return letters


def _reject(row: int, error: DecodeError | FrameError) -> Reject:
    if isinstance(error, DecodeError):
        return Reject(row, error.reason, error.detail)
    return Reject(row, "bad-cells", str(error))
