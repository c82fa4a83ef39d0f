"""A group seen from outside, and the last page of a changelog: what an operator, or an accident, may do."""

import time
from random import Random

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.integration.worker_process import GROUP, Logged, read_log

EMPTY_S = 30.0


def reset_offsets(brokers: str, topics: list[str], age_s: float, *, group: str = GROUP) -> None:
    """Commits, without metadata, the first record that is younger than `age_s`; waits until the group is empty.

    Never ahead of what the group has committed: what lies in between would be skipped, and be lost by our own hand.
    """
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": group, "enable.auto.commit": False})
    since_ms = round((time.time() - age_s) * 1_000)
    known = consumer.list_topics(timeout=10).topics
    asked = [TopicPartition(topic, p, since_ms) for topic in topics for p in known[topic].partitions]
    young = [each for each in consumer.offsets_for_times(asked, timeout=10) if each.offset >= 0]
    committed = {(each.topic, each.partition): each.offset for each in consumer.committed(young, timeout=10)}
    offsets = [
        TopicPartition(each.topic, each.partition, min(each.offset, committed[each.topic, each.partition]))
        for each in young
        if committed[each.topic, each.partition] >= 0  # else the next worker begins with the first record
    ]
    consumer.close()
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    deadline = time.monotonic() + EMPTY_S
    while True:  # members that were killed are still counted for a session
        try:
            asked_for = [ConsumerGroupTopicPartitions(group, offsets)]
            found = admin.alter_consumer_group_offsets(asked_for)[group].result(10).topic_partitions
            refused = [each.error for each in found if each.error is not None]
        except KafkaException as cause:
            refused = [cause]
        if not refused:
            return
        assert time.monotonic() < deadline, refused[0]
        time.sleep(0.5)


def tear_last_page(brokers: str, topic: str, rng: Random) -> Logged:
    """Replaces the last page of one partition by what is left of it when it is cut anywhere."""
    log = [record for record in read_log(brokers, topic) if record.value]
    partition = rng.choice(sorted({record.partition for record in log}))
    last = next(record for record in reversed(log) if record.partition == partition)
    assert last.value is not None
    torn = last.value[: rng.randrange(len(last.value))]
    producer = Producer({"bootstrap.servers": brokers})
    for value in (None, torn):  # as after compaction: else the whole page would still be found before it
        producer.produce(topic, key=last.key, value=value, partition=partition)
    assert producer.flush(30) == 0
    return last
