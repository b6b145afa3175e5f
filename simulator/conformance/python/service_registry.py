"""Device identities, as a service manages them."""

import base64
import os

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import AuthenticationMechanism, ExportImportDevice, SymmetricKey
from harness import HOST, EntraCredential, answered, cases_of, equal, eventually

case, _cannot = cases_of("azure-iot-hub")


def new_keys():
    return [base64.b64encode(os.urandom(32)).decode() for _ in range(2)]


def keys(identity):
    symmetric = identity.authentication.symmetric_key
    return [symmetric.primary_key, symmetric.secondary_key]


def bulk_item(device_id, mode, **members):
    primary, secondary = new_keys()
    keys_of_it = SymmetricKey(primary_key=primary, secondary_key=secondary)
    authentication = AuthenticationMechanism(type="sas", symmetric_key=keys_of_it)
    members = {"status": "enabled", "authentication": authentication, **members}
    return ExportImportDevice(id=device_id, import_mode=mode, **members)


@case("creates a device with the keys given")
def create(run):
    device, registry = run.new_id(), run.registry()
    run.after.callback(registry.delete_device, device)
    mine = new_keys()
    made = registry.create_device_with_sas(device, *mine, "enabled", status_reason="because")
    found = registry.get_device(device)
    for identity in (made, found):
        equal((identity.device_id, identity.status, identity.status_reason), (device, "enabled", "because"))
        equal((keys(identity), identity.connection_state), (mine, "Disconnected"))
        equal(identity.cloud_to_device_message_count, 0)
    assert made.generation_id and made.etag, made
    equal((found.etag, found.generation_id), (made.etag, made.generation_id))


@case("mints the keys that are not given")
def mint(run):
    device, registry = run.new_id(), run.registry()
    run.after.callback(registry.delete_device, device)
    minted = keys(registry.create_device_with_sas(device, "", "", "enabled"))
    assert all(16 <= len(base64.b64decode(key)) <= 64 for key in minted), minted
    assert minted[0] != minted[1], minted
    equal(keys(registry.get_device(device)), minted)


@case("an existing device is a conflict")
def exists(run):
    device = run.device()
    with answered(409, "DeviceAlreadyExists"):
        run.registry().create_device_with_sas(device.id, *new_keys(), "enabled")
    equal(keys(run.registry().get_device(device.id)), [device.primary_key, device.secondary_key])


@case("updates status and keys of a device")
def update(run):
    device, registry, mine = run.device(), run.registry(), new_keys()
    before = registry.get_device(device.id)
    after = registry.update_device_with_sas(device.id, before.etag, *mine, "disabled", status_reason="lost")
    equal((after.status, after.status_reason, keys(after)), ("disabled", "lost", mine))
    equal(after.generation_id, before.generation_id)
    assert after.etag != before.etag, after.etag
    assert after.status_updated_time > before.status_updated_time, after.status_updated_time


@case("a stale etag refuses an update")
def stale_update(run):
    device, registry = run.device(), run.registry()
    stale = registry.get_device(device.id).etag
    registry.update_device_with_sas(device.id, stale, *new_keys(), "enabled")
    with answered(412, "PreconditionFailed"):
        registry.update_device_with_sas(device.id, stale, *new_keys(), "disabled")
    equal(registry.get_device(device.id).status, "enabled")


@case("a stale etag refuses a deletion")
def stale_delete(run):
    device, registry = run.device(), run.registry()
    stale = registry.get_device(device.id).etag
    registry.update_device_with_sas(device.id, stale, *new_keys(), "enabled")
    with answered(412, "PreconditionFailed"):
        registry.delete_device(device.id, stale)
    registry.get_device(device.id)


@case("an unknown device is not found")
def unknown(run):
    device, registry = run.new_id(), run.registry()
    with answered(404, "DeviceNotFound"):
        registry.get_device(device)
    with answered(404, "DeviceNotFound"):
        registry.delete_device(device)
    with answered(404, "DeviceNotFound"):
        registry.update_device_with_sas(device, "*", *new_keys(), "enabled")


