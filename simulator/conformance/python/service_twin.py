"""The service's side of a twin."""

from azure.iot.hub.models import Twin, TwinProperties
from harness import answered, cases_of, equal

case, _cannot = cases_of("azure-iot-hub")


def patch(tags=None, desired=None):
    return Twin(tags=tags, properties=None if desired is None else TwinProperties(desired=desired))


def plain(section):
    return {key: value for key, value in section.items() if not key.startswith("$")}


@case("reads a twin")
def read(run):
    device = run.device()
    twin = run.registry().get_twin(device.id)
    equal((twin.device_id, twin.status, twin.connection_state), (device.id, "enabled", "Disconnected"))
    equal((twin.authentication_type, twin.version, twin.cloud_to_device_message_count), ("sas", 2, 0))
    equal(twin.device_etag, run.registry().get_device(device.id).etag)
    for section in (twin.properties.desired, twin.properties.reported):
        equal((section["$version"], sorted(section)), (1, ["$metadata", "$version"]))
    assert twin.etag, twin


@case("patches tags and desired properties")
def merge(run):
    device, registry = run.device(), run.registry()
    first = registry.update_twin(
        device.id, patch({"site": {"name": "roof", "floor": 3}}, {"a": 1, "deep": {"x": 1, "y": 2}})
    )
    second = registry.update_twin(device.id, patch({"site": {"floor": 4}}, {"deep": {"y": 3}}))
    equal(second.tags, {"site": {"name": "roof", "floor": 4}})
    equal(plain(second.properties.desired), {"a": 1, "deep": {"x": 1, "y": 3}})
    equal((first.properties.desired["$version"], second.properties.desired["$version"]), (2, 3))
    equal(second.properties.desired["$metadata"]["deep"]["y"]["$lastUpdatedVersion"], 3)
    equal(second.properties.desired["$metadata"]["deep"]["x"]["$lastUpdatedVersion"], 2)
    assert first.etag != second.etag and first.version < second.version, (first.etag, second.etag)


@case("null deletes a property")
def delete(run):
    device, registry = run.device(), run.registry()
    registry.update_twin(device.id, patch({"keep": 1, "drop": 2}, {"keep": 1, "drop": 2, "deep": {"one": 1}}))
    twin = registry.update_twin(device.id, patch({"drop": None}, {"drop": None, "deep": {"one": None}, "absent": None}))
    equal((twin.tags, plain(twin.properties.desired)), ({"keep": 1}, {"keep": 1, "deep": {}}))


@case("replaces a twin")
def replace(run):
    device, registry = run.device(), run.registry()
    registry.update_twin(device.id, patch({"old": 1}, {"old": 1}))
    twin = registry.replace_twin(device.id, patch({"new": 1}, {"new": 2}))
    equal((twin.tags, plain(twin.properties.desired)), ({"new": 1}, {"new": 2}))


@case("a stale etag refuses a patch")
def stale(run):
    device, registry = run.device(), run.registry()
    before = registry.get_twin(device.id)
    registry.update_twin(device.id, patch({"n": 1}), before.etag)
    with answered(412, "PreconditionFailed"):
        registry.update_twin(device.id, patch({"n": 2}), before.etag)
    with answered(412, "PreconditionFailed"):
        registry.replace_twin(device.id, patch({"n": 3}), before.etag)
    equal(registry.get_twin(device.id).tags, {"n": 1})
    equal(registry.update_twin(device.id, patch({"n": 4}), "*").tags, {"n": 4})


@case("a bad key or value refuses the whole patch")
def bad(run):
    device, registry = run.device(), run.registry()
    before = registry.get_twin(device.id)
    for desired in ({"a.b": 1}, {"a b": 1}, {"a$b": 1}, {"s": "x" * 4097}, {"i": 2**52}, {"list": [None]}):
        with answered(400, "ArgumentInvalid"):
            registry.update_twin(device.id, patch({"good": 1}, {"good": 1, **desired}))
    after = registry.get_twin(device.id)
    equal((after.etag, after.tags or {}, plain(after.properties.desired)), (before.etag, {}, {}))


@case("the twin of an unknown device is not found")
def unknown(run):
    with answered(404, "DeviceNotFound"):
        run.registry().get_twin(run.new_id())
    with answered(404, "DeviceNotFound"):
        run.registry().update_twin(run.new_id(), patch({"a": 1}))
