"""Make the captures beside this file: `python -m tests.captures.make_captures`.

One case a file, one message a line, as Twilio sends them; the bad ones are short. The
speech is our own recording, the ids are made up, and the result is always the same.
"""

import json
import re
import wave
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from app import tools
from app.audio import pcm16_to_mulaw
from app.media import Track
from app.wire import twilio

DIRECTORY = Path(__file__).parent
SPEECH = Path(tools.__file__).with_name("speech.wav")
STREAM_SID = "MZ5e1f0c9a7b3d42868f2c6e0d1a9b4c37"
CALL_SID = "CA90b6d2e4f81a4c75b3e7092d5c8f6a1e"
ACCOUNT_SID = "AC3c7f19e05d2b48a6914e8b60f7d2a5c3"
FRAME_BYTES = 160
FRAME_MS = 20
# Where the recording is loud, so that the short captures hold speech and no silence.
SPOKEN = 25

CONNECTED = twilio.connected_message()


def speech_frames() -> list[bytes]:
    """Give the recording as mu-law frames of 20 ms."""
    with wave.open(str(SPEECH)) as recording:
        audio = pcm16_to_mulaw(recording.readframes(recording.getnframes()))
    return [audio[at : at + FRAME_BYTES] for at in range(0, len(audio), FRAME_BYTES)]


def captures() -> dict[str, str]:
    """Give the text of each capture by its file's name."""
    speech = speech_frames()
    spoken = speech[SPOKEN:]
    cases = good_cases(speech, spoken) | order_cases(spoken) | broken_cases(spoken)
    return {
        f"{name}.jsonl": "".join(f"{line}\n" for line in lines) for name, lines in cases.items()
    }


def good_cases(speech: Sequence[bytes], spoken: Sequence[bytes]) -> dict[str, list[str]]:
    """Make whole calls as Twilio sends them."""
    first, second, third = (media(spoken, number) for number in (1, 2, 3))
    both = chain.from_iterable(
        (
            media(spoken, number, seq=2 * number),
            media(spoken[200:], number, seq=2 * number + 1, track=Track.OUTBOUND),
        )
        for number in range(1, 101)
    )
    return {
        "speech": call(*(media(speech, number) for number in range(1, len(speech) + 1))),
        "two_tracks": [CONNECTED, start(tracks=tuple(Track)), *both, stop(202)],
        "dtmf_and_mark": [
            CONNECTED,
            start(),
            first,
            twilio.dtmf_message(STREAM_SID, "1", seq=3),
            renumbered(second, 4),
            twilio.mark_message(STREAM_SID, "greeting", seq=5),
            twilio.dtmf_message(STREAM_SID, "#", seq=6),
            renumbered(third, 7),
            stop(8),
        ],
    }


def order_cases(spoken: Sequence[bytes]) -> dict[str, list[str]]:
    """Make calls whose messages come in an odd order, or with odd numbers."""
    first, second, third, fourth = (media(spoken, number) for number in (1, 2, 3, 4))
    return {
        "no_stop": call(first, second, third)[:-1],
        "media_before_start": [CONNECTED, first, second, start(), third, fourth, stop(6)],
        "second_start": call(first, start("MZ" + 32 * "0", seq=3), renumbered(second, 4)),
        "seq_gap": call(first, second, renumbered(third, 7), renumbered(fourth, 8)),
        "seq_repeat": call(first, second, second, third),
        "seq_jump": call(first, second, renumbered(third, 5003), renumbered(fourth, 5004)),
        "seq_negative": call(first, second, renumbered(third, -1), fourth),
    }


def broken_cases(spoken: Sequence[bytes]) -> dict[str, list[str]]:
    """Make calls with messages that cannot be used among those that can."""
    first, second = media(spoken, 1), media(spoken, 2)
    payload = json.loads(second)["media"]["payload"]
    return {
        "unknown_event": call(first, compact(event="rewind", sequenceNumber="3"), second),
        "broken_json": call(first, second[:90], "Hello?", second[:-1], "{}}", second),
        "truncated_base64": in_order(
            first,
            *(changed(second, payload=payload[:-cut]) for cut in (1, 2, 3, 5)),
            changed(second, payload=payload[:40] + "\n" + payload[40:]),
            changed(second, payload=payload[:40] + "!" + payload[41:]),
            changed(second, payload=""),
            second,
        ),
        "wrong_types": in_order(
            first,
            "[]",
            '"media"',
            "null",
            compact(sequenceNumber="3"),
            compact(event=7),
            compact(event="media", sequenceNumber="3"),
            compact(event="media", sequenceNumber="3", media=[payload]),
            *(changed(second, payload=wrong) for wrong in (None, 5, [payload])),
            *(changed(second, track=wrong) for wrong in ("sideways", 1)),
            # These are odd, and can be used.
            changed(second, track=None, timestamp="2025-06-01T12:00:00Z"),
            changed(second, chunk=2, timestamp=20.0),
            second.replace('"sequenceNumber":"3"', '"sequenceNumber":3'),
            second.replace('"sequenceNumber":"3"', '"sequenceNumber":[]'),
            second,
        ),
    }


def call(*messages: str) -> list[str]:
    """Put the messages between `connected`, `start` and `stop`."""
    seq = json.loads(messages[-1])["sequenceNumber"]
    return [CONNECTED, start(), *messages, stop(int(seq) + 1)]


def in_order(*messages: str) -> list[str]:
    """Make a call in which every message of some form has the next sequence number."""
    seq = iter(range(2, len(messages) + 2))
    return call(
        *(
            re.sub(r'("sequenceNumber":)("?)\d+', rf"\g<1>\g<2>{next(seq)}", message)
            if '"sequenceNumber"' in message
            else message
            for message in messages
        )
    )


def start(
    stream_sid: str = STREAM_SID, *, seq: int = 1, tracks: Sequence[Track] = (Track.INBOUND,)
) -> str:
    """Make `start`."""
    return twilio.start_message(
        stream_sid,
        CALL_SID,
        account_sid=ACCOUNT_SID,
        seq=seq,
        tracks=tracks,
        params={"businessId": "business-1", "plan": "premium"},
    )


def media(
    frames: Sequence[bytes],
    number: int,
    *,
    seq: int | None = None,
    track: Track = Track.INBOUND,
) -> str:
    """Make the message of the frame with this number, counted from 1."""
    return twilio.media_message(
        STREAM_SID,
        frames[number - 1],
        seq=number + 1 if seq is None else seq,
        chunk=number,
        timestamp=(number - 1) * FRAME_MS,
        track=track,
    )


def stop(seq: int) -> str:
    """Make `stop`."""
    return twilio.stop_message(STREAM_SID, CALL_SID, seq=seq, account_sid=ACCOUNT_SID)


def renumbered(message: str, seq: int) -> str:
    """Give the message another sequence number."""
    return compact(**json.loads(message) | {"sequenceNumber": str(seq)})


def changed(message: str, **fields: Any) -> str:
    """Put other fields into a message's `media`."""
    content = json.loads(message)
    return compact(**content | {"media": content["media"] | fields})


def compact(**content: Any) -> str:
    """Write JSON without spaces."""
    return json.dumps(content, separators=(",", ":"))


if __name__ == "__main__":
    for name, text in captures().items():
        (DIRECTORY / name).write_text(text)
