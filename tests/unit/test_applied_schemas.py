"""Schema ids of a cluster: one that means something else there is refused by its fingerprint."""

import json

import pytest

from schemas.catalog import load_catalog
from streams.engine.applied_schemas import differences
from streams.engine.brokers import NotPreparedError

CATALOG = load_catalog()
RESULTS = CATALOG.topic("probe-results").latest


def applied(schema_id: int, text: str) -> bytes:
    return json.dumps([{"version": 1, "id": schema_id, "schema": text}]).encode()


def test_what_was_applied_by_the_same_release_is_accepted() -> None:
    values = [applied(version.id, version.text) for _, version in CATALOG.schemas()]
    assert list(differences([*values, b"[]"], CATALOG)) == []


def test_documentation_does_not_matter_and_ids_that_are_not_ours_are_no_danger() -> None:
    schema = json.loads(RESULTS.text)
    schema["doc"] = "other words"
    foreign = applied(900, json.dumps({"type": "record", "name": "x", "fields": []}))
    assert list(differences([applied(RESULTS.id, json.dumps(schema)), foreign], CATALOG)) == []


def test_an_id_that_means_another_schema_is_named_with_both_fingerprints() -> None:
    schema = json.loads(RESULTS.text)
    schema["fields"] = schema["fields"][::-1]
    (said,) = differences([applied(RESULTS.id, json.dumps(schema))], CATALOG)
    assert said.startswith(f"schema id {RESULTS.id} was applied to this cluster with fingerprint ")
    assert f"expected {RESULTS.fingerprint}" in said


@pytest.mark.parametrize("value", [b"", b"{}x", b'[{"id": 1}]', b'[{"id": 1, "schema": "no schema"}]'])
def test_what_is_no_list_of_schemas_is_told(value: bytes) -> None:
    with pytest.raises(NotPreparedError, match=r"fleetbeat-schemas: .*expected a JSON list of versions"):
        list(differences([value], CATALOG))
