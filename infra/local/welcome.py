"""What `fleetbeat up` says when it is ready: where things answer, and three commands that work as printed."""

import shutil
import subprocess
from pathlib import Path

from infra.local.addresses import Addresses

BY_SERVICE = (
    "SELECT service, count() AS results, countIf(not success) AS failed, "
    "round(quantile(0.99)(latency_us) / 1000) AS p99_ms "
    "FROM telemetry.probe_results GROUP BY service ORDER BY service FORMAT PrettyCompact"
)


def welcome(where: Addresses, state: Path, agent_pid: int) -> str:
    """Plain text of a few lines; commands stand on lines of their own, to be copied."""
    lines = [
        "",
        f"  Kafka   {where.kafka}",
        f"  views   {where.views}/api/v1/slos",
        f"  SQL     {where.sql}   (ClickHouse's HTTP protocol, read-only)",
        f"  host    {where.node_page}   (its agent: pid {agent_pid}, config {state / 'agent.yaml'})",
        f"  logs    {state / 'logs'}",
        "",
        "Try, in another terminal:",
        "",
    ]
    for what, command in things_to_try(where):
        lines += [f"  # {what}", f"  {command}", ""]
    return "\n".join([*lines, "Ctrl-C stops everything."])


def things_to_try(where: Addresses) -> tuple[tuple[str, str], ...]:
    """Three (what it shows, shell command)."""
    return (
        ("is each service keeping its promise now?", f"curl -s {where.views}/api/v1/slos | python3 -m json.tool"),
        ("ask every raw result", f"curl -s {where.sql}/ --data-binary '{BY_SERVICE}'"),
        _on_kafka(where),
    )


def _on_kafka(where: Addresses) -> tuple[str, str]:
    if _kcat_reads_avro():
        command = f"kcat -C -b {where.kafka} -t probe-results -o -1 -e -q -s value=avro -r {where.views}"
        return "the newest record of each partition in Kafka", command
    return "the schema of what is in Kafka", f"curl -s {where.views}/subjects/probe-results-value/versions/latest"


def _kcat_reads_avro() -> bool:
    """Whether there is a kcat that can print our records: not every build can."""
    kcat = shutil.which("kcat")
    if kcat is None:
        return False
    said = subprocess.run([kcat, "-V"], capture_output=True, text=True, check=False).stdout
    return "Avro" in said
