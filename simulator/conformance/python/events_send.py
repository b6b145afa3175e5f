"""Sending to an Event Hub."""

import os
import uuid

from azure.eventhub import EventData
from azure.eventhub.exceptions import EventHubError
from event_hub import Receiving, body, mark, producer
from harness import cases_of, equal, eventually, refused

case, _cannot = cases_of("azure-eventhub")

LINK_LIMIT = 1024 * 1024


def marked(properties, data):
    event = EventData(data)
    event.properties = dict(properties)
    return event


@case("an event arrives with its properties of every type")
def one(run):
    properties, mine = mark(run)
    event = marked(properties, b"\x00\xff body")
    event.properties |= {"text": "grün", "int": 7, "float": 1.5, "flag": True, "bytes": b"\x01\x02"}
    event.properties |= {"id": uuid.UUID(int=7)}
    event.message_id, event.correlation_id, event.content_type = "m-1", "c-1", "text/plain"
    producer(run).send_event(event)
    ((_, found),) = Receiving(run).until(1, mine)
    equal(body(found), b"\x00\xff body")
    plain = {key.decode(): value for key, value in found.properties.items() if key != b"case"}
    expected = {"text": "grün".encode(), "int": 7, "float": 1.5, "flag": True, "bytes": b"\x01\x02"}
    equal(plain, {**expected, "id": uuid.UUID(int=7)})
    equal((found.message_id, found.correlation_id, found.content_type), ("m-1", "c-1", "text/plain"))
    assert found.offset and found.enqueued_time and found.sequence_number >= 0, found


@case("a batch arrives whole and in order")
def batch(run):
    properties, mine = mark(run)
    client = producer(run)
    events = client.create_batch(partition_id="1")
    for number in range(200):
        events.add(marked(properties, str(number)))
    client.send_batch(events)
    found = Receiving(run, partition_id="1").until(200, mine)
    equal([body(event).decode() for _, event in found], [str(number) for number in range(200)])


@case("events of one partition key share a partition")
def partition_key(run):
    properties, mine = mark(run)
    client = producer(run)
    for key in ("a", "b", "c", "d", "e", "f", "g", "h"):
        for _ in range(3):
            client.send_batch([marked(properties, key)], partition_key=key)
    found, partitions = Receiving(run).until(24, mine), {}
    for partition, event in found:
        equal(event.partition_key, body(event))
        partitions.setdefault(body(event), set()).add(partition)
    assert all(len(several) == 1 for several in partitions.values()), partitions
    assert len(set.union(*partitions.values())) > 1, partitions


@case("events without a key go to the partition that is named, or to any")
def partition_id(run):
    properties, mine = mark(run)
    client = producer(run)
    for partition in ("0", "3", "3"):
        client.send_batch([marked(properties, partition)], partition_id=partition)
    for _ in range(8):
        client.send_batch([marked(properties, "any")])
    found = Receiving(run).until(11, mine)
    named = sorted((partition, body(event).decode()) for partition, event in found if body(event) != b"any")
    equal(named, [("0", "0"), ("3", "3"), ("3", "3")])
    assert all(event.partition_key is None for _, event in found), found


@case("events of 100 KB and of nearly 1 MB arrive")
def large(run):
    properties, mine = mark(run)
    client, bodies = producer(run), [os.urandom(100_000), os.urandom(LINK_LIMIT - 10_000)]
    for data in bodies:
        client.send_batch([marked(properties, data)], partition_id="2")
    found = Receiving(run, partition_id="2").until(2, mine)
    assert [body(event) for _, event in found] == bodies, [len(body(event)) for _, event in found]


@case("an event above 1 MB is refused")
def too_large(run):
    client = producer(run)
    batch = client.create_batch()
    equal(batch.max_size_in_bytes, LINK_LIMIT)
    with refused(ValueError):
        batch.add(EventData(os.urandom(LINK_LIMIT)))
    with refused(EventHubError):
        client.send_event(EventData(os.urandom(LINK_LIMIT)))
    properties, mine = mark(run)
    client.send_event(marked(properties, "the next one passes"))
    Receiving(run).until(1, mine)


@case("a buffered producer sends what it holds")
def buffered(run):
    properties, mine = mark(run)
    sent, failed = [], []
    client = producer(
        run,
        buffered_mode=True,
        max_wait_time=0.2,
        on_success=lambda events, _partition: sent.extend(events),
        on_error=lambda _events, _partition, error: failed.append(error),
    )
    for number in range(50):
        client.send_event(marked(properties, str(number)))
    client.flush()
    eventually(lambda: len(sent) == 50 or failed)
    equal(failed, [])
    Receiving(run).until(50, mine)
