"""Arrays of one length side by side, as frozen dataclasses have them."""

from dataclasses import fields
from typing import Self

import numpy as np
import numpy.typing as npt


class Columns:
    """Of a frozen dataclass whose fields are arrays of one length, which nobody changes."""

    def where(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Self:
        """The rows of a mask, or at some places."""
        return type(self)(*(getattr(self, column.name)[rows] for column in fields(self)))  # type: ignore[arg-type]

    def part(self, begin: int, end: int) -> Self:
        """Rows that follow each other, not copied."""
        return type(self)(*(getattr(self, column.name)[begin:end] for column in fields(self)))  # type: ignore[arg-type]

    @classmethod
    def concat(cls, *parts: Self) -> Self:
        """All rows of all parts."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(p, column.name) for p in parts]) for column in fields(cls)))  # type: ignore[arg-type]
