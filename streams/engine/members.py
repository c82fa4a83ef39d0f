"""The workers of the group and their addresses, as the group's own protocol carries them.

Each member sends the URL at which it is reached when it joins; who leads the group hands out, with each assignment, who
has which partitions (Faust's assignor). So this needs no topic and no registry, is as new as the assignment, and names
nobody who is not a member.
"""

from yarl import URL

from streams.core.routing import Members, address_of, agreed
from streams.engine.app import App


def advertise(app: App, address: str) -> None:
    """Be reached at `address` (HOST:PORT); to be said before the app starts."""
    app.conf.canonical_url = URL(f"http://{address}")


class Group:
    """Reads what the last assignment said."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._seen: object = None
        self._members = Members("")

    def members(self) -> Members:
        """Nobody before the first assignment."""
        distribution = self._app.assignor.external_topic_distribution  # type: ignore[attr-defined]  # Faust's own assignor
        if distribution is not self._seen:
            own = address_of(str(self._app.conf.canonical_url))
            self._seen, self._members = distribution, agreed(own, distribution)
        return self._members
