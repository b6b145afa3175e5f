"""Messages from the device to the built-in endpoint, read there with azure-eventhub."""

import json
import os
import time
from datetime import datetime, timezone

from azure.iot.device import IoTHubDeviceClient, Message
from azure.iot.device.exceptions import ClientError, OperationCancelled
from harness import HOST, cases_of, equal, refused, sas_token

case, _cannot = cases_of("azure-iot-device")

LIMIT_BYTES = 256 * 1024


def body(event):
    return b"".join(event.body)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def properties(event):
    return {text(key): text(value) for key, value in (event.properties or {}).items()}


def annotations(event):
    return {text(key): text(value) for key, value in event.raw_amqp_message.annotations.items()}


@case("a message arrives with its body, properties and annotations")
def complete(run):
    device = run.device()
    generation = run.registry().get_device(device.id).generation_id
    message = Message(json.dumps({"t": 21.5}), "mid-1", "utf-8", "application/json")
    message.correlation_id, message.user_id = "cid-1", "someone"
    message.custom_properties = {"room": "greenhouse", "iothub-creation-time-utc": "2026-02-03T04:05:06.7Z"}
    before = datetime.now(timezone.utc).timestamp() * 1000
    run.connected(device).send_message(message)
    (event,) = run.events(device)
    equal(body(event), b'{"t": 21.5}')
    equal(properties(event), message.custom_properties)
    equal((event.message_id, event.correlation_id), ("mid-1", "cid-1"))
    equal((event.content_type, event.raw_amqp_message.properties.content_encoding), ("application/json", b"utf-8"))
    equal(text(event.raw_amqp_message.properties.user_id), "someone")
    found = annotations(event)
    equal(found["iothub-connection-device-id"], device.id)
    equal(found["iothub-connection-auth-generation-id"], generation)
    equal(found["iothub-message-source"], "Telemetry")
    method = json.loads(found["iothub-connection-auth-method"])
    equal((method["scope"], method["type"], method["issuer"]), ("device", "sas", "iothub"))
    for name in ("iothub-enqueuedtime", "x-opt-enqueued-time"):
        assert abs(found[name] - before) < 60_000, f"{name} {found[name]}, sent at {before}"
    equal(found["x-opt-partition-key"], device.id)
    assert event.sequence_number >= 0 and event.offset, (event.sequence_number, event.offset)


@case("any characters survive in properties")
def characters(run):
    device = run.device()
    message = Message("x", "a-:.+%_#*?!(),=@;$'")
    message.custom_properties = {"k y": "v&=/?#+ %", "größe": "zwölf €", "empty": "", "$odd": "$.mid"}
    run.connected(device).send_message(message)
    (event,) = run.events(device)
    equal(properties(event), message.custom_properties)
    equal(event.message_id, message.message_id)


@case("any body survives byte for byte")
def bodies(run):
    device = run.device()
    client, sent = run.connected(device), [b"", bytes(range(256)), "grün".encode(), b'{ "b":1.0 }\n']
    for data in sent:
        client.send_message(Message(data))
    equal([body(event) for event in run.events(device, len(sent))], sent)


@case("a session by policy shows in the message")
def scope(run):
    device = run.device()
    token = sas_token(f"{HOST}/devices/{device.id}", run.world.policies["device"], "device")
    client = run.own(IoTHubDeviceClient.create_from_sastoken(token, server_verification_cert=run.world.ca_pem))
    client.send_message("x")
    (event,) = run.events(device)
    equal(json.loads(annotations(event)["iothub-connection-auth-method"])["scope"], "hub")


@case("a hundred messages arrive once each and in order")
def many(run):
    device = run.device()
    client = run.connected(device)
    for number in range(100):
        client.send_message(str(number))
    arrived = run.world.built_in.of(device, 100)
    equal([body(event).decode() for _, event in arrived], [str(number) for number in range(100)])
    equal(len({partition for partition, _ in arrived}), 1)
    numbers = [event.sequence_number for _, event in arrived]
    equal(numbers, sorted(numbers))


@case("a message of 256 KB arrives")
def largest(run):
    device, data = run.device(), os.urandom(LIMIT_BYTES - 1024)
    run.connected(device).send_message(Message(data))
    (event,) = run.events(device)
    assert body(event) == data, f"{len(body(event))} bytes, not those that were sent"


@case("a message above 256 KB does not arrive")
def too_large(run):
    device = run.device()
    client = run.connected(device, connection_retry=False)
    with refused(ValueError, "256"):  # the package counts the whole object, so its own bound is the lower one
        client.send_message(Message(os.urandom(LIMIT_BYTES)))
    message = Message(os.urandom(LIMIT_BYTES - 512))
    # Its bound counts the values of properties, the hub's counts their names too.
    message.custom_properties = {"n" * 1024: "v"}
    with refused((ClientError, OperationCancelled)):
        client.send_message(message)
    time.sleep(0.5)
    equal(run.world.built_in.of(device, 0), [])
