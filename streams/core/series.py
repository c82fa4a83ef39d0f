"""Series by name and number, and which objectives judge them."""

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.core.histogram import BOUNDS, NO_BUCKET
from streams.core.objectives import Objective
from streams.core.sources import PROBES
from streams.core.versions import Timeline, meaning

SERIES_BITS = 20  # in the tables' rows
CELL_SERIES = 1 << 30  # in open cells, before they are parted by owner
LABELS = ("service", "endpoint", "region", "kind")
# Those beyond the bound, summed. Nobody can send it: names of plain series begin with "[", of objectives with "slo:".
OVERFLOW = "overflow"
OF_OBJECTIVES = "slo:"
# Numbers that plain series do not get, so that there is always one for an objective.
_RESERVED = 1 << 16
_WORTH_FORGETTING = 1 << 16
# Of all names together, in UTF-8: a page holds those of its partition, and what is in them may not compress.
MOST_NAME_BYTES = 64 << 20
_RECORD_BYTES = 1 << 20  # names come in records, each of which is smaller
_MOST_PIECES = 16

Numbers = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]


class SeriesIndex:
    """Numbers series names until they are forgotten; numbers mean nothing outside of it. Safe to share by threads."""

    def __init__(self, most: int = 1 << SERIES_BITS, most_bytes: int = MOST_NAME_BYTES) -> None:
        self.names: list[str] = []
        self.left_out = 0  # events of series for which there was no number
        self._most, self._most_bytes = most, most_bytes
        self._bytes = 0
        self._crowded_at, self._crowded_at_bytes = _WORTH_FORGETTING, most_bytes // 2
        self._numbers: dict[str, int] = {}
        self._masks: dict[Callable[[str], bool], Mask] = {}
        self._adding = threading.Lock()

    @property
    def numbers(self) -> Mapping[str, int]:
        """The number of each name. It gets more; when names are forgotten it stays as it is, and there is another one.

        `names` likewise: whoever has taken both together with rows can read these at any time.
        """
        return self._numbers

    def number(self, name: str) -> int:
        """The number of a name, new or known."""
        found = self._numbers.get(name)
        return self._add(name) if found is None else found

    def _add(self, name: str) -> int:
        with self._adding:
            if name in self._numbers:  # another thread was first
                return self._numbers[name]
            found = len(self.names)
            if found >= self._most:
                message = f"more than {self._most} series in one process; the last was {name[:200]!r}"
                raise OverflowError(message)
            self.names.append(name)
            self._numbers[name] = found
            self._bytes += len(name.encode())
            return found

    @property
    def crowded(self) -> bool:
        """Whether there are so many names that it is worth while to forget some."""
        return len(self.names) > self._crowded_at or self._bytes > self._crowded_at_bytes

    def forget(self, used: Mask) -> Numbers:
        """Forget the names whose numbers are not in `used`; returns new numbers by old ones, in the same order.

        Whoever holds numbers must know: none of before means the same afterwards.
        """
        with self._adding:
            self.names = [self.names[number] for number in np.flatnonzero(used)]
            self._numbers = {name: number for number, name in enumerate(self.names)}
            self._masks = {test: mask[used[: len(mask)]] for test, mask in self._masks.items()}
            # Twice as many as are left, so that forgetting costs little for each name that came since.
            self._crowded_at = min(max(_WORTH_FORGETTING, 2 * len(self.names)), self._most // 8 * 7)
            self._bytes = sum(len(name.encode()) for name in self.names)
            self._crowded_at_bytes = min(max(self._most_bytes // 2, 2 * self._bytes), self._most_bytes // 8 * 7)
        return (np.cumsum(used) - 1).astype(np.uint32)

    def mask(self, test: Callable[[str], bool]) -> Mask:
        """For each number what `test` says of its name. For the one thread that forgets."""
        known = self._masks.get(test, np.zeros(0, np.bool_))
        new = [test(name) for name in self.names[len(known) :]]
        if new:
            known = self._masks[test] = np.concatenate((known, np.array(new, dtype=np.bool_)))
        return known

    def localize(self, rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        """`rows` whose `series` are indices into `names`, with our numbers instead.

        When a flood of names has taken all numbers, or all room for names, rows of new plain series are left out and
        counted in `left_out`.
        """
        full = len(self.names) + len(names) > self._most - _RESERVED or self._bytes > self._most_bytes - _RECORD_BYTES
        found = [self._place(name) if full else self.number(name) for name in names]
        numbers = np.array([0 if number is None else number for number in found], dtype=np.uint32)
        own = rows["series"].to_numpy()
        kept = rows = _with_series(rows, numbers[own])
        if None in found:
            known = np.array([number is not None for number in found])
            kept = rows.filter(pl.Series(known[own], dtype=pl.Boolean))
        self.left_out += int(rows["n"].sum()) - int(kept["n"].sum())
        return kept

    def _place(self, name: str) -> int | None:
        """The number of a name; None when there is none left for it."""
        room = len(self.names) < self._most - _RESERVED and self._bytes < self._most_bytes
        wanted = room or name.startswith(OF_OBJECTIVES) or name == OVERFLOW
        return self.number(name) if wanted else self._numbers.get(name)

    def externalize(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
        """`externalize` with the numbers of now."""
        return externalize(rows, self.names)


def _with_series(rows: pl.DataFrame, numbers: Numbers) -> pl.DataFrame:
    """The rows with other numbers; `with_columns` would wait for a thread of polars, which may have to wait itself."""
    return rows.clone().replace_column(rows.get_column_index("series"), pl.Series("series", numbers))


def externalize(rows: pl.DataFrame, names: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """`rows` with `series` as indices into the returned names: how they travel between processes."""
    used, local = np.unique(rows["series"].to_numpy(), return_inverse=True)
    return _with_series(rows, local.astype(np.uint32)), [names[number] for number in used.tolist()]


def is_of_objective(name: str) -> bool:
    """Whether a series sums what an objective selects."""
    return name.startswith(OF_OBJECTIVES)


def series_name(service: str, endpoint: str, region: str, kind: str, source: str = PROBES) -> str:
    """The name of a plain series: JSON, so that no label can be mistaken for two.

    Other sources than probe-results are named, so that a probe of any kind is a series of its own.
    """
    labels = [service, endpoint, region, kind, *([source] if source != PROBES else ())]
    return json.dumps(labels, ensure_ascii=False, separators=(",", ":"))


@dataclass(slots=True)
class _Judged:
    """Which series the objectives of an era select, with the greatest good rank: made when it is first asked for."""

    objectives: tuple[Objective, ...]
    table: pl.DataFrame | None = None


class Judge:
    """Numbers the series of events and knows, for each, the objectives that select it and their thresholds.

    An event's *rank* is the number of thresholds below its latency, so `latency ≤ thresholds[i]` is `rank ≤ i`:
    all objectives are judged, each by its own threshold, from one small integer. Which objectives judge an event is
    decided by its slice. A judge is for one source: objectives of another one do not judge its events. Not thread-safe.
    """

    def __init__(self, objectives: Sequence[Objective] | Timeline, index: SeriesIndex, source: str = PROBES) -> None:
        """Objectives without a timeline judge every slice."""
        self.source = source
        self._index = index
        self._known = pl.DataFrame(schema={**dict.fromkeys(LABELS, pl.String), "series": pl.UInt32})
        self.follow(objectives if isinstance(objectives, Timeline) else Timeline.of(objectives))

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Those of the last era."""
        return self._eras[-1].objectives if self._eras else ()

    def follow(self, timeline: Timeline) -> None:
        """From now on this timeline decides. Between two steps only: ranks of before mean nothing after it."""
        eras = [era for _, (era, *_) in groupby(timeline.eras, lambda era: meaning(era.objectives))]
        own = [tuple(o for o in era.objectives if o.source == self.source) for era in eras]
        limits = {o.latency_us_le for objectives in own for o in objectives if o.latency_us_le is not None}
        self._timeline = timeline
        self._thresholds = np.array(sorted(limits), dtype=np.int64)
        self._since = np.array([era.since_s for era in eras], dtype=np.int64)
        self._eras = [_Judged(objectives) for objectives in own]

    @property
    def timeline(self) -> Timeline:
        """What is followed."""
        return self._timeline

    def numbers(self, ids: Collection[str]) -> dict[int, str]:
        """Numbers of the series of some objectives, of all their versions that judge here, with the ids."""
        known = (o for era in self._eras for o in era.objectives if o.id in ids)
        return {self._index.number(o.series): o.id for o in known}

    def renumber(self, used: Mask, numbers: Numbers) -> None:
        """The index has forgotten all series but those `used`, and the others have these numbers now."""
        known = self._known["series"].to_numpy()
        kept = self._known.filter(pl.Series(used[known], dtype=pl.Boolean))
        self._known = kept.with_columns(series=pl.Series(numbers[kept["series"].to_numpy()], dtype=pl.UInt32))
        for era in self._eras:
            era.table = None

    def ranks_of(self, latency_us: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
        """The rank of each latency, elementwise."""
        return np.searchsorted(self._thresholds, latency_us, side="left").astype(np.uint16)

    def ranks_of_buckets(self, buckets: npt.NDArray[np.int16]) -> npt.NDArray[np.uint16]:
        """The rank of all that is in a bucket, elementwise: thresholds are bounds of buckets."""
        return self.ranks_of(BOUNDS[buckets])

    def number(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with `series` (UInt32) in place of the four labels, in the same row order."""
        labels = frame[list(LABELS)]
        joined = labels.join(self._known, on=LABELS, how="left", maintain_order="left")
        if joined["series"].null_count():
            unknown = joined.filter(pl.col("series").is_null()).select(LABELS).unique(maintain_order=True)
            self._learn(unknown.rows())
            joined = labels.join(self._known, on=LABELS, how="left", maintain_order="left")
        return frame[[name for name in frame.columns if name not in LABELS]].hstack([joined["series"]])

    def objective_rows(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows with (series, slice, …, success, rank) as rows of the objectives' series; other columns are kept."""
        if len(self._eras) == 1:
            return self._judge(rows, self._eras[0])
        eras = np.searchsorted(self._since, rows["slice"].to_numpy(), side="right") - 1
        present = np.unique(eras).tolist()
        if len(present) == 1:
            return self._judge(rows, self._eras[present[0]])
        parts = [self._judge(rows.filter(pl.Series(eras == era)), self._eras[era]) for era in present]
        return pl.concat([self._judge(rows.clear(), _Judged(())), *parts])

    def _judge(self, rows: pl.DataFrame, era: _Judged) -> pl.DataFrame:
        if era.table is None:
            era.table = self._judged(era.objectives, self._known)
        judged = rows.join(era.table, on="series", how="inner")
        if self.source != PROBES:  # a threshold says nothing of requests whose latency nobody knows
            judged = judged.filter((pl.col("bucket") != NO_BUCKET) | (pl.col("limit") == len(self._thresholds)))
        good = pl.col("success") & (pl.col("rank") <= pl.col("limit"))
        kept = [name for name in rows.columns if name not in {"series", "success", "rank"}]
        return judged.select(*kept, pl.col("slo").alias("series"), good.alias("good"))

    def _learn(self, labels: Sequence[tuple[str, str, str, str]]) -> None:
        known = [(*four, self._index.number(series_name(*four, self.source))) for four in labels]
        new = pl.DataFrame(known, schema=self._known.schema, orient="row")
        self._known = _stacked(self._known, new)
        for era in self._eras:
            if era.table is not None:
                era.table = _stacked(era.table, self._judged(era.objectives, new))

    def _judged(self, objectives: Sequence[Objective], known: pl.DataFrame) -> pl.DataFrame:
        """The pairs of (series, objective that selects it) among `known`."""
        pairs = [pl.DataFrame(schema={"series": pl.UInt32, "slo": pl.UInt32, "limit": pl.UInt16})]
        for objective in objectives:
            wanted = asdict(objective.selector).items()
            selected = known.filter(*[pl.col(label) == want for label, want in wanted if want is not None])
            slo, limit = self._index.number(objective.series), self._limit(objective)
            pairs.append(selected.select("series", slo=pl.lit(slo, pl.UInt32), limit=pl.lit(limit, pl.UInt16)))
        return pl.concat(pairs)

    def _limit(self, objective: Objective) -> int:
        if objective.latency_us_le is None:
            return len(self._thresholds)
        return int(np.searchsorted(self._thresholds, objective.latency_us_le))


def _stacked(known: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Both; names that come by and by would else make a frame of as many pieces, each of which costs every join."""
    both = known.vstack(new)
    return both.rechunk() if both.n_chunks() > _MOST_PIECES else both
