"""The oracle's own small reading of an objectives file: which events an SLO selects, and which of them are good."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from infra import InfraError

PROBES, COUNTS = "probe-results", "request-counts"
SELECTABLE = ("service", "endpoint", "region", "kind")


@dataclass(frozen=True, slots=True)
class Promise:
    """One SLO: `where` pairs columns of the ledger with their values; without a threshold, success is enough.

    `source`: the topic whose events it is about.
    """

    slo: str
    where: tuple[tuple[str, str], ...]
    latency_us_le: int | None
    source: str = PROBES


def read_promises(path: Path) -> tuple[Promise, ...]:
    """Every `kind: SLO` document of the file. Raises InfraError for what the oracle cannot judge by."""
    documents = YAML(typ="safe", pure=True).load_all(path.read_text(encoding="utf-8"))
    promises = tuple(_promise(path, document) for document in documents if document and document["kind"] == "SLO")
    if not promises:
        raise InfraError(f"{path}: no SLO; expected at least one document of kind SLO")
    return promises


def _promise(path: Path, document: Mapping[str, Any]) -> Promise:
    name = str(document["metadata"]["name"])
    ratio = document["spec"]["indicator"]["spec"]["ratioMetric"]
    good, total = (ratio[part]["metricSource"]["spec"] for part in ("good", "total"))
    where = tuple(sorted((column, str(value)) for column, value in total.get("where", {}).items()))
    foreign = [column for column, _ in where if column not in SELECTABLE]
    if foreign:
        raise InfraError(f"{path}: SLO {name}: where selects by {foreign}; expected only {', '.join(SELECTABLE)}")
    source = str(total["source"])
    if source not in (PROBES, COUNTS):
        raise InfraError(f"{path}: SLO {name}: source {source!r}; expected {PROBES} or {COUNTS}")
    threshold = good.get("latency_us_le")
    return Promise(name, where, None if threshold is None else int(threshold), source)
