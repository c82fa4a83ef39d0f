"""Where the parts of a stack answer."""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Addresses:
    """Kafka as host:port, the others as base URLs; `node_id` is what this host's agent calls it."""

    kafka: str
    views: str
    sql: str
    archive_metrics: str
    agent_metrics: str
    node_id: str

    @property
    def node_page(self) -> str:
        """What the views know about this host."""
        return f"{self.views}/api/v1/nodes/{quote(self.node_id, safe='')}"
