"""Who a probe says it is: basic or bearer, with the secret in a file."""

from base64 import b64encode
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from agents.probes.base import Settings
from agents.probes.trust import read_secret


class BasicAuth(Settings):
    """A user's name, and the file whose one line is the password."""

    username: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^:\x00-\x1f\x7f]+$")]
    password_file: Path


class HttpAuth(Settings):
    """One of the two. Files are read for each run, and refused when others can get at them."""

    basic: BasicAuth | None = None
    bearer_file: Path | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.basic is None) == (self.bearer_file is None):
            raise ValueError("expected one of basic and bearer_file")
        return self

    def header(self) -> str:
        """The value of Authorization. Raises ProbeFailedError, without the secret."""
        if self.bearer_file is not None:
            return f"Bearer {read_secret(self.bearer_file, 'bearer_file')}"
        assert self.basic is not None  # noqa: S101 - _is_one
        pair = f"{self.basic.username}:{read_secret(self.basic.password_file, 'password_file')}"
        return f"Basic {b64encode(pair.encode()).decode()}"
