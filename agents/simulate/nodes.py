"""The nodes of a fleet, by their number from 0: their names, where they stand, and Kafka's hash of their keys."""

import numpy as np
import numpy.typing as npt

from agents.simulate.pieces import Table
from agents.simulate.rows import NODE, Ints, Rows
from agents.simulate.script import Script

_PREFIX = b"node-"
_DIGITS = 7
# Murmur 2 with the seed of Kafka's default partitioner (org.apache.kafka.common.utils.Utils.murmur2).
_SEED = 0x9747B28C
_FACTOR = np.uint32(0x5BD1E995)


def name_table(nodes: int) -> Table:
    """The ids of a fleet's nodes, all of one width."""
    numbers = np.arange(nodes)
    cells = np.empty((nodes, len(_PREFIX) + _DIGITS), np.uint8)
    cells[:, : len(_PREFIX)] = np.frombuffer(_PREFIX, np.uint8)
    for place in range(1, _DIGITS + 1):
        cells[:, -place] = numbers % 10 + ord("0")
        numbers //= 10
    return Table(cells)


def node_names(nodes: int) -> list[str]:
    """The same ids as texts."""
    return [name.decode() for name in _texts(name_table(nodes)).tolist()]


def node_rows(script: Script, nodes: int) -> Rows:
    """NODE rows, for the ledger."""
    rows = np.zeros(nodes, NODE)
    rows["node_id"] = _texts(name_table(nodes))
    rows["zone"] = standing_in(script, nodes)
    return rows


def places(script: Script) -> list[tuple[str, str]]:
    """(region, zone) of each of the script's places, as records name them."""
    return [(region, f"{region}{zone}") for region, zone in script.places]


def standing_in(script: Script, nodes: int) -> Ints:
    """For each node its index in the script's places: the regions in turn, and in each its zones in turn."""
    zones = np.array([len(region.zones) for region in script.regions])
    first = np.cumsum(zones) - zones
    lap, region = np.divmod(np.arange(nodes), len(zones))
    here: Ints = first[region] + lap % zones[region]
    return here


def _texts(names: Table) -> npt.NDArray[np.bytes_]:
    texts: npt.NDArray[np.bytes_] = names.cells.view(f"S{names.width}")[:, 0]
    return texts


def key_hashes(keys: Table) -> Ints:
    """What Kafka's default partitioner takes modulo the number of partitions; the keys must be of one width."""
    whole = keys.width // 4
    words = np.ascontiguousarray(keys.cells[:, : 4 * whole]).view("<u4")
    hashes = np.full(len(keys.cells), _SEED ^ keys.width, np.uint32)
    for place in range(whole):
        word = words[:, place] * _FACTOR
        hashes = hashes * _FACTOR ^ (word ^ word >> np.uint32(24)) * _FACTOR
    if keys.width % 4:
        for place in range(keys.width % 4):
            hashes ^= keys.cells[:, 4 * whole + place].astype(np.uint32) << np.uint32(8 * place)
        hashes *= _FACTOR
    hashes = (hashes ^ hashes >> np.uint32(13)) * _FACTOR
    return (hashes ^ hashes >> np.uint32(15)).astype(np.int64) & 0x7FFFFFFF
