"""What a service sends to devices: messages and direct methods."""

import threading
import time

from azure.iot.device import MethodResponse
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod
from harness import HOST, EntraCredential, answered, cases_of, equal, eventually, refused
from uamqp.errors import AuthenticationException

case, cannot = cases_of("azure-iot-hub")

SEND_FAILED = "C2D message send failure"  # all that the package says when the hub rejects a message


@case("a message reaches the device")
def message(run):
    device = run.device()
    _client, received = run.receiving(device)
    properties = {"messageId": "m-1", "correlationId": "c-1", "contentType": "application/json", "kind": "test"}
    run.registry().send_c2d_message(device.id, '{"open": true}', properties)
    (found,) = eventually(lambda: received)
    equal((found.data, found.message_id, found.correlation_id), (b'{"open": true}', "m-1", "c-1"))
    equal((found.content_type, found.custom_properties), ("application/json", {"kind": "test"}))


@case("a message is sent with a token credential")
def entra(run):
    device = run.device()
    _client, received = run.receiving(device)
    registry = IoTHubRegistryManager.from_token_credential(HOST, EntraCredential(run.world))
    registry.send_c2d_message(device.id, "by token")
    eventually(lambda: received)


for title in ("feedback says that a message was delivered", "feedback says that a message expired"):
    cannot(title, "it has no AMQP receiver, and receive_feedback_notification throws the hub's answer away")


@case("an expired message is not delivered")
def expired(run):
    device, registry = run.device(), run.registry()
    run.connected(device).shutdown()
    registry.send_c2d_message(device.id, "late", {"expiryTimeUtc": int((time.time() + 1) * 1000)})
    registry.send_c2d_message(device.id, "in time")
    time.sleep(1.5)
    _client, received = run.receiving(device)
    eventually(lambda: received)
    equal([message.data for message in received], [b"in time"])


@case("a message to an unknown device is refused")
def unknown(run):
    with refused(Exception, SEND_FAILED):
        run.registry().send_c2d_message(run.new_id(), "nobody")


@case("a wrong key sends nothing")
def wrong_key(run):
    device = run.device()
    with refused(AuthenticationException):
        run.registry(key=device.primary_key).send_c2d_message(device.id, "no")
    equal(run.registry().get_device(device.id).cloud_to_device_message_count, 0)


@case("a queue takes fifty messages and no more")
def full(run):
    device, registry = run.device(), run.registry()
    run.connected(device).shutdown()
    for number in range(50):
        registry.send_c2d_message(device.id, str(number))
    with refused(Exception, SEND_FAILED):
        registry.send_c2d_message(device.id, "one too many")
    equal(registry.get_device(device.id).cloud_to_device_message_count, 50)


@case("purges the messages of a device")
def purge(run):
    device, registry = run.device(), run.registry()
    run.connected(device).shutdown()
    for number in range(3):
        registry.send_c2d_message(device.id, str(number))
    result = registry.protocol.cloud_to_device_messages.purge_cloud_to_device_message_queue(device.id)
    equal((result.device_id, result.total_messages_purged), (device.id, 3))
    equal(registry.get_device(device.id).cloud_to_device_message_count, 0)


@case("a method of a device that is offline is not found")
def offline(run):
    with answered(404, "DeviceNotOnline"):
        run.registry().invoke_device_method(run.device().id, CloudToDeviceMethod(method_name="open"))


@case("a method is answered with the device's status and payload")
def method(run):
    device = run.device()
    client, names = run.connected(device), []

    def answer(request):
        names.append(request.name)
        client.send_method_response(MethodResponse.create_from_method_request(request, 404, ["no", {"such": None}]))

    client.on_method_request_received = answer
    call = CloudToDeviceMethod(method_name="close-it", connect_timeout_in_seconds=10)
    result = run.registry().invoke_device_method(device.id, call)
    equal((names, result.status, result.payload), (["close-it"], 404, ["no", {"such": None}]))


@case("a method that the device never answers times out")
def silent(run):
    device, called = run.device(), threading.Event()
    run.connected(device).on_method_request_received = lambda _request: called.set()
    call = CloudToDeviceMethod(method_name="wait", response_timeout_in_seconds=5, connect_timeout_in_seconds=10)
    with answered(504, "GatewayTimeout"):
        run.registry().invoke_device_method(device.id, call)
    assert called.is_set(), "the device was not called"
