"""Plays the Python cases: main.py WORLD together|alone [TEXT]; a line of JSON per case on standard output."""

import importlib
import json
import os
import sys

from harness import CASES, World, play

TOPICS = [
    "device_connect",
    "device_telemetry",
    "device_twin",
    "device_messages",
    "device_faults",
    "service_registry",
    "service_twin",
    "service_query",
    "service_messages",
    "events_send",
    "events_receive",
    "events_access",
]


def main():
    # Standard output belongs to the rows; whatever a library prints goes to the log.
    rows = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    path, phase, *only = sys.argv[1:]
    world, text = World(path), "".join(only).lower()
    for topic in TOPICS:
        importlib.import_module(topic)
    for case in CASES:
        if case.alone == (phase == "alone") and text in f"{case.package} {case.title}".lower():
            print(f"--- {case.package}: {case.title}", file=sys.stderr, flush=True)
            print(json.dumps(play(case, world)), file=rows, flush=True)
    os._exit(0)  # a library's thread that never ends must not keep the table waiting


if __name__ == "__main__":
    main()
