"""What every case written in Python shares: registering, running, and the way to the simulator."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass

from azure.core.credentials import AccessToken
from azure.eventhub import EventHubConsumerClient
from azure.iot.device import IoTHubDeviceClient
from azure.iot.hub import IoTHubRegistryManager
from msrest.exceptions import HttpOperationError

HOST = "localhost"
PATIENCE_S = 20
CASES = []


@dataclass
class Case:
    package: str
    title: str
    function: object = None
    alone: bool = False
    timeout_s: float = 45
    not_supported: str = ""


def cases_of(package):
    """Two ways to enter a case of this package: a function that proves it, or the reason why the package cannot.

    A case that disturbs others says `alone`.
    """

    def case(title, alone=False):
        def enter(function):
            CASES.append(Case(package, title, function, alone))
            return function

        return enter

    def cannot(title, why):
        CASES.append(Case(package, title, not_supported=why))

    return case, cannot


# What is promised


def equal(actual, expected):
    assert actual == expected, f"{actual!r} is not {expected!r}"


@contextlib.contextmanager
def refused(error, *words):
    """What is inside must raise this error, and its text must have these words."""
    try:
        yield
    except error as raised:
        text = f"{type(raised).__name__}: {raised} {getattr(raised, '__cause__', '') or ''}"
        for word in words:
            assert str(word) in text, f"refused, but without {word!r}: {text}"
    else:
        raise AssertionError(f"nobody refused, {error} was expected")


@contextlib.contextmanager
def answered(status, code):
    """What is inside must be answered by the hub with this HTTP status and error name."""
    try:
        yield
    except HttpOperationError as error:
        answer = error.response
        equal((answer.status_code, answer.headers.get("iothub-errorcode")), (status, code))
    else:
        raise AssertionError(f"nobody refused, {status} {code} was expected")


def eventually(question, timeout_s=PATIENCE_S):
    """The first true answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := question()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {question.__doc__ or question.__name__}"
        time.sleep(0.05)
    return answer


# The way to the simulator


def sas_token(resource, key, policy=None, expiry=None):
    resource = urllib.parse.quote(resource, safe="")
    expiry = int(expiry or time.time() + 3600)
    signature = hmac.digest(base64.b64decode(key), f"{resource}\n{expiry}".encode(), hashlib.sha256)
    signature = urllib.parse.quote(base64.b64encode(signature), safe="")
    token = f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"
    return f"{token}&skn={policy}" if policy else token


@dataclass
class Device:
    id: str
    primary_key: str
    secondary_key: str

    def connection_string(self, key=None):
        return f"HostName={HOST};DeviceId={self.id};SharedAccessKey={key or self.primary_key}"


class World:
    """One running simulator."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.description = json.load(file)
        self.ca_file = self.description["ca_file"]
        with open(self.ca_file, encoding="utf-8") as file:
            self.ca_pem = file.read()
        self.policies = {policy["name"]: policy["key"] for policy in self.description["policies"]}
        hubs = self.description["event_hubs"]
        emulator = dict(part.split("=", 1) for part in hubs["connection_string"].split(";") if part)
        self.events_key_name = emulator["SharedAccessKeyName"]
        self.events_key = emulator["SharedAccessKey"]
        self.built_in_endpoint = hubs["built_in_endpoint"]
        self.built_in = BuiltInEndpoint(self)

    def hub_connection_string(self, policy="iothubowner", key=None):
        return f"HostName={HOST};SharedAccessKeyName={policy};SharedAccessKey={key or self.policies[policy]}"

    def events_connection_string(self, key=None):
        name, key = self.events_key_name, key or self.events_key
        return f"Endpoint=sb://{HOST};SharedAccessKeyName={name};SharedAccessKey={key}"

    def control(self, method, path, body=None):
        """Asks the simulator's own control API."""
        data = None if body is None else json.dumps(body).encode()
        url = self.description["control"]["base_url"].rstrip("/") + path
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from None
        return json.loads(text) if text else None

    def token(self, resource):
        """A bearer token as Microsoft Entra ID would give one."""
        return self.control("GET", f"/sim/token?resource={urllib.parse.quote(resource, safe='')}")


class EntraCredential:
    """What azure-identity would be: a credential whose tokens the simulator mints."""

    def __init__(self, world, resource=None):
        self._world, self._resource = world, resource

    def get_token(self, *scopes, **_options):
        answer = self._world.token(self._resource or scopes[0].removesuffix(".default").rstrip("/"))
        return AccessToken(answer["access_token"], answer["expires_on"])


