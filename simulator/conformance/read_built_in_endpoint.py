#!/usr/bin/env python3
"""Reads all events of an Event Hub with Microsoft's library and prints one JSON line per event.

    pip install azure-eventhub
    read_built_in_endpoint.py CONNECTION_STRING EVENT_HUB [--seconds 5] [--count N] [--consumer-group $Default]

A connection string with UseDevelopmentEmulator=true is reached without TLS on the port of its endpoint.
Ends after the given time, or as soon as N events have been read.
"""

import argparse
import base64
import json
import sys
import threading
from datetime import datetime
from uuid import UUID

from azure.eventhub import EventHubConsumerClient

try:
    # The library sets every TCP option to the value it just read. On loopback the segment size reads as 32768, and Linux
    # takes 32767 at most (EINVAL), so the library cannot connect to this machine unless that option is left alone.
    from azure.eventhub._pyamqp._platform import KNOWN_TCP_OPTS

    KNOWN_TCP_OPTS.discard("TCP_MAXSEG")
except ImportError:
    pass


def plain(value):
    """A value as JSON can hold it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    return value


def mapping(values):
    return {plain(key): plain(value) for key, value in (values or {}).items()}


def line(partition, event):
    body = b"".join(event.body) if not isinstance(event.body, (bytes, str)) else event.body
    body = body.encode() if isinstance(body, str) else body
    return json.dumps(
        {
            "partition": partition,
            "body": base64.b64encode(body).decode("ascii"),
            "properties": mapping(event.properties),
            "system": mapping(event.system_properties),
        },
        sort_keys=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("connection_string")
    parser.add_argument("event_hub")
    parser.add_argument("--consumer-group", default="$Default")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--count", type=int, default=0, help="end after so many events")
    args = parser.parse_args()

    client = EventHubConsumerClient.from_connection_string(
        args.connection_string,
        args.consumer_group,
        eventhub_name=args.event_hub,
        retry_total=0,
    )
    done, lock = threading.Event(), threading.Lock()
    seen, errors = [], []

    def on_event_batch(context, events):
        with lock:
            for event in events:
                print(line(context.partition_id, event), flush=True)
                seen.append(None)
            if args.count and len(seen) >= args.count:
                done.set()

    def on_error(context, error):
        errors.append(error)
        done.set()

    def receive():
        try:
            # Batches: one event at a time, the library waits 0.2 s for the empty partitions between any two.
            client.receive_batch(on_event_batch, max_batch_size=300, on_error=on_error, starting_position="-1")
        except Exception as error:  # the thread must not die silently
            on_error(None, error)

    receiving = threading.Thread(target=receive, daemon=True)
    receiving.start()
    done.wait(args.seconds)
    client.close()
    receiving.join(5)
    for error in errors:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 1 if errors or (args.count and len(seen) < args.count) else 0


if __name__ == "__main__":
    sys.exit(main())
