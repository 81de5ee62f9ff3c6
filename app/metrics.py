"""What is counted, as Prometheus series of low cardinality: no call ids, no numbers."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# Seconds. The promise is 20 ms at the 99th percentile; the buffer is 30 s.
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


class Metrics:
    """Hold every series of one process, in a registry of its own.

    Label values come from closed sets in the code, never from a peer.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = self._counter("calls", "Webhook calls by outcome.", "outcome")
        self.streams = self._counter("streams", "Media streams by how they ended.", "end_reason")
        self.refused = self._counter("streams_refused", "Sockets refused, by reason.", "reason")
        self.sockets_closed = self._counter(
            "sockets_closed", "Sockets closed or not opened for what peers did.", "reason"
        )
        self.received = self._counter("frames_received", "Carrier media messages received.")
        self.published = self._counter("frames_published", "Carrier media messages published.")
        self.dropped = self._counter("frames_dropped", "Media messages dropped.", "reason")
        self.rejected = self._counter("frames_rejected", "Media messages rejected.", "reason")
        self.duplicates = self._counter("frames_duplicate", "Media messages sent twice.")
        self.carrier_gaps = self._counter("frames_missing", "Messages the carrier never sent.")
        self.format_mismatches = self._counter(
            "format_mismatches", "Streams whose audio is not what they declared."
        )
        self.ignored = self._counter("messages_ignored", "Messages without effect.", "reason")
        self.broker_errors = self._counter("broker_errors", "Failed writes.", "kind")
        self.store_errors = self._counter("store_errors", "Failed look-ups and slots.")
        self.local_decisions = self._counter(
            "local_decisions", "Slots and tickets decided without the store.", "kind"
        )
        self.old_tokens = self._counter("old_auth_token", "Signatures made with an older token.")
        self.live_streams = Gauge(
            "bridge_live_streams", "Streams live now.", registry=self.registry
        )
        self.queued_bytes = Gauge(
            "bridge_queued_bytes", "Audio waiting for the broker.", registry=self.registry
        )
        self.draining = Gauge("bridge_draining", "1 while draining.", registry=self.registry)
        self.lag = Histogram(
            "bridge_publish_lag_seconds",
            "From a frame's arrival to the broker's reply, the longest of each batch.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"bridge_{name}", text, labels, registry=self.registry)

    def exposition(self) -> bytes:
        """Render every series in Prometheus' text format 0.0.4."""
        return generate_latest(self.registry)
