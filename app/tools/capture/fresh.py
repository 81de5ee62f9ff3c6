"""A captured call made a new one: ids that nobody has used, and what its `start` is to say."""

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from app.log import HIDDEN
from app.tools.capture.load import Capture

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class FreshCall:
    """Ids of a call to be placed; of an own client's, `call_sid` is the interaction's."""

    call_sid: str
    stream_sid: str
    account_sid: str


def fresh_call(capture: Capture) -> FreshCall:
    """Make up ids in the form of the capture's carrier."""
    call, stream, account = (secrets.token_hex(16) for _ in range(3))
    match capture.carrier:
        case "twilio":
            return FreshCall(f"CA{call}", f"MZ{stream}", f"AC{account}")
        case "exotel":
            return FreshCall(call, stream, account)
        case "client":
            return FreshCall(f"replay-{call}", "", "")


def start_message(
    capture: Capture, call: FreshCall, params: Mapping[str, str], **others: str
) -> str:
    """Write the capture's `start` anew.

    It has the call's ids, an account that is nobody's (so that no other call of the
    captured account can be meant), the capture's custom parameters with `params` in
    place of those of the same name, and `others` in place of fields of these names.
    What was hidden of the parameters is left out.
    """
    fields = dict(capture.fields)
    body = fields.get("start")
    inner: dict[str, Any] = dict(body) if isinstance(body, dict) else fields
    if body is not None and inner is not fields:
        fields["start"] = inner
    ids = {
        ("streamSid", "stream_sid"): call.stream_sid,
        ("callSid", "call_sid", "interaction_id"): call.call_sid,
        ("accountSid", "account_sid"): call.account_sid,
    }
    for names, value in ids.items():
        for place in (fields, inner):
            for name in names:
                if name in place and value:
                    place[name] = value
    spelling = "customParameters" if capture.carrier == "twilio" else "custom_parameters"
    spelling = "customParameters" if "customParameters" in inner else spelling
    own = inner.get(spelling)
    kept = {k: v for k, v in own.items() if v != HIDDEN} if isinstance(own, dict) else {}
    if capture.carrier != "client" and (kept or params or isinstance(own, dict)):
        inner[spelling] = kept | dict(params)
    for name, value in others.items():
        inner[name] = value
    return _encode(fields).decode()


def fresh_messages(capture: Capture, call: FreshCall, start: str | None) -> Iterator[str | bytes]:
    """Give the capture's messages as those of another call; `start` in its own one's place."""
    names = {
        capture.value("streamSid", "stream_sid"): call.stream_sid,
        capture.value("callSid", "call_sid", "interaction_id"): call.call_sid,
    }
    known = {f'"{old}"': f'"{new}"' for old, new in names.items() if old and new}
    ids = re.compile("|".join(map(re.escape, known)) or r"(?!)")
    for index, one in enumerate(capture.messages):
        if index == capture.start and start is not None:
            yield start
        elif isinstance(one.message, bytes):
            yield one.message
        else:
            yield ids.sub(lambda found: known[found[0]], one.message)
