"""Fields that several kinds of probes have in their config."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from agents.probes.addresses import literal

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_MAX_NAME = 254


def check_host(text: str) -> str:
    """A name or an address. Raises ValueError."""
    if literal(text) is None and not (len(text) <= _MAX_NAME and _NAME.fullmatch(text)):
        raise ValueError("expected a host name in ASCII (xn--… for others) or an IP address")
    return text


Host = Annotated[str, AfterValidator(check_host)]
Port = Annotated[int, Field(ge=1, le=65_535)]
