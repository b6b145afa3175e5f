#!/usr/bin/env -S python3 -IS
"""The few commands of the Azure CLI that infra/existing-hub.sh uses, on a hub that is a JSON file.

AZ_STATE names the file. Each command's arguments are appended to <AZ_STATE>.log, one JSON list a line.
"""

import json
import os
import re
import sys

STATE = os.environ["AZ_STATE"]
IDENTITY = "/subscriptions/s-1/resourceGroups/bridge/providers/Microsoft.ManagedIdentity/userAssignedIdentities/b-hub"


def main(arguments):
    with open(STATE + ".log", "a", encoding="utf-8") as log:
        log.write(json.dumps(arguments) + "\n")
    with open(STATE, encoding="utf-8") as file:
        state = json.load(file)
    words = arguments[: first_option(arguments)]
    options = dict(pairs(arguments[len(words) :]))
    command, known = COMMANDS[" ".join(words)]
    unknown = options.keys() - known.split() - {"--output", "--query"}
    if unknown:
        # As the real one says it.
        sys.exit(f"unrecognized arguments: {' '.join(sorted(unknown))}")
    answer = command(state, options)
    with open(STATE, "w", encoding="utf-8") as file:
        json.dump(state, file)
    if options.get("--output") == "tsv":
        print_tsv(query(answer, options["--query"]))


def first_option(arguments):
    return next(place for place, word in enumerate(arguments) if word.startswith("--"))


def pairs(options):
    for name, value in zip(options[::2], options[1::2], strict=True):
        assert name.startswith("--"), options
        yield name, value


def hub(state, options):
    name = options.get("--hub-name", options.get("--name"))
    if (name, options["--resource-group"]) != (state["hub"]["name"], "iot"):
        sys.exit("(ResourceNotFound) no such hub")
    return state["hub"]


def show(state, options):
    return hub(state, options)


def policies(state, options):
    hub(state, options)
    return state["policies"]


def create_policy(state, options):
    hub(state, options)
    assert options["--permissions"] == "DeviceConnect", options
    key = {"keyName": options["--name"], "rights": options["--permissions"], "primaryKey": "c2VjcmV0"}
    state["policies"].append(key)


def deployments(state, options):
    assert options["--resource-group"] == "bridge"
    return state["deployments"]


def deploy(state, options):
    names = ["STACK_API_KEY", "EXISTING_IOT_HUB_NAME", "IOTHUB_SKU", "IOTHUB_UNITS", "DEVICE_ID_PREFIX", "PACKAGE_URI"]
    outputs = {
        "functionAppName": "tts-iot-hub-b",
        "hubIdentityId": IDENTITY,
        "stackEventsEndpoint": "sb://tts-iot-hub-b.servicebus.windows.net",
        "nextStep": "install the webhook",
    }
    deployment = {
        "name": options["--name"],
        "environment": {name: os.environ.get(name) for name in names},
        "properties": {
            "provisioningState": "Succeeded",
            "outputs": {name: {"value": value} for name, value in outputs.items()},
        },
    }
    state["deployments"] = [deployment]
    # The settings are replaced as a whole.
    settings = {"IOTHUB_HOSTNAME": os.environ["EXISTING_IOT_HUB_NAME"] + ".azure-devices.net"}
    if os.environ.get("DEVICE_ID_PREFIX"):
        settings["DEVICE_ID_PREFIX"] = os.environ["DEVICE_ID_PREFIX"]
    state["apps"][outputs["functionAppName"]] = settings


def apps(state, options):
    assert options["--resource-group"] == "bridge"
    return [{"name": name} for name in state["apps"]]


def settings(state, options):
    assert options["--resource-group"] == "bridge"
    if options["--name"] not in state["apps"]:
        sys.exit("(ResourceNotFound) no such app")
    return [{"name": name, "value": value} for name, value in state["apps"][options["--name"]].items()]


def assign_identity(state, options):
    found = hub(state, options)
    identity = found["identity"] or {"type": "UserAssigned", "userAssignedIdentities": None}
    identity["userAssignedIdentities"] = identity["userAssignedIdentities"] or {}
    identity["userAssignedIdentities"][options["--user-assigned"]] = {}
    found["identity"] = identity


