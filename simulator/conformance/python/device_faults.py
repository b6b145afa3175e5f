"""Things that go wrong between the hub and a device."""

from azure.iot.device import Message
from azure.iot.device.exceptions import ClientError, OperationCancelled
from harness import cases_of, equal, eventually, refused

case, _cannot = cases_of("azure-iot-device")


def fault_message(operation, reason):
    message = Message("fault")
    message.custom_properties = {
        "AzIoTHub_FaultOperationType": operation,
        "AzIoTHub_FaultOperationCloseReason": reason,
        "AzIoTHub_FaultOperationDelayInSecs": "0",
    }
    return message


def falls(run, operation, reason):
    device = run.device()
    client = run.connected(device, connection_retry=False)
    with refused((ClientError, OperationCancelled)):
        client.send_message(fault_message(operation, reason))
    eventually(lambda: not client.connected)
    run.connected(device).send_message("after the fault")
    assert b"after the fault" in [b"".join(event.body) for event in run.events(device)]


@case("Microsoft's fault KillTcp ends the connection")
def kill_tcp(run):
    falls(run, "KillTcp", "boom")


@case("Microsoft's fault ShutDownMqtt ends the connection")
def shut_down_mqtt(run):
    falls(run, "ShutDownMqtt", "byebye")


@case("a message whose acknowledgement is lost is sent again")
def lost_puback(run):
    device = run.device()
    client = run.connected(device)
    run.fault(stage="puback", action="close", device=device.id, times=1)
    client.send_message(Message("once more", "m-1"))
    equal({event.message_id for event in run.events(device, 2)}, {"m-1"})


@case("a connection that fails is tried again")
def failed_connect(run):
    device = run.device()
    client = run.connected(device)
    run.fault(stage="connect", action="close", device=device.id, times=1)
    run.world.control("POST", f"/sim/devices/{device.id}/takeover")
    eventually(lambda: not client.connected)
    eventually(lambda: client.connected)
    client.send_message("through")
    run.events(device)
