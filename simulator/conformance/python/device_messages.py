"""What the hub sends to a device: messages and direct methods."""

from azure.iot.device import MethodResponse
from azure.iot.hub.models import CloudToDeviceMethod
from harness import cases_of, equal, eventually

case, _cannot = cases_of("azure-iot-device")


@case("a cloud-to-device message arrives with its properties")
def message(run):
    device = run.device()
    _client, received = run.receiving(device)
    system = {"messageId": "m-1", "correlationId": "c-1", "contentType": "text/plain", "contentEncoding": "utf-8"}
    run.registry().send_c2d_message(device.id, "grün", {**system, "room": "a/b &=", "empty": ""})
    (found,) = eventually(lambda: received)
    equal(found.data, "grün".encode())
    equal((found.message_id, found.correlation_id), ("m-1", "c-1"))
    equal((found.content_type, found.content_encoding), ("text/plain", "utf-8"))
    equal(found.custom_properties, {"room": "a/b &=", "empty": ""})


@case("cloud-to-device messages wait for the device, in order")
def waiting(run):
    device = run.device()
    run.connected(device).shutdown()
    registry = run.registry()
    for number in range(5):
        registry.send_c2d_message(device.id, str(number))
    _client, received = run.receiving(device)
    eventually(lambda: len(received) == 5)
    equal([message.data for message in received], [b"0", b"1", b"2", b"3", b"4"])


@case("a cloud-to-device message is delivered once")
def once(run):
    device = run.device()
    client, received = run.receiving(device)
    registry = run.registry()
    registry.send_c2d_message(device.id, "first")
    eventually(lambda: received)
    client.shutdown()
    registry.send_c2d_message(device.id, "second")
    _client, again = run.receiving(device)
    eventually(lambda: again)
    equal([message.data for message in again], [b"second"])


@case("a direct method is answered")
def method(run):
    device, requests = run.device(), []
    client = run.connected(device)

    def answer(request):
        requests.append((request.name, request.payload))
        payload = {"echo": request.payload}
        client.send_method_response(MethodResponse.create_from_method_request(request, 207, payload))

    client.on_method_request_received = answer
    # The handler subscribes in the background.
    call = CloudToDeviceMethod(method_name="open", payload={"percent": 40}, connect_timeout_in_seconds=10)
    result = run.registry().invoke_device_method(device.id, call)
    equal((result.status, result.payload), (207, {"echo": {"percent": 40}}))
    equal(requests, [("open", {"percent": 40})])
