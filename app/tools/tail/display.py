"""What a tail shows: lines, JSON for pipes, or meters that are drawn anew on a terminal.

Phone numbers are masked as the log masks them; the digits of callers are not shown.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TextIO

import msgspec

from app.consumer import Call, Gap
from app.events import LifecycleEvent
from app.log import safe
from app.tools.tail.meter import Meter
from app.tools.terminal import escaped, write_control

Mask = Callable[[str], str]

_NUMBERS: Final = frozenset({"from", "to"})
_BAR_WIDTH: Final = 20
_QUIETEST_DB: Final = -60.0
# Of what an event says, so much is shown on a line.
_MAX_SAID: Final = 160


class Display(Protocol):
    """Show what happens in calls."""

    def event(self, event: LifecycleEvent) -> None:
        """Show a lifecycle event."""

    def gap(self, call: Call, gap: Gap) -> None:
        """Show that audio is missing."""

    def meters(self, meters: Sequence[Meter]) -> None:
        """Show how the calls that are live get on."""

    def close(self) -> None:
        """Leave the terminal in order."""


class JsonLines:
    """One JSON object a line."""

    def __init__(self, out: TextIO, mask: Mask) -> None:
        self._out = out
        self._mask = mask

    def event(self, event: LifecycleEvent) -> None:
        """Write an event, with all that it says."""
        call = event.call
        self._write(
            event=event.name,
            at=event.at,
            call_sid=call.call_sid,
            stream_sid=call.stream_sid,
            business_id=call.business_id,
            carrier=call.carrier,
            data=_said(event, self._mask),
        )

    def gap(self, call: Call, gap: Gap) -> None:
        """Write a gap."""
        self._write(
            **{"event": "gap", **_whose(call), "at_ms": gap.ts, "track": gap.track},
            frames=gap.frames,
            reason=gap.reason,
        )

    def meters(self, meters: Sequence[Meter]) -> None:
        """Write a meter for each call."""
        for meter in meters:
            self._write(
                **{"event": "meter", **_whose(meter.call), "at_ms": meter.at_ms},
                frames=meter.frames,
                missing=meter.missing,
                levels=meter.shown(),
            )

    def close(self) -> None:
        """Do nothing."""

    def _write(self, **said: Any) -> None:
        self._out.write(escaped(msgspec.json.encode(said).decode()) + "\n")
        self._out.flush()


class Lines:
    """Plain lines, for what is no terminal."""

    def __init__(self, out: TextIO, mask: Mask) -> None:
        self._out = out
        self._mask = mask

    def event(self, event: LifecycleEvent) -> None:
        """Write an event."""
        self._write(event_line(event, self._mask))

    def gap(self, call: Call, gap: Gap) -> None:
        """Write a gap."""
        self._write(gap_line(call, gap))

    def meters(self, meters: Sequence[Meter]) -> None:
        """Write a line for each call."""
        for meter in meters:
            self._write(meter_line(meter))

    def close(self) -> None:
        """Do nothing."""

    def _write(self, line: str) -> None:
        self._out.write(escaped(line) + "\n")
        self._out.flush()


class Screen:
    """Events scroll by; below them, the meters are drawn anew in place."""

    def __init__(self, out: TextIO, mask: Mask) -> None:
        self._out = out
        self._mask = mask
        self._drawn: list[str] = []

    def event(self, event: LifecycleEvent) -> None:
        """Let an event scroll by."""
        self._draw(self._drawn, event_line(event, self._mask))

    def gap(self, call: Call, gap: Gap) -> None:
        """Let a gap scroll by."""
        self._draw(self._drawn, gap_line(call, gap))

    def meters(self, meters: Sequence[Meter]) -> None:
        """Draw the meters anew; as many as there is room for."""
        room = max(1, shutil.get_terminal_size().lines - 2)
        lines = [meter_line(meter) for meter in meters]
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… and {len(lines) - room + 1} more calls"]
        self._draw(lines)

    def close(self) -> None:
        """Take the meters away."""
        self._draw([])

    def _draw(self, lines: list[str], *above: str) -> None:
        # ECMA-48: CUU, cursor up; ED, erase to the end of the screen.
        up = f"\033[{len(self._drawn)}A" if self._drawn else ""
        width = max(20, shutil.get_terminal_size().columns - 1)
        text = "".join(f"{escaped(line)[:width]}\n" for line in (*above, *lines))
        write_control(self._out, f"{up}\r\033[J")
        self._out.write(text)
        self._out.flush()
        self._drawn = lines


def event_line(event: LifecycleEvent, mask: Mask) -> str:
    """Write an event as one line."""
    at = datetime.fromtimestamp(event.at / 1000, UTC).strftime("%H:%M:%S")
    said = " ".join(f"{name}={_short(value)}" for name, value in _said(event, mask).items())
    whose = " ".join(filter(None, (event.call.call_sid, event.call.business_id)))
    return f"{at} {event.name:<15} {safe(whose)} {safe(said, _MAX_SAID)}".rstrip()


def gap_line(call: Call, gap: Gap) -> str:
    """Write a gap as one line."""
    return f"{_clock(gap.ts)} {call.call_sid} {gap.frames} frames are missing: {safe(gap.reason)}"


def meter_line(meter: Meter) -> str:
    """Write a meter as one line."""
    tracks = (f"{track} {_bar(level)} {level:5.1f} dB" for track, level in meter.shown().items())
    missing = f"  {meter.missing} missing" if meter.missing else ""
    return f"{_clock(meter.at_ms)} {meter.call.call_sid}  {'  '.join(tracks)}{missing}"


def _clock(ms: int) -> str:
    minutes, seconds = divmod(max(0, ms) // 1000, 60)
    return f"{minutes:3}:{seconds:02}"


def _bar(level: float) -> str:
    share = max(0.0, 1 - level / _QUIETEST_DB)
    return "#" * round(share * _BAR_WIDTH) + "." * (_BAR_WIDTH - round(share * _BAR_WIDTH))


def _said(event: LifecycleEvent, mask: Mask) -> dict[str, Any]:
    return {
        name: mask(str(value)) if name in _NUMBERS else value
        for name, value in event.data.items()
        if name != "digit"
    }


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "end_reason" in value:  # a receipt
        return f"{value['end_reason']}, {value.get('published')} of {value.get('received')} frames"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _whose(call: Call) -> dict[str, str]:
    return {
        "call_sid": call.call_sid,
        "stream_sid": call.stream_sid,
        "business_id": call.business_id,
    }
