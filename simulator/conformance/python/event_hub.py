"""One Event Hub of the simulator that only the Python cases use."""

import threading

from azure.eventhub import EventHubConsumerClient, EventHubProducerClient
from harness import HOST, PATIENCE_S

NAME = "dead-letters"
QUICK = {"retry_total": 0}


def producer(run, **options):
    options = {"eventhub_name": NAME, "connection_verify": run.world.ca_file, **QUICK, **options}
    client = EventHubProducerClient.from_connection_string(run.world.events_connection_string(), **options)
    run.after.callback(client.close)
    return client


def consumer(run, group="$Default", **options):
    options = {"eventhub_name": NAME, "connection_verify": run.world.ca_file, **QUICK, **options}
    client = EventHubConsumerClient.from_connection_string(run.world.events_connection_string(), group, **options)
    run.after.callback(client.close)
    return client


def producer_by(run, credential, **options):
    client = EventHubProducerClient(HOST, NAME, credential, connection_verify=run.world.ca_file, **QUICK, **options)
    run.after.callback(client.close)
    return client


def body(event):
    return b"".join(event.body)


class Receiving:
    """A consumer at work in the background. It takes the events of one partition, or of all of them."""

    def __init__(self, run, position="-1", client=None, **options):
        self.events, self.error, self.context, self._changed = [], None, None, threading.Condition()
        self._client = client or consumer(run)
        self._options = {"starting_position": position, **options}
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self):
        options = {"on_error": self._fail, "max_wait_time": 0.2, **self._options}
        try:
            self._client.receive_batch(self._take, **options)
        except Exception as error:  # the thread must not die silently
            self._fail(None, error)

    def _take(self, context, events):
        with self._changed:
            self.context = context
            self.events += [(context.partition_id, event) for event in events]
            self._changed.notify_all()

    def _fail(self, _context, error):
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()

    def attached(self):
        """Waits until it was called back for the first time, with events or without."""
        with self._changed:
            self._changed.wait_for(lambda: self.context or self.error, PATIENCE_S)
            assert self.context, f"not attached: {self.error}"
        return self

    def failed(self):
        """Waits for the error that ends it."""
        with self._changed:
            self._changed.wait_for(lambda: self.error, PATIENCE_S)
            assert self.error, f"no error, but {len(self.events)} events"
            return self.error

    def until(self, count, wanted=lambda event: True):
        """Waits for so many wanted events; gives those with their partitions."""
        found = lambda: [(partition, event) for partition, event in self.events if wanted(event)]
        with self._changed:
            self._changed.wait_for(lambda: len(found()) >= count or self.error, PATIENCE_S)
            assert len(found()) >= count, f"{len(found())} of {count} events; {self.error or 'no error'}"
            return found()


def mark(run):
    """A property that tells the events of a case from all others, and the question for it."""
    marker = run.new_id()
    return {"case": marker}, lambda event: (event.properties or {}).get(b"case") == marker.encode()
