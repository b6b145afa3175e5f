"""Receiving from an Event Hub: positions, owners, groups."""

import time
from datetime import timedelta

from azure.eventhub import EventData
from azure.eventhub.exceptions import EventHubError
from event_hub import Receiving, body, consumer, mark, producer
from harness import cases_of, equal

case, _cannot = cases_of("azure-eventhub")


def sent(run, count, partition):
    """So many events on this partition, as a consumer sees them, and the question for them."""
    properties, mine = mark(run)
    client = producer(run)
    for number in range(count):
        event = EventData(str(number))
        event.properties = properties
        client.send_batch([event], partition_id=partition)
        time.sleep(0.01)  # so that no two have the same time
    return [event for _, event in Receiving(run, partition_id=partition).until(count, mine)], mine


def numbers(run, position, mine, count, partition, **options):
    receiving = Receiving(run, position, partition_id=partition, **options)
    found = receiving.until(count, mine)
    return [body(event).decode() for _, event in found]


@case("from the start")
def earliest(run):
    _events, mine = sent(run, 3, "0")
    receiving = Receiving(run, "-1", partition_id="0")
    receiving.until(3, mine)
    equal([event.sequence_number for _, event in receiving.events], list(range(len(receiving.events))))


@case("from the end")
def latest(run):
    before, mine = sent(run, 3, "0")
    receiving = Receiving(run, "@latest", partition_id="0").attached()
    event = EventData("new")
    event.properties = before[0].properties
    producer(run).send_batch([event], partition_id="0")
    equal([body(event) for _, event in receiving.until(1, mine)], [b"new"])


@case("from an offset, without it or with it")
def offset(run):
    events, mine = sent(run, 4, "1")
    equal(numbers(run, events[1].offset, mine, 2, "1"), ["2", "3"])
    equal(numbers(run, events[1].offset, mine, 3, "1", starting_position_inclusive=True), ["1", "2", "3"])


@case("from a sequence number, without it or with it")
def sequence(run):
    events, mine = sent(run, 4, "2")
    equal(numbers(run, events[1].sequence_number, mine, 2, "2"), ["2", "3"])
    equal(numbers(run, events[1].sequence_number, mine, 3, "2", starting_position_inclusive=True), ["1", "2", "3"])


@case("from a time")
def enqueued_time(run):
    events, mine = sent(run, 4, "3")
    equal(numbers(run, events[1].enqueued_time, mine, 2, "3"), ["2", "3"])
    equal(numbers(run, events[0].enqueued_time - timedelta(seconds=1), mine, 4, "3"), ["0", "1", "2", "3"])


@case("all partitions of a hub at once")
def all_partitions(run):
    properties, mine = mark(run)
    client = producer(run)
    for partition in client.get_partition_ids():
        event = EventData(partition)
        event.properties = properties
        client.send_batch([event], partition_id=partition)
    found = Receiving(run).until(4, mine)
    equal(sorted((partition, body(event).decode()) for partition, event in found), [(p, p) for p in "0123"])


@case("a higher owner level takes a partition over")
def owner_level(run):
    _events, mine = sent(run, 1, "0")
    weak = Receiving(run, partition_id="0", owner_level=1)
    weak.until(1, mine)
    strong = Receiving(run, partition_id="0", owner_level=2)
    strong.until(1, mine)
    assert "stolen" in str(weak.failed()) or "epoch" in str(weak.error).lower(), weak.error
    late = Receiving(run, partition_id="0", owner_level=1)
    assert isinstance(late.failed(), EventHubError), late.error
    none = Receiving(run, partition_id="0")
    assert isinstance(none.failed(), EventHubError), none.error
    equal(strong.error, None)


@case("consumer groups read for themselves")
def groups(run):
    _events, mine = sent(run, 2, "1")
    owner = Receiving(run, partition_id="1", owner_level=7)
    owner.until(2, mine)
    other = Receiving(run, client=consumer(run, "second"), partition_id="1", owner_level=1)
    other.until(2, mine)
    equal((owner.error, other.error), (None, None))


@case("an unknown consumer group is refused")
def unknown_group(run):
    receiving = Receiving(run, client=consumer(run, "nobody"), partition_id="1")
    assert "not-found" in str(receiving.failed()), receiving.error


@case("an event tells of the last one in its partition")
def last_enqueued(run):
    events, mine = sent(run, 3, "2")
    receiving = Receiving(run, partition_id="2", track_last_enqueued_event_properties=True)
    receiving.until(3, mine)
    last = receiving.context.last_enqueued_event_properties
    equal((last["sequence_number"], last["offset"]), (events[-1].sequence_number, events[-1].offset))
    equal(last["enqueued_time"], events[-1].enqueued_time)


@case("a link that is refused is asked for again", alone=True)
def refused_link(run):
    _events, mine = sent(run, 1, "3")
    run.fault(stage="amqp_link", action="refuse", times=1)
    Receiving(run, client=consumer(run, retry_total=3, retry_backoff_factor=0.1), partition_id="3").until(1, mine)
    run.fault(stage="amqp_link", action="refuse", times=1)
    producer(run, retry_total=3, retry_backoff_factor=0.1).send_batch([EventData("through")], partition_id="3")
