"""The query language over twins."""

from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties
from harness import answered, cases_of, equal, eventually

case, cannot = cases_of("azure-iot-hub")


def query(run, text, continuation=None, page=None):
    return run.registry().query_iot_hub(QuerySpecification(query=text), continuation, page)


def fleet(run, size):
    """Devices of a site of their own, numbered."""
    site, registry = run.new_id(), run.registry()
    devices = [run.device() for _ in range(size)]
    for number, device in enumerate(devices):
        tags = {"site": site, "number": number, "even": number % 2 == 0}
        registry.update_twin(device.id, Twin(tags=tags, properties=TwinProperties(desired={"interval": number * 10})))
    return site, devices


def ids(result):
    return sorted(twin.device_id for twin in result.items)


def finds(run, text, devices):
    """The index of a real hub lags; give it a moment."""
    expected = sorted(device.id for device in devices)
    eventually(lambda: ids(query(run, text)) == expected, 5)


@case("finds devices by tags and properties")
def where(run):
    site, devices = fleet(run, 6)
    run.connected(devices[3]).patch_twin_reported_properties({"firmware": {"version": "1.2"}})
    select = f"SELECT * FROM devices WHERE tags.site = '{site}'"
    finds(run, select, devices)
    finds(run, f"{select} AND tags.even = true", devices[::2])
    finds(run, f"{select} AND (tags.number < 2 OR tags.number >= 5)", [*devices[:2], devices[5]])
    finds(run, f"{select} AND properties.desired.interval > 30", devices[4:])
    finds(run, f"{select} AND properties.reported.firmware.version = '1.2'", devices[3:4])
    finds(run, f"{select} AND NOT is_defined(properties.reported.firmware)", [*devices[:3], *devices[4:]])
    finds(run, f"{select} AND deviceId IN ['{devices[0].id}', '{devices[1].id}', 'nobody']", devices[:2])
    finds(run, f"{select} AND connectionState = 'Connected'", devices[3:4])
    finds(run, f"{select} AND status = 'disabled'", [])


@case("pages with a continuation token")
def paging(run):
    site, devices = fleet(run, 7)
    text, found, token, sizes = f"SELECT * FROM devices WHERE tags.site = '{site}'", [], None, []
    finds(run, text, devices)
    while True:
        page = query(run, text, token, 3)
        equal(page.type.lower(), "twin")
        found += ids(page)
        sizes.append(len(page.items))
        token = page.continuation_token
        if not token:
            break
    equal((sizes, sorted(found)), ([3, 3, 1], sorted(device.id for device in devices)))


@case("selects single members")
def projection(run):
    site, devices = fleet(run, 1)
    text = f"SELECT deviceId, tags FROM devices WHERE tags.site = '{site}'"
    (row,) = eventually(lambda: query(run, text).items, 5)
    equal((row.device_id, row.tags["number"], row.etag, row.properties), (devices[0].id, 0, None, None))


cannot("counts with an aggregate", "query_iot_hub reads every row as a twin and drops its other members")


@case("a query that cannot be read is refused")
def unreadable(run):
    with answered(400, "ArgumentInvalid"):
        query(run, "SELECT FROM WHERE")
