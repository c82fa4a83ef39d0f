"""Which fleetbeat this is."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of


def version() -> str:
    """The version of the installed distribution, or a word for none: a checkout that runs without being installed."""
    try:
        return version_of("fleetbeat")
    except PackageNotFoundError:
        return "not-installed"
