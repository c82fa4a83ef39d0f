"""How many bytes values take in Avro, by columns: what a decoder must have read if everything is written as Avro says.

There is a shortest form of each value, and writers use it. A longer one, or a decoder that has gone astray, shows in a
sum that does not agree.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Sizes = npt.NDArray[np.int64] | int

_SYMBOLS_IN_A_BYTE = 64
_TEXTS = ("string", ["null", "string"])
_NULL = -1
# A long of up to 7 k − 1 bits and its sign takes k bytes.
_LIMITS = np.int64(1) << np.arange(6, 63, 7, dtype=np.int64)


def row_sizes(columns: Iterable[tuple[str, Any]], frame: pl.DataFrame) -> Sizes:
    """The bytes of each row, by (column, Avro type). Raises NotImplementedError as `sizes` does.

    All texts are measured in one go: each question to polars waits for its threads, and on a busy machine that takes
    longer than the answer.
    """
    wanted = list(columns)
    texts = [name for name, kind in wanted if kind in _TEXTS]
    lengths = frame.select(pl.col(texts).str.len_bytes().cast(pl.Int64).fill_null(_NULL)) if texts else pl.DataFrame()
    found: Sizes = 0
    for name, kind in wanted:
        found = found + (_text_sizes(kind, lengths[name].to_numpy()) if name in texts else sizes(kind, frame[name]))
    return found


def _text_sizes(kind: Any, lengths: npt.NDArray[np.int64]) -> Sizes:  # noqa: ANN401 - as below
    """Of texts with these lengths in bytes, _NULL for none."""
    if kind == "string":
        return lengths + long_sizes(lengths)
    there = lengths != _NULL
    if not there.any():
        return 1
    lengths = np.where(there, lengths, 0)
    return np.where(there, 1 + lengths + long_sizes(lengths), 1)


def sizes(kind: Any, column: pl.Series) -> Sizes:  # noqa: ANN401 - an Avro schema is any JSON
    """The bytes of each value of a column, or of every one when that is the same.

    `kind`: its Avro type. Raises NotImplementedError for types that no contract of ours has.
    """
    if isinstance(kind, list) and len(kind) == 2 and kind[0] == "null":  # noqa: PLR2004 - null and one more
        return _optional_sizes(kind[1], column)
    match kind["type"] if isinstance(kind, dict) else kind:
        case "boolean":
            found: Sizes = 1
        case "long":
            found = long_sizes(column.to_physical().cast(pl.Int64).to_numpy())
        case "string":
            lengths: npt.NDArray[np.int64] = column.str.len_bytes().cast(pl.Int64).to_numpy()
            found = lengths + long_sizes(lengths)
        case "fixed":
            found = int(kind["size"])
        case "enum" if len(kind["symbols"]) <= _SYMBOLS_IN_A_BYTE:
            found = 1
        case "array":
            found = _array_sizes(kind["items"], column)
        case "record":
            found = 0
            for field in kind["fields"]:
                found = found + sizes(field["type"], column.struct.field(field["name"]))
        case _:
            raise NotImplementedError(kind)
    return found


def long_sizes(values: npt.NDArray[np.int64]) -> Sizes:
    """The bytes of each long, which are also those of Kafka's varints."""
    if not len(values):
        return 0
    coded = values ^ (values >> 63)
    low, high = (int(np.searchsorted(_LIMITS, limit, side="right")) for limit in (coded.min(), coded.max()))
    if low == high:
        return low + 1
    found = np.full(len(coded), low + 1, np.int64)
    for limit in _LIMITS[low:high]:
        found += coded >= limit
    return found


def _optional_sizes(kind: Any, column: pl.Series) -> Sizes:  # noqa: ANN401 - as above
    nulls = column.null_count()
    if nulls == len(column):
        return 1
    if not nulls:
        return 1 + sizes(kind, column)
    found = np.ones(len(column), np.int64)
    found[column.is_not_null().to_numpy()] += sizes(kind, column.drop_nulls())
    return found


def _array_sizes(items: Any, column: pl.Series) -> Sizes:  # noqa: ANN401 - as above
    """One block of all items, and an end."""
    counts = column.list.len().cast(pl.Int64).to_numpy()
    filled = np.flatnonzero(counts)
    if not len(filled):
        return 1
    each = np.broadcast_to(sizes(items, column.gather(filled).explode()), int(counts.sum()))
    first = np.concatenate(([0], np.cumsum(counts[filled])[:-1]))
    found = np.ones(len(counts), np.int64)
    items_of: npt.NDArray[np.int64] = np.add.reduceat(each, first)
    found[filled] += items_of + long_sizes(counts[filled])
    return found
