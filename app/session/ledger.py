"""The books of one stream: every media message that came, and what became of it."""

from collections import Counter

from app.events import AudioReceipt, PlaybackReceipt
from app.metrics import Metrics


class Ledger:
    """Count what one stream received and could not use, and draw up its receipt."""

    def __init__(self, metrics: Metrics) -> None:
        self.rejected: Counter[str] = Counter()
        self.duplicates = 0
        self.format_mismatch = 0
        self.unannounced = 0
        self._metrics = metrics

    def reject(self, reason: str) -> None:
        """Count a media message that cannot be used."""
        self.rejected[reason] += 1

    def repeat(self) -> None:
        """Count a media message that came before."""
        self.duplicates += 1

    def mismatch(self) -> None:
        """Count that the audio is not what its `start` declared."""
        self.format_mismatch += 1
        self._metrics.format_mismatches.inc()

    def ignore(self, reason: str) -> None:
        """Count a message that carries no audio and has no effect."""
        self._metrics.ignored.labels(reason).inc()

    def leave_unannounced(self, reason: str) -> None:
        """Count a key or a mark that came too fast to be announced; it carries no audio."""
        self.unannounced += 1
        self.ignore(reason)

    @property
    def unpublishable(self) -> int:
        """Count the media messages that came and are not to be published."""
        return self.rejected.total() + self.duplicates

    def receipt(
        self,
        *,
        accepted: int,
        size: int,
        first_seq: int | None,
        last_seq: int | None,
        published: int,
        dropped: Counter[str],
        missing: int,
        resets: int,
        audio_ms: float,
        wall_ms: int,
        max_lag_ms: int,
        end_reason: str,
        playback: PlaybackReceipt | None = None,
    ) -> AudioReceipt:
        """Draw up the receipt, and add the stream's sums to the process's.

        `accepted` messages of `size` bytes were to be published, and have these
        first and last numbers.
        """
        metrics = self._metrics
        received = accepted + self.unpublishable
        metrics.received.inc(received)
        metrics.duplicates.inc(self.duplicates)
        metrics.carrier_gaps.inc(missing)
        for reason, count in self.rejected.items():
            metrics.rejected.labels(reason).inc(count)
        for reason, count in dropped.items():
            metrics.dropped.labels(reason).inc(count)
        metrics.streams.labels(end_reason).inc()
        return AudioReceipt(
            received=received,
            published=published,
            dropped=dict(dropped),
            rejected=dict(self.rejected),
            duplicates=self.duplicates,
            carrier_gaps=missing,
            seq_resets=resets,
            format_mismatch=self.format_mismatch,
            bytes=size,
            audio_ms=round(audio_ms),
            wall_ms=wall_ms,
            first_seq=first_seq,
            last_seq=last_seq,
            max_lag_ms=max_lag_ms,
            end_reason=end_reason,
            playback=playback,
            unannounced=self.unannounced,
        )