class BuiltInEndpoint:
    """Reads all of the hub's built-in endpoint from its start, in the background, with azure-eventhub."""

    def __init__(self, world):
        self._world, self._changed, self._events, self._error = world, threading.Condition(), {}, None
        self._started = False

    def _start(self):
        if not self._started:
            self._started = True
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        client = EventHubConsumerClient.from_connection_string(
            self._world.events_connection_string(),
            "$Default",
            eventhub_name=self._world.built_in_endpoint,
            connection_verify=self._world.ca_file,
        )
        client.receive_batch(self._take, on_error=self._fail, starting_position="-1", max_wait_time=1)

    def _take(self, context, events):
        with self._changed:
            for event in events:
                device = event.system_properties[b"iothub-connection-device-id"].decode()
                self._events.setdefault(device, []).append((context.partition_id, event))
            self._changed.notify_all()

    def _fail(self, _context, error):
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def of(self, device, count=1):
        """The events of this device with their partitions, as soon as there are so many."""
        self._start()
        found = lambda: self._events.get(device.id, [])
        with self._changed:
            self._changed.wait_for(lambda: len(found()) >= count or self._error, PATIENCE_S)
            assert len(found()) >= count, f"{len(found())} of {count} events arrived; {self._error or 'no error'}"
            return list(found())


class Run:
    """What one case has: the world, devices of its own, clients. All of it is cleared away when the case ends."""

    def __init__(self, world):
        self.world = world
        self.after = contextlib.ExitStack()

    def new_id(self):
        return f"py-{uuid.uuid4().hex[:12]}"

    def registry(self, policy="iothubowner", key=None):
        return IoTHubRegistryManager.from_connection_string(self.world.hub_connection_string(policy, key))

    def device(self, status="enabled"):
        device = Device(self.new_id(), *(base64.b64encode(os.urandom(32)).decode() for _ in range(2)))
        registry = self.registry()
        registry.create_device_with_sas(device.id, device.primary_key, device.secondary_key, status)
        self.after.callback(registry.delete_device, device.id)
        return device

    def own(self, client):
        """Shuts the client down when the case ends, unless the case did."""

        def shut_down():
            with contextlib.suppress(Exception):  # the case did, and the package does not name that error
                client.shutdown()

        self.after.callback(shut_down)
        return client

    def client(self, device, key=None, **options):
        """The device's client, as an application makes it."""
        options = {"server_verification_cert": self.world.ca_pem, "connection_retry_interval": 1, **options}
        return self.own(IoTHubDeviceClient.create_from_connection_string(device.connection_string(key), **options))

    def connected(self, device, **options):
        client = self.client(device, **options)
        client.connect()
        return client

    def receiving(self, device):
        """A client of the device, and the cloud-to-device messages that it gets."""
        client, received = self.client(device), []
        # This connects too. Set later, it would miss what a kept session gets as soon as it is connected.
        client.on_message_received = received.append
        return client, received

    def events(self, device, count=1):
        return [event for _partition, event in self.world.built_in.of(device, count)]

    def fault(self, **rule):
        fault = self.world.control("POST", "/sim/faults", rule)
        self.after.callback(self._clear_fault, fault["id"])

    def _clear_fault(self, fault):
        with contextlib.suppress(AssertionError):  # used up and gone
            self.world.control("DELETE", f"/sim/faults/{fault}")


# Running


def _attempt(case, world, outcome):
    run = Run(world)
    try:
        case.function(run)
    except Exception as error:
        traceback.print_exc()
        outcome["why"] = f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        try:
            run.after.close()
        except Exception as error:
            traceback.print_exc()
            outcome.setdefault("why", f"while clearing away: {error}")
        outcome["done"] = True


def play(case, world):
    """The case's row of the table."""
    row = {"package": case.package, "title": case.title}
    if case.not_supported:
        return {**row, "result": "not supported", "why": case.not_supported}
    outcome, started = {}, time.monotonic()
    thread = threading.Thread(target=_attempt, args=(case, world, outcome), daemon=True)
    thread.start()
    thread.join(case.timeout_s)
    why = outcome.get("why") if outcome.get("done") else f"no end within {case.timeout_s:g} s"
    seconds = round(time.monotonic() - started, 2)
    return {**row, "result": "failed" if why else "passed", "why": why or "", "seconds": seconds}
