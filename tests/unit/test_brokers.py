"""Partition counts: what commits were made with when a worker starts, and what it is given while it runs."""

import pytest
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.types import TP

from streams.engine.brokers import NotPreparedError, PartitionsAddedError, _require_unchanged, require_no_others
from streams.engine.commit_notes import Note


def commit(metadata: str | None) -> dict[TopicPartition, OffsetAndMetadata]:
    return {TopicPartition("slo-partials", 3): OffsetAndMetadata(9, metadata)}


@pytest.mark.parametrize("metadata", [None, "", "17", "17 topic=x", Note("0", "x", "", 12).write()])
def test_commits_of_the_same_count_or_of_before_there_was_one_are_no_reason(metadata: str | None) -> None:
    _require_unchanged("b:1", commit(metadata), 12)


def test_another_count_is_refused_with_both_and_the_way_on() -> None:
    with pytest.raises(
        NotPreparedError,
        match=r"topics have 24 partitions, but the commit of slo-partials partition 3 was made with 12; expected 12, "
        r"or no state \(`fleetbeat state rebuild --brokers b:1`",
    ):
        _require_unchanged("b:1", commit(Note("0", "x", "", 12).write()), 24)


def test_a_partition_that_was_added_while_a_worker_runs_ends_it() -> None:
    owned = {TP("heartbeats", partition) for partition in range(4)}
    require_no_others(owned, 4)
    with pytest.raises(PartitionsAddedError, match=r"topic heartbeats has a partition 4 now; expected 4 partitions"):
        require_no_others(owned | {TP("heartbeats", 5), TP("heartbeats", 4)}, 4)