def create_endpoint(state, options):
    found = hub(state, options)
    assert options["--identity"] in found["identity"]["userAssignedIdentities"], "the hub has no such identity"
    # Where the Event Hub is: without them, Azure looks for it beside the hub.
    assert options["--endpoint-resource-group"] == "bridge", options
    assert options["--endpoint-subscription-id"] == IDENTITY.split("/")[2], options
    endpoint = {
        "name": options["--endpoint-name"],
        # As Azure gives it back.
        "endpointUri": options["--endpoint-uri"] + "/",
        "entityPath": options["--entity-path"],
    }
    found["properties"]["routing"]["endpoints"]["eventHubs"].append(endpoint)


def create_route(state, options):
    routing = hub(state, options)["properties"]["routing"]
    endpoints = [endpoint["name"] for endpoint in routing["endpoints"]["eventHubs"]]
    assert options["--endpoint-name"] in endpoints, "the hub has no such endpoint"
    route = {
        "name": options["--route-name"],
        "source": options["--source-type"],
        "condition": options["--condition"],
        "endpointNames": [options["--endpoint-name"]],
        "isEnabled": options["--enabled"] == "true",
    }
    routing["routes"].append(route)


# Each with the options that the real one has (of which the script needs some): Azure/azure-cli
# src/azure-cli/azure/cli/command_modules/{iot,resource,appservice}, Azure/azure-iot-cli-extension azext_iot/iothub/params.py
COMMANDS = {
    "iot hub show": (show, "--name --resource-group"),
    "iot hub policy list": (policies, "--hub-name --resource-group"),
    "iot hub policy create": (create_policy, "--hub-name --resource-group --name --permissions"),
    "deployment group list": (deployments, "--resource-group --filter"),
    "deployment group create": (
        deploy,
        "--resource-group --name --parameters --template-file --template-uri --template-spec --mode --no-wait --what-if",
    ),
    "functionapp list": (apps, "--resource-group"),
    "functionapp config appsettings list": (settings, "--resource-group --name --slot"),
    "iot hub identity assign": (
        assign_identity,
        "--name --resource-group --role --scopes --system-assigned --user-assigned",
    ),
    "iot hub message-endpoint create eventhub": (
        create_endpoint,
        "--hub-name --resource-group --endpoint-name --endpoint-namespace-name --endpoint-policy-name"
        " --endpoint-resource-group --endpoint-subscription-id --endpoint-uri --entity-path --identity"
        " --connection-string",
    ),
    "iot hub message-route create": (
        create_route,
        "--hub-name --resource-group --route-name --endpoint-name --source-type --condition --enabled",
    ),
}


def query(value, text):
    """The part of JMESPath that the script uses: a.b, [a, b], a.b[?c=='d' && e.f=='g'].[h, i[0]], [].[b], a.*[].[b], keys(a || `{}`)."""
    keys = re.fullmatch(r"keys\((\S+) \|\| `\{\}`\)", text)
    if keys:
        return list(path(value, keys[1]) or {})
    if text.startswith("[") and not text.startswith(("[?", "[]")):
        return [path(value, name) for name in text[1:-1].split(", ")]
    rows = re.fullmatch(r"([\w.]*)(\[\]|\.\*\[\]|\[\?(.+)\])\.\[(.+)\]", text)
    if not rows:
        return path(value, text)
    found = path(value, rows[1]) if rows[1] else value
    if rows[3]:
        conditions = [re.fullmatch(r"(\S+)=='(\S+)'", condition).groups() for condition in rows[3].split(" && ")]
        items = [item for item in found if all(path(item, name) == wanted for name, wanted in conditions)]
    elif rows[2] == "[]":
        items = found
    else:
        items = [item for items in found.values() for item in items]
    return [[path(item, column) for column in rows[4].split(", ")] for item in items]


def path(value, text):
    for step in text.split("."):
        name, first = (step[:-3], True) if step.endswith("[0]") else (step, False)
        value = value.get(name) if isinstance(value, dict) else None
        value = value[0] if first and value else value
    return value


def print_tsv(value):
    def text(field):
        return str(field).lower() if isinstance(field, bool) else "" if field is None else str(field)

    for row in value if isinstance(value, list) else [] if value is None else [value]:
        print("\t".join(map(text, row)) if isinstance(row, list) else text(row))


main(sys.argv[1:])
