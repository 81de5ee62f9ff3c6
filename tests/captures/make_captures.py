"""Make the captures beside this file: `python -m tests.captures.make_captures`.

One case a file, one message a line, as Twilio sends them, or Exotel where the file's name
says so; the bad ones are short. The speech is our own recording, the ids are made up, and
the result is always the same.
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
from app.wire import exotel, twilio

DIRECTORY = Path(__file__).parent
SPEECH = Path(tools.__file__).with_name("speech.wav")
STREAM_SID = "MZ5e1f0c9a7b3d42868f2c6e0d1a9b4c37"
CALL_SID = "CA90b6d2e4f81a4c75b3e7092d5c8f6a1e"
ACCOUNT_SID = "AC3c7f19e05d2b48a6914e8b60f7d2a5c3"
FRAME_BYTES = 160
FRAME_MS = 20
# Where the recording is loud, so that the short captures hold speech and no silence.
SPOKEN = 25

EXOTEL_STREAM = "f3b1c2d4e5a60718293a4b5c6d7e8f90"
EXOTEL_CALL = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
EXOTEL_ACCOUNT = "example1m"
EXOTEL_FRAME_BYTES = 1600
EXOTEL_FRAME_MS = 100

CONNECTED = twilio.connected_message()


def speech_frames() -> list[bytes]:
    """Give the recording as mu-law frames of 20 ms."""
    audio = pcm16_to_mulaw(recording())
    return [audio[at : at + FRAME_BYTES] for at in range(0, len(audio), FRAME_BYTES)]


def exotel_frames() -> list[bytes]:
    """Give the recording as PCM16 frames of 100 ms."""
    audio = recording()
    return [audio[at : at + EXOTEL_FRAME_BYTES] for at in range(0, len(audio), EXOTEL_FRAME_BYTES)]


def recording() -> bytes:
    """Give the recording as PCM16 at 8 kHz."""
    with wave.open(str(SPEECH)) as speech:
        audio: bytes = speech.readframes(speech.getnframes())
    return audio


def captures() -> dict[str, str]:
    """Give the text of each capture by its file's name."""
    speech = speech_frames()
    spoken = speech[SPOKEN:]
    cases = good_cases(speech, spoken) | order_cases(spoken) | broken_cases(spoken)
    cases |= {f"exotel_{name}": lines for name, lines in exotel_cases(exotel_frames()).items()}
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


def exotel_cases(speech: Sequence[bytes]) -> dict[str, list[str]]:
    """Make calls as Exotel's pages, and its samples that differ, send them."""
    spoken = speech[SPOKEN * FRAME_MS // EXOTEL_FRAME_MS :]
    first, second, third = (exotel_media(spoken, number) for number in (1, 2, 3))
    payload = json.loads(second)["media"]["payload"]
    # The beta page took over Twilio's `media`: mu-law, with a track.
    mulaw = json.loads(media(speech_frames()[SPOKEN:], 1))["media"]
    return {
        "speech": exotel_call(*(exotel_media(speech, n) for n in range(1, len(speech) + 1))),
        "dtmf_and_mark": exotel_call(
            first,
            exotel.dtmf_message(EXOTEL_STREAM, "5", seq=3),
            exotel.mark_message(EXOTEL_STREAM, "my-label", seq=4),
            compact(event="clear", sequence_number="5", stream_sid=EXOTEL_STREAM),
        ),
        "camel_case": [camel_case(line) for line in exotel_call(first, second)],
        "flat": [flat(line) for line in exotel_call(first, second)],
        "beta": [
            compact(event="connected", custom_parameters={"agent": "7"}),
            compact(
                event="start",
                stream_sid=EXOTEL_STREAM,
                start={"call_sid": EXOTEL_CALL, "media_format": "audio/x-mulaw;rate=8000"},
            ),
            compact(event="media", media=mulaw),
            compact(event="silence"),
            compact(event="dtmf", digit="5"),
            compact(event="closed"),
        ],
        "media_before_start": [
            exotel.connected_message(),
            first,
            *exotel_call(second, third)[1:],
        ],
        "broken_media": exotel_call(
            first,
            changed(second, payload=payload[:-5]),
            changed(second, payload=""),
            changed(second, payload=payload[:-4]),
            changed(second, payload=None),
            changed(second, track="sideways"),
            # This is odd, and can be used.
            changed(second, timestamp="2025-06-01T12:00:00Z"),
        ),
        "numbers": exotel_call(
            first,
            *(
                compact(**json.loads(second) | {"sequence_number": number})
                for number in (3, "3", "9", "2", -1, "-7", 5000, 2**70, None)
            ),
        ),
    }


def exotel_call(*messages: str) -> list[str]:
    """Put the messages between Exotel's `connected`, `start` and `stop`."""
    start = exotel.start_message(
        EXOTEL_STREAM,
        EXOTEL_CALL,
        account_sid=EXOTEL_ACCOUNT,
        from_number="+919876500001",
        to_number="+918047400002",
        params={"agent": "7"},
    )
    stop = exotel.stop_message(
        EXOTEL_STREAM, EXOTEL_CALL, seq=len(messages) + 2, account_sid=EXOTEL_ACCOUNT
    )
    return [exotel.connected_message(), start, *messages, stop]


def exotel_media(frames: Sequence[bytes], number: int) -> str:
    """Make Exotel's message of the frame with this number, counted from 1."""
    return exotel.media_message(
        EXOTEL_STREAM,
        frames[number - 1],
        seq=number + 1,
        chunk=number,
        timestamp=(number - 1) * EXOTEL_FRAME_MS,
    )


def camel_case(message: str) -> str:
    """Write a message's keys as `streamSid` where they are `stream_sid`."""
    keys = re.compile(r'"[a-z_]+":')
    return keys.sub(lambda key: re.sub(r"_(.)", lambda part: part[1].upper(), key[0]), message)


def flat(message: str) -> str:
    """Put the fields of a message's body beside its event."""
    content = json.loads(message)
    return compact(**content | content.pop(content["event"], {}))


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
