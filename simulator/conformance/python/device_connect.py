"""Who may connect, and what ends a connection."""

import base64
import os
import time

from azure.iot.device import IoTHubDeviceClient
from azure.iot.device.exceptions import ClientError, CredentialError
from harness import HOST, Device, cases_of, eventually, refused, sas_token

case, cannot = cases_of("azure-iot-device")


def a_key():
    return base64.b64encode(os.urandom(32)).decode()


def client_of_token(run, token, **options):
    client = IoTHubDeviceClient.create_from_sastoken(token, server_verification_cert=run.world.ca_pem, **options)
    return run.own(client)


@case("connects with the primary key")
def primary(run):
    assert run.connected(run.device()).connected


@case("connects with the secondary key")
def secondary(run):
    device = run.device()
    client = run.client(device, device.secondary_key)
    client.connect()
    assert client.connected


@case("connects with a policy's token for this device")
def policy(run):
    token = sas_token(f"{HOST}/devices/{run.device().id}", run.world.policies["device"], "device")
    client = client_of_token(run, token)
    client.connect()
    assert client.connected


cannot(
    "connects with a policy's token for all devices",
    "create_from_sastoken takes the device id from the token's resource and refuses one without",
)


@case("a wrong key is refused")
def wrong_key(run):
    client = run.client(run.device(), a_key())
    with refused(CredentialError):
        client.connect()


@case("a policy without the right to connect is refused")
def wrong_policy(run):
    token = sas_token(f"{HOST}/devices/{run.device().id}", run.world.policies["service"], "service")
    with refused(CredentialError):
        client_of_token(run, token).connect()


@case("an expired token is refused")
def expired(run):
    device, expiry = run.device(), time.time() + 2
    # The client itself refuses a token that expired before it was made.
    client = client_of_token(run, sas_token(f"{HOST}/devices/{device.id}", device.primary_key, expiry=expiry))
    eventually(lambda: time.time() > expiry + 1)
    with refused(CredentialError):
        client.connect()


@case("the session ends with its token")
def ends_with_token(run):
    device = run.device()
    token = sas_token(f"{HOST}/devices/{device.id}", device.primary_key, expiry=time.time() + 3)
    client = client_of_token(run, token, connection_retry=False)
    client.connect()
    eventually(lambda: not client.connected)


@case("the client renews its token and goes on")
def renews(run):
    device = run.device()
    client, changes = run.client(device, sastoken_ttl=123), []  # it renews 120 s before the end
    client.on_connection_state_change = lambda: changes.append(client.connected)
    client.connect()
    eventually(lambda: changes == [True, False, True])
    client.send_message("with the second token")
    run.events(device)


@case("a disabled device is refused")
def disabled(run):
    client = run.client(run.device("disabled"))
    with refused(CredentialError):
        client.connect()


@case("an unknown device is refused")
def unknown(run):
    client = run.client(Device(run.new_id(), a_key(), a_key()))
    with refused(CredentialError):
        client.connect()


@case("a device that gets disabled is dropped")
def dropped(run):
    device = run.device()
    client = run.connected(device, connection_retry=False)
    run.registry().update_device_with_sas(device.id, "*", device.primary_key, device.secondary_key, "disabled")
    eventually(lambda: not client.connected)
    with refused(ClientError):
        client.connect()


@case("a second client takes the device over")
def takeover(run):
    device = run.device()
    first = run.connected(device, connection_retry=False)
    second = run.connected(device, connection_retry=False)
    eventually(lambda: not first.connected)
    second.send_message("still here")
    run.events(device)


@case("an idle connection is kept alive")
def idle(run):
    client, changes = run.client(run.device(), keep_alive=1), []
    client.on_connection_state_change = lambda: changes.append(client.connected)
    client.connect()
    time.sleep(4)  # the hub closes after 1.5 s of silence
    assert client.connected and changes == [True], changes


@case("the client reconnects after the hub closed the connection")
def reconnects(run):
    device = run.device()
    client, changes = run.client(device), []
    client.on_connection_state_change = lambda: changes.append(client.connected)
    client.connect()
    run.world.control("POST", f"/sim/devices/{device.id}/takeover")
    eventually(lambda: changes == [True, False, True])
    client.send_message("back again")
    run.events(device)
