"""Who may reach an Event Hub, and what it says of itself."""

import base64
import os
import time

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.eventhub import EventData
from azure.eventhub.exceptions import AuthenticationError, EventHubError
from event_hub import NAME, Receiving, mark, producer, producer_by
from harness import HOST, EntraCredential, cases_of, equal, refused, sas_token

case, _cannot = cases_of("azure-eventhub")

RESOURCE = f"sb://{HOST}/{NAME}"


def passes(run, client):
    properties, mine = mark(run)
    event = EventData("x")
    event.properties = properties
    client.send_batch([event])
    Receiving(run).until(1, mine)


@case("the properties of a hub and its partitions")
def properties(run):
    client = producer(run)
    hub = client.get_eventhub_properties()
    equal((hub["eventhub_name"], hub["partition_ids"]), (NAME, ["0", "1", "2", "3"]))
    assert hub["created_at"], hub
    before = client.get_partition_properties("2")
    client.send_batch([EventData("x")], partition_id="2")
    after = client.get_partition_properties("2")
    equal((after["eventhub_name"], after["id"], after["is_empty"]), (NAME, "2", False))
    equal(after["last_enqueued_sequence_number"], before["last_enqueued_sequence_number"] + 1)
    assert abs(after["last_enqueued_time_utc"].timestamp() - time.time()) < 60, after
    assert after["beginning_sequence_number"] <= after["last_enqueued_sequence_number"], after


@case("an unknown hub is refused")
def unknown_hub(run):
    with refused(EventHubError):
        producer(run, eventhub_name="nothing-here").send_batch([EventData("x")])
    with refused(EventHubError):
        producer(run, eventhub_name="nothing-here").get_eventhub_properties()


@case("an unknown partition is refused")
def unknown_partition(run):
    with refused(EventHubError):
        producer(run).send_batch([EventData("x")], partition_id="99")
    with refused(EventHubError):
        producer(run).get_partition_properties("99")


@case("a wrong key is refused")
def wrong_key(run):
    key = base64.b64encode(os.urandom(32)).decode()
    with refused(AuthenticationError):
        producer_by(run, AzureNamedKeyCredential(run.world.events_key_name, key)).send_batch([EventData("x")])


@case("an unknown key name is refused")
def wrong_name(run):
    with refused(AuthenticationError):
        producer_by(run, AzureNamedKeyCredential("nobody", run.world.events_key)).send_batch([EventData("x")])


def sas(run, **options):
    # Event Hubs signs with the key's text, IoT Hub with the bytes it encodes.
    key = base64.b64encode(run.world.events_key.encode()).decode()
    return AzureSasCredential(sas_token(RESOURCE, key, run.world.events_key_name, **options))


@case("a named key is accepted")
def named_key(run):
    passes(run, producer_by(run, AzureNamedKeyCredential(run.world.events_key_name, run.world.events_key)))


@case("a signature made elsewhere is accepted")
def signature(run):
    passes(run, producer_by(run, sas(run)))


@case("an expired signature is refused")
def expired(run):
    with refused(EventHubError):
        producer_by(run, sas(run, expiry=time.time() - 60)).send_batch([EventData("x")])


@case("a token credential is accepted")
def entra(run):
    passes(run, producer_by(run, EntraCredential(run.world)))


@case("a token for something else is refused")
def entra_audience(run):
    with refused(EventHubError):
        producer_by(run, EntraCredential(run.world, "https://iothubs.azure.net")).send_batch([EventData("x")])
