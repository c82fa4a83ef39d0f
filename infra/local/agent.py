"""This host's own agent in the stack: its config, which probes the stack itself."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from infra.local.addresses import Addresses
from schemas.documents import load_document
from schemas.kafka.settings import KafkaConfigFile

PLACE = "local"
PROBE_EVERY_S = 5
DISK_EVERY_S = 15


def local_node_id() -> str:
    """What this host is called in the stack, so that no name of the simulated fleet can be meant."""
    return f"{PLACE}-{socket.gethostname()}"


def write_config(
    path: Path, where: Addresses, heartbeat_every_s: float, watched: Path, kafka_config: Path | None = None
) -> None:
    """An agent.yaml that a user may read and copy from; `watched` is the folder whose disk must not fill up.

    What `kafka_config` says about TLS and the user stands in it as well. Raises DocumentError.
    """
    security = {} if kafka_config is None else load_document(kafka_config, KafkaConfigFile).written()
    kafka = urlsplit(f"//{where.kafka.split(',')[0]}")
    probes = [
        _probe("kafka", PROBE_EVERY_S, tcp={"host": kafka.hostname, "port": kafka.port}),
        _probe("worker", PROBE_EVERY_S, http={"url": f"{where.views}/-/healthy"}),
        _probe("archive", PROBE_EVERY_S, http={"url": f"{where.archive_metrics}/-/healthy"}),
        _probe("disk", DISK_EVERY_S, disk={"path": str(watched)}),
    ]
    config = {
        "node": {"id": where.node_id, "region": PLACE, "zone": PLACE},
        "kafka": {"brokers": where.kafka, **security},
        "heartbeat": {"interval_s": heartbeat_every_s},
        "metrics": {"listen": where.agent_metrics.removeprefix("http://")},
        "probes": probes,
    }
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(config, file)


def _probe(name: str, every_s: float, **kind: dict[str, object]) -> dict[str, object]:
    return {"name": name, "service": f"fleetbeat-{name}", "every_s": every_s, **kind}
