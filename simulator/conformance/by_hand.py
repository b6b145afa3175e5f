"""The handler started by hand, a webhook posted by hand, the telemetry read with Microsoft's Event Hubs client.

Needs `azure-eventhub` and the release binaries of the workspace. Exit status 0 if the body arrives byte for byte.
"""

import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
BINARIES = HERE.parent.parent / "target" / "release"
PATIENCE_S = 30


def wait_for(path: pathlib.Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.05)
    sys.exit(f"{path.name} was not written within {PATIENCE_S} s")


def post(webhook: dict, body: bytes) -> dict:
    request = urllib.request.Request(webhook["url"], data=body, method="POST")
    for name, value in {"Content-Type": "application/json", **webhook["headers"]}.items():
        request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def read_events(world: dict) -> list[bytes]:
    hubs = world["event_hubs"]
    command = [sys.executable, HERE / "read_built_in_endpoint.py", hubs["connection_string"], hubs["built_in_endpoint"]]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    return [base64.b64decode(json.loads(line)["body"]) for line in output.splitlines()]


def main() -> None:
    # White space and the order of members must survive.
    body = b"""{"received_at":"2026-02-03T04:05:06.7Z" , "end_device_ids":{"application_ids":{"application_id":"APP"},
      "device_id":"by-hand-1"}, "uplink_message":{"f_port":1,"f_cnt":7,"decoded_payload":{"pm2.5":7,"n":1e3}}}"""
    with tempfile.TemporaryDirectory() as folder:
        env_file, json_file = pathlib.Path(folder, "handler.env"), pathlib.Path(folder, "world.json")
        ports = [f"--{name}-port=0" for name in ("mqtt", "hub-https", "stack", "event-hubs", "amqps", "functions", "control")]
        files = [f"--env-file={env_file}", f"--json={json_file}"]
        simulator = subprocess.Popen([BINARIES / "simulator", "run", "--no-handler", *ports, *files], stdout=subprocess.DEVNULL)
        handler = None
        try:
            world = json.loads(wait_for(json_file))
            lines = (line.split("=", 1) for line in wait_for(env_file).splitlines())
            settings = {name: value.strip("'") for name, value in lines}
            handler = subprocess.Popen([BINARIES / "tts-iot-hub", "serve"], env={**os.environ, **settings})
            body = body.replace(b"APP", world["stack"]["application_id"].encode())
            answer = post(world["webhook"], body)
            assert answer["outcome"] == "delivered", answer
            events = read_events(world)
            assert body in events, f"{len(events)} events, none byte-equal to what was posted"
            print("1 passed, 0 failed")
        finally:
            for process in filter(None, (handler, simulator)):
                process.send_signal(signal.SIGTERM)
            for process in filter(None, (handler, simulator)):
                try:
                    process.wait(timeout=PATIENCE_S)
                finally:
                    process.kill()


if __name__ == "__main__":
    main()