@case("a deleted device is gone, a new one of its name is another")
def delete(run):
    device, registry = run.new_id(), run.registry()
    first = registry.create_device_with_sas(device, *new_keys(), "enabled")
    registry.delete_device(device, first.etag)
    with answered(404, "DeviceNotFound"):
        registry.get_device(device)
    second = registry.create_device_with_sas(device, *new_keys(), "enabled")
    run.after.callback(registry.delete_device, device)
    assert second.generation_id != first.generation_id, second.generation_id


@case("a name that is not allowed is refused")
def bad_name(run):
    with answered(400, "ArgumentInvalid"):
        run.registry().create_device_with_sas("a" * 129, *new_keys(), "enabled")


@case("lists devices")
def listing(run):
    mine = {run.device().id for _ in range(3)}
    found = {identity.device_id for identity in run.registry().get_devices()}
    assert mine <= found, f"{mine} are not all in {found}"
    equal(len(run.registry().get_devices(2)), 2)


@case("creates, updates and deletes many devices at once")
def bulk(run):
    registry, ids = run.registry(), [run.new_id() for _ in range(20)]
    made = registry.bulk_create_or_update_devices([bulk_item(one, "create", tags={"site": "roof"}) for one in ids])
    equal((made.is_successful, made.errors), (True, []))
    equal(registry.get_twin(ids[7]).tags, {"site": "roof"})
    mixed = [bulk_item(ids[0], "update", status="disabled")] + [bulk_item(one, "delete") for one in ids[1:]]
    equal(registry.bulk_create_or_update_devices(mixed).is_successful, True)
    equal(registry.get_device(ids[0]).status, "disabled")
    for gone in ids[1:]:
        with answered(404, "DeviceNotFound"):
            registry.get_device(gone)
    equal(registry.bulk_create_or_update_devices([bulk_item(ids[0], "delete")]).is_successful, True)


@case("a partial failure names the devices that failed")
def partial(run):
    registry, there, new = run.registry(), run.device(), run.new_id()
    result = registry.bulk_create_or_update_devices([bulk_item(there.id, "create"), bulk_item(new, "create")])
    equal(
        (result.is_successful, [(error.device_id, error.error_code) for error in result.errors]),
        (False, [(there.id, "DeviceAlreadyExists")]),
    )
    registry.delete_device(new)
    stale = bulk_item(there.id, "deleteIfMatchETag", e_tag="bm90IG1pbmU=")
    result = registry.bulk_create_or_update_devices([stale])
    equal([error.error_code for error in result.errors], ["PreconditionFailed"])
    registry.get_device(there.id)


@case("counts devices")
def statistics(run):
    run.device(), run.device("disabled")

    def consistent():
        """counts that add up (others make devices meanwhile)"""
        found = run.registry().get_device_registry_statistics()
        total = found.enabled_device_count + found.disabled_device_count
        return found.enabled_device_count and found.disabled_device_count and found.total_device_count == total

    eventually(consistent)
    device = run.device()
    client = run.connected(device)
    eventually(lambda: run.registry().get_service_statistics().connected_device_count)
    equal(run.registry().get_device(device.id).connection_state, "Connected")
    client.shutdown()
    eventually(lambda: run.registry().get_device(device.id).connection_state == "Disconnected")


@case("a policy without the right is refused")
def rights(run):
    device = run.device()
    reader = run.registry("registryRead")
    equal(reader.get_device(device.id).device_id, device.id)
    with answered(401, "IotHubUnauthorizedAccess"):
        reader.delete_device(device.id)
    with answered(401, "IotHubUnauthorizedAccess"):
        run.registry("registryReadWrite").get_twin(device.id)
    with answered(401, "IotHubUnauthorizedAccess"):
        run.registry("service").get_device(device.id)


@case("a wrong key is refused")
def wrong_key(run):
    with answered(401, "IotHubUnauthorizedAccess"):
        run.registry(key=new_keys()[0]).get_devices(1)


@case("a token credential is accepted")
def entra(run):
    device = run.device()
    registry = IoTHubRegistryManager.from_token_credential(HOST, EntraCredential(run.world))
    equal(registry.get_device(device.id).device_id, device.id)
    equal(registry.get_twin(device.id).device_id, device.id)


@case("a token for something else is refused")
def entra_audience(run):
    credential = EntraCredential(run.world, "https://eventhubs.azure.net")
    with answered(401, "IotHubUnauthorizedAccess"):
        IoTHubRegistryManager.from_token_credential(HOST, credential).get_devices(1)
