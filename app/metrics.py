"""What is counted, as Prometheus series of low cardinality: no call ids, no numbers."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

LIVE_STREAMS = "live_streams"
# Seconds. The promise is 20 ms at the 99th percentile; the buffer is 30 s.
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


class SharedFigures(Collector):
    """The figures of several processes: each keeps its own in files of a directory.

    They are there whether their process answers, stands still or was killed, so
    that a scrape asks nobody. Counters and histograms add up over all that ever
    ran: the next process of a slot goes on from its predecessor's. Gauges add up
    over those that run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Add up all series."""
        return self._merged("*.db")

    def gauges(self) -> Iterable[Metric]:
        """Add up the gauges alone."""
        return self._merged("gauge_*.db")

    def forget_gauges(self, slot: int) -> None:
        """Leave out the gauges of a process that has ended."""
        mark_process_dead(slot, str(self._directory))

    def _merged(self, pattern: str) -> Iterable[Metric]:
        files = [str(path) for path in self._directory.glob(pattern)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)
        return merged


class Metrics:
    """Hold every series of one process, in a registry of its own.

    Label values come from closed sets in the code, never from a peer. What is
    read is of the whole service: with `shared`, of all its processes.
    """

    def __init__(self, shared: SharedFigures | None = None) -> None:
        self.registry = CollectorRegistry()
        self._shared = shared
        self.workers = self._gauge("workers", "Processes that run.")
        self.workers.set(1)
        self.worker_starts = self._counter("worker_starts", "Processes that ever began.")
        self.worker_starts.inc()
        self.calls = self._counter("calls", "Webhook calls by outcome.", "outcome")
        self.streams = self._counter("streams", "Media streams by how they ended.", "end_reason")
        self.reaped = self._counter("streams_reaped", "Streams ended for a replica that died.")
        self.refused = self._counter("streams_refused", "Sockets refused, by reason.", "reason")
        self.sockets_closed = self._counter(
            "sockets_closed", "Sockets closed or not opened for what peers did.", "reason"
        )
        self.failed_credentials = self._counter(
            "failed_credentials",
            "Failed credentials by way in: refused after a comparison, or limited.",
            "way",
            "outcome",
        )
        self.received = self._counter("frames_received", "Carrier media messages received.")
        self.published = self._counter("frames_published", "Carrier media messages published.")
        self.dropped = self._counter("frames_dropped", "Media messages dropped.", "reason")
        self.rejected = self._counter("frames_rejected", "Media messages rejected.", "reason")
        self.duplicates = self._counter("frames_duplicate", "Media messages sent twice.")
        self.carrier_gaps = self._counter("frames_missing", "Messages the carrier never sent.")
        self.captured = self._counter(
            "capture_messages", "Messages of calls that are recorded at the wire.", "done"
        )
        self.format_mismatches = self._counter(
            "format_mismatches", "Streams whose audio is not what they declared."
        )
        self.ignored = self._counter("messages_ignored", "Messages without effect.", "reason")
        self.broker_errors = self._counter("broker_errors", "Failed writes.", "kind")
        self.broker_forgot = self._counter(
            "broker_forgot", "Confirmed frames that another server then lacked.", "done"
        )
        self.events_dropped = self._counter(
            "events_dropped", "Lifecycle events dropped, since too many waited.", "event"
        )
        self.store_errors = self._counter("store_errors", "Failed look-ups and slots.")
        self.local_decisions = self._counter(
            "local_decisions", "Slots and tickets decided without the store.", "kind"
        )
        self.usage_lost = self._counter(
            "usage_lost", "Calls and streams the store was away for too long to count."
        )
        self.usage_notices = self._counter(
            "usage_notices",
            "Notices of reached limits to businesses, by what came of them.",
            "outcome",
        )
        self.twilio_requests = self._counter(
            "twilio_requests", "Requests to Twilio's REST API.", "what", "outcome"
        )
        self.commands = self._counter(
            "commands",
            "Commands of workers to live calls, by what came of them.",
            "command",
            "outcome",
        )
        self.playback_seconds = self._counter(
            "playback_seconds", "Audio of workers for callers, by what became of it.", "fate"
        )
        self.old_tokens = self._counter("old_auth_token", "Signatures made with an older token.")
        self.live_streams = self._gauge(LIVE_STREAMS, "Streams live now.")
        self.queued_bytes = self._gauge("queued_bytes", "Audio waiting for the broker.")
        self.draining = self._gauge("draining", "Processes that drain.")
        self.tasks = self._gauge("tasks", "Tasks of the event loop.")
        self.open_files = self._gauge("open_files", "Files, sockets and pipes that are open.")
        self.lag = Histogram(
            "bridge_publish_lag_seconds",
            "From a frame's arrival to the broker's reply, the longest of each batch.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )

    @classmethod
    def of_worker(cls, directory: Path, slot: int) -> Self:
        """Make the metrics of one of several processes, which share `directory`.

        Once in a process, and before any other: prometheus_client then keeps all
        figures of this process in files. No two processes have the same slot.
        """
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
        values.ValueClass = values.MultiProcessValue(lambda: slot)
        return cls(SharedFigures(directory))

    def exposition(self) -> bytes:
        """Render every series in Prometheus' text format 0.0.4."""
        return generate_latest(self._shared or self.registry)

    def live_total(self) -> int:
        """Count the streams that are live in the whole service."""
        families = self._shared.gauges() if self._shared else self.live_streams.collect()
        return sum(
            int(sample.value)
            for family in families
            if family.name == f"bridge_{LIVE_STREAMS}"
            for sample in family.samples
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"bridge_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"bridge_{name}", text, registry=self.registry, multiprocess_mode="livesum")
