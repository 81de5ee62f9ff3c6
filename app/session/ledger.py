"""The books of one stream: every media message that came, and what became of it."""

from collections import Counter

from app.events import AudioReceipt
from app.metrics import Metrics


class Ledger:
    """Count what one stream received, and draw up its receipt."""

    def __init__(self, metrics: Metrics) -> None:
        self.received = 0
        self.rejected: Counter[str] = Counter()
        self.duplicates = 0
        self.bytes = 0
        self.format_mismatch = 0
        self.first_seq: int | None = None
        self.last_seq: int | None = None
        self._metrics = metrics

    def accept(self, seq: int, size: int) -> None:
        """Count a media message that will be published."""
        self.received += 1
        self.bytes += size
        if self.first_seq is None:
            self.first_seq = seq
        self.last_seq = seq

    def reject(self, reason: str) -> None:
        """Count a media message that cannot be used."""
        self.received += 1
        self.rejected[reason] += 1

    def repeat(self) -> None:
        """Count a media message that came before."""
        self.received += 1
        self.duplicates += 1

    def mismatch(self) -> None:
        """Count that the audio is not what its `start` declared."""
        self.format_mismatch += 1
        self._metrics.format_mismatches.inc()

    def ignore(self, reason: str) -> None:
        """Count a message that carries no audio and has no effect."""
        self._metrics.ignored.labels(reason).inc()

    def receipt(
        self,
        *,
        published: int,
        dropped: Counter[str],
        missing: int,
        resets: int,
        audio_ms: float,
        wall_ms: int,
        max_lag_ms: int,
        end_reason: str,
    ) -> AudioReceipt:
        """Draw up the receipt, and add the stream's sums to the process's."""
        metrics = self._metrics
        metrics.received.inc(self.received)
        metrics.duplicates.inc(self.duplicates)
        metrics.carrier_gaps.inc(missing)
        for reason, count in self.rejected.items():
            metrics.rejected.labels(reason).inc(count)
        for reason, count in dropped.items():
            metrics.dropped.labels(reason).inc(count)
        metrics.streams.labels(end_reason).inc()
        return AudioReceipt(
            received=self.received,
            published=published,
            dropped=dict(dropped),
            rejected=dict(self.rejected),
            duplicates=self.duplicates,
            carrier_gaps=missing,
            seq_resets=resets,
            format_mismatch=self.format_mismatch,
            bytes=self.bytes,
            audio_ms=round(audio_ms),
            wall_ms=wall_ms,
            first_seq=self.first_seq,
            last_seq=self.last_seq,
            max_lag_ms=max_lag_ms,
            end_reason=end_reason,
        )
