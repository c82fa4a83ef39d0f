"""The ids of a cluster's schemas against ours: an id that means another schema there would be read wrongly here."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import ConsumerRecord

from schemas.catalog import Catalog, fingerprint_of, load_catalog
from schemas.kafka import Brokers, client_settings
from streams.engine.brokers import NotPreparedError
from streams.engine.changelog import read_changelog

TOPIC = "fleetbeat-schemas"  # written by `fleetbeat topics apply`; key: subject, value: JSON list of its versions


async def require_our_schemas(brokers: Brokers) -> None:
    """Raises NotPreparedError when an id was applied to the cluster with another schema than it has here.

    Ids that are not ours at all are no danger: their records become dead letters.
    """
    applied: dict[bytes, bytes] = {}
    if not await _exists(brokers):
        return  # topics that others created
    async for records in read_changelog(brokers, TOPIC, [0]):
        applied.update(_newest(records))
    if strange := list(differences(applied.values(), load_catalog())):
        raise NotPreparedError(f"brokers {brokers}: {'; '.join(strange)}")


def differences(values: Iterable[bytes], catalog: Catalog) -> Iterator[str]:
    """A sentence for each id with another fingerprint than ours."""
    ours = {version.id: version.fingerprint for _, version in catalog.schemas()}
    for value in values:
        for version in _versions(value):
            schema_id, found = int(version["id"]), fingerprint_of(str(version["schema"]))
            if ours.get(schema_id, found) != found:
                yield (
                    f"schema id {schema_id} was applied to this cluster with fingerprint {found}; expected "
                    f"{ours[schema_id]}: records with it would be read wrongly (is this fleetbeat of the same release "
                    "line as the one that ran `fleetbeat topics apply`?)"
                )


async def _exists(brokers: Brokers) -> bool:
    client = AIOKafkaAdminClient(**client_settings(brokers))
    try:
        await client.start()
        return TOPIC in await client.list_topics()
    finally:
        await client.close()


def _newest(records: Iterable[ConsumerRecord[bytes, bytes]]) -> dict[bytes, bytes]:
    return {record.key or b"": record.value or b"[]" for record in records}


def _versions(value: bytes) -> list[dict[str, Any]]:
    """Of one subject. Raises NotPreparedError."""
    try:
        versions: list[dict[str, Any]] = json.loads(value)
        _ = [(int(version["id"]), fingerprint_of(version["schema"])) for version in versions]
    except Exception as cause:  # fastavro has no error of its own
        raise NotPreparedError(
            f"{TOPIC}: {value[:80]!r}; expected a JSON list of versions with id and schema ({cause})"
        ) from cause
    return versions
