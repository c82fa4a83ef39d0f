"""Fields that several parts of the agent's file have: names, labels and times."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_NAME_BYTES = 255
MAX_LABELS = 32


def _check_name(text: str) -> str:
    size = len(text.encode(errors="replace"))
    if not 1 <= size <= MAX_NAME_BYTES or not text.isprintable():
        raise ValueError(f"{size} bytes; expected 1 to {MAX_NAME_BYTES} bytes of printable text")
    return text


def _check_label_key(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}", text):
        raise ValueError("expected a letter or _, then letters, digits, _, . and -, 63 at most")
    return text


Name = Annotated[str, AfterValidator(_check_name)]
LabelKey = Annotated[str, AfterValidator(_check_label_key)]
Labels = Annotated[dict[LabelKey, Name], Field(max_length=MAX_LABELS)]
Seconds = Annotated[float, Field(ge=0.1, le=86_400, allow_inf_nan=False)]
