"""Packages that only some installations have, and the extra of fleetbeat that brings them."""

from collections.abc import Iterator
from contextlib import contextmanager

ROOMS = frozenset({"agents", "infra", "schemas", "streams"})


class MissingPackageError(ValueError):
    """A package that only some installations have; a ValueError, so that the command line answers with status 2."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Turns the import of a package that is not installed into the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as cause:
        package = (cause.name or "").split(".")[0]
        if not package or package in ROOMS:
            raise
        raise MissingPackageError(f"this command needs {package}: install fleetbeat[{name}]") from cause
