"""The nodes of a fleet: names of one width, places in turn, and the partitions that Kafka's clients choose."""

import numpy as np
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from agents.simulate.config import load_script
from agents.simulate.nodes import key_hashes, name_table, node_names, node_rows, places, standing_in
from agents.simulate.pieces import Table
from agents.simulate.script import Region, Script

TWO_REGIONS = load_script(None, regions=2)


def test_nodes_have_names_of_one_width() -> None:
    assert node_names(2) == ["node-0000000", "node-0000001"]
    assert node_names(1_234_568)[-1] == "node-1234567"


def test_nodes_stand_in_the_regions_in_turn_and_in_each_in_its_zones_in_turn() -> None:
    here = [places(TWO_REGIONS)[place] for place in standing_in(TWO_REGIONS, 8)]
    assert here[::2] == [("eu-1", "eu-1a"), ("eu-1", "eu-1b"), ("eu-1", "eu-1c"), ("eu-1", "eu-1a")]
    assert here[1::2] == [("us-1", "us-1a"), ("us-1", "us-1b"), ("us-1", "us-1c"), ("us-1", "us-1a")]


def test_regions_may_have_zones_of_different_number() -> None:
    script = Script(TWO_REGIONS.services, (Region("eu", ("a",)), Region("us", ("a", "b"))))
    here = [places(script)[place][1] for place in standing_in(script, 6)]
    assert here == ["eua", "usa", "eua", "usb", "eua", "usa"]


def test_the_ledgers_rows_have_names_and_zones() -> None:
    rows = node_rows(TWO_REGIONS, 3)
    assert rows["node_id"].tolist() == [b"node-0000000", b"node-0000001", b"node-0000002"]
    assert [places(TWO_REGIONS)[zone][1] for zone in rows["zone"]] == ["eu-1a", "us-1a", "eu-1b"]


@given(st.integers(1, 40).flatmap(lambda width: st.lists(st.binary(min_size=width, max_size=width), min_size=1)))
def test_keys_hash_as_kafkas_clients_hash_them(keys: list[bytes]) -> None:
    cells = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)
    assert key_hashes(Table(cells)).tolist() == [murmur2(key) & 0x7FFFFFFF for key in keys]


def test_the_names_of_a_large_fleet_spread_over_the_partitions() -> None:
    counts = np.bincount(key_hashes(name_table(100_000)) % 12)
    assert counts.min() > 0.9 * 100_000 / 12
