"""The device's side of its twin."""

from azure.iot.device.exceptions import ClientError
from azure.iot.hub.models import Twin, TwinProperties
from harness import cases_of, equal, eventually, refused

case, _cannot = cases_of("azure-iot-device")


def desired(run, device, properties):
    """What a service does: a change of the desired properties."""
    return run.registry().update_twin(device.id, Twin(properties=TwinProperties(desired=properties)))


def reported(run, device):
    """The reported properties as a service sees them, without what the hub adds."""
    found = run.registry().get_twin(device.id).properties.reported
    return {key: value for key, value in found.items() if not key.startswith("$")}


@case("reads both sections of the twin with their versions")
def read(run):
    device = run.device()
    desired(run, device, {"interval": 60, "list": [1, 1.5, "a", True]})
    client = run.connected(device)
    client.patch_twin_reported_properties({"battery": {"volt": 3.1}})
    found = client.get_twin()
    equal(found["desired"], {"interval": 60, "list": [1, 1.5, "a", True], "$version": 2})
    equal(found["reported"], {"battery": {"volt": 3.1}, "$version": 2})
    equal(sorted(found), ["desired", "reported"])


@case("a reported patch is merged and raises the version")
def patch(run):
    device = run.device()
    client = run.connected(device)
    client.patch_twin_reported_properties({"a": 1, "deep": {"x": 1, "y": 2}})
    client.patch_twin_reported_properties({"b": "zwei", "deep": {"y": 3}})
    equal(reported(run, device), {"a": 1, "b": "zwei", "deep": {"x": 1, "y": 3}})
    equal(client.get_twin()["reported"]["$version"], 3)
    metadata = run.registry().get_twin(device.id).properties.reported["$metadata"]
    assert metadata["deep"]["y"]["$lastUpdated"] > metadata["deep"]["x"]["$lastUpdated"], metadata


@case("null deletes a reported property")
def delete(run):
    device = run.device()
    client = run.connected(device)
    client.patch_twin_reported_properties({"keep": 1, "drop": 2, "deep": {"keep": 1, "drop": 2}, "last": {"one": 1}})
    client.patch_twin_reported_properties({"drop": None, "absent": None, "deep": {"drop": None}, "last": {"one": None}})
    equal(reported(run, device), {"keep": 1, "deep": {"keep": 1}, "last": {}})


def refuses(run, *patches):
    device = run.device()
    client = run.connected(device)
    client.patch_twin_reported_properties({"before": True})
    for bad in patches:
        with refused(ClientError, "400"):
            client.patch_twin_reported_properties({"good": 1, **bad})
    equal(reported(run, device), {"before": True})
    equal(client.get_twin()["reported"]["$version"], 2)


@case("a bad key refuses the whole patch")
def bad_keys(run):
    refuses(
        run, {"gateway.id": 1}, {"a b": 1}, {"a$": 1}, {"#": 1}, {"deep": {"x.y": 1}}, {"k" * 1025: 1}, {"$version": 7}
    )


@case("a value out of bounds refuses the whole patch")
def bad_values(run):
    deep = {"leaf": 1}
    for _ in range(11):
        deep = {"d": deep}
    refuses(run, {"s": "x" * 4097}, {"i": 2**52}, {"i": -(2**52) - 1}, {"deep": deep}, {"list": [1, None]})


@case("a twin that would grow too large is refused")
def too_large(run):
    device = run.device()
    client = run.connected(device)
    client.patch_twin_reported_properties({f"k{number}": "x" * 4000 for number in range(8)})
    with refused(ClientError, "twin operation returned status 4"):
        client.patch_twin_reported_properties({"one-more": "x" * 1000})
    equal(len(reported(run, device)), 8)


@case("a change of desired properties is announced")
def announced(run):
    device, patches = run.device(), []
    client = run.connected(device)
    client.on_twin_desired_properties_patch_received = patches.append
    client.get_twin()
    desired(run, device, {"interval": 60, "deep": {"a": 1, "b": 2}})
    eventually(lambda: len(patches) == 1)
    desired(run, device, {"interval": None, "deep": {"b": 3}})
    eventually(lambda: len(patches) == 2)
    equal(patches[0], {"interval": 60, "deep": {"a": 1, "b": 2}, "$version": 2})
    equal(patches[1], {"interval": None, "deep": {"b": 3}, "$version": 3})


@case("a throttled patch answers 429 and works the next time")
def throttled(run):
    device = run.device()
    client = run.connected(device)
    run.fault(stage="twin_answer", action="throttle", device=device.id, times=1)
    with refused(ClientError, "429"):
        client.patch_twin_reported_properties({"a": 1})
    client.patch_twin_reported_properties({"a": 2})
    equal(reported(run, device), {"a": 2})
