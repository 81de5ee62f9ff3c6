"""What peers may send, as strategies: real messages, real ones changed, and anything at all."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from app.media import Track
from app.wire import exotel, twilio

Message = str | bytes
STREAM, CALL = "MZ1", "CA1"
# Near each other as a rule, and sometimes nothing that a carrier would write.
NUMBERS = st.integers(0, 30) | st.integers(-2, 1200) | st.sampled_from([2**63 - 1, -(2**63)])
PAYLOADS = st.sampled_from([b"\xff" * 160, b"\x00" * 320, b"\x01\x02", b"\x7f", b""])
DIGITS = st.sampled_from("0123456789*#ABCD")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["1", "-1", "1e3", "NaN", "\x00", "inbound", "MZ1", "\ud800", str(2**64)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
RUBBISH: st.SearchStrategy[Message] = st.one_of(
    st.text(st.characters(codec="utf-8")),
    st.binary(max_size=400),
    JSON.map(json.dumps),
    st.sampled_from(["[" * 50_000, '{"event":' * 10_000, "", " ", "null", "{}", "\ufeff{}"]),
)


def twilio_messages() -> st.SearchStrategy[Message]:
    """Give messages as Twilio writes them, in any order."""
    media = st.builds(
        twilio.media_message,
        st.just(STREAM),
        PAYLOADS,
        seq=NUMBERS,
        chunk=NUMBERS,
        timestamp=NUMBERS,
        track=st.sampled_from(Track),
    )
    return st.one_of(
        media,
        media,
        st.builds(twilio.dtmf_message, st.just(STREAM), DIGITS, seq=NUMBERS),
        st.builds(twilio.mark_message, st.just(STREAM), st.just("mark"), seq=NUMBERS),
        st.builds(twilio.start_message, st.just(STREAM), st.just(CALL), seq=NUMBERS),
        st.just(twilio.connected_message()),
        st.builds(twilio.stop_message, st.just(STREAM), st.just(CALL), seq=NUMBERS),
    )


def exotel_messages() -> st.SearchStrategy[Message]:
    """Give messages as Exotel writes them, in any order."""
    media = st.builds(
        exotel.media_message,
        st.just(STREAM),
        PAYLOADS,
        seq=NUMBERS,
        chunk=NUMBERS,
        timestamp=NUMBERS,
    )
    return st.one_of(
        media,
        media,
        PAYLOADS,
        st.builds(exotel.dtmf_message, st.just(STREAM), DIGITS, seq=NUMBERS),
        st.builds(exotel.mark_message, st.just(STREAM), st.just("mark"), seq=NUMBERS),
        st.builds(exotel.start_message, st.just(STREAM), st.just(CALL), seq=NUMBERS),
        st.just(exotel.connected_message()),
        st.builds(exotel.stop_message, st.just(STREAM), st.just(CALL), seq=NUMBERS),
    )


def client_messages() -> st.SearchStrategy[Message]:
    """Give messages as clients of our own write them, in any order."""
    starts = st.fixed_dictionaries(
        {"event": st.just("start")},
        optional={
            "interaction_id": st.just("int-1"),
            "tenant_id": st.just("b"),
            "sample_rate": st.sampled_from([8000, "16000", 24000]),
            "encoding": st.sampled_from(["pcm16", "mulaw"]),
        },
    ).map(json.dumps)
    return PAYLOADS | PAYLOADS | starts | st.just('{"event":"stop"}')


@st.composite
def changed(draw: st.DrawFn, messages: st.SearchStrategy[Message]) -> Message:
    """Take a real message and change it in one place."""
    message = draw(messages)
    if isinstance(message, bytes) or draw(st.booleans()):
        at = draw(st.integers(0, len(message)))
        until = draw(st.integers(at, min(len(message), at + 20)))
        if isinstance(message, bytes):
            return message[:at] + draw(st.binary(max_size=5)) + message[until:]
        return message[:at] + draw(st.text(max_size=5)) + message[until:]
    fields = json.loads(message)
    container, name = draw(st.sampled_from(list(_places(fields))))
    match draw(st.sampled_from(["replaced", "removed", "doubled"])):
        case "replaced":
            container[name] = draw(JSON)
        case "removed":
            del container[name]
        case "doubled":
            again = f", {json.dumps(name)}: {json.dumps(draw(JSON))}}}"
            return json.dumps(fields).removesuffix("}") + again
    return json.dumps(fields)


@st.composite
def damaged(draw: st.DrawFn, real: Sequence[str]) -> str:
    """Take a real message and cut something out, or put something in."""
    text = draw(st.sampled_from(real))
    at = draw(st.integers(0, len(text)))
    until = draw(st.integers(at, min(len(text), at + 20)))
    characters = st.characters(categories=["L", "N", "P", "S", "Z", "Cc", "Cs"])
    return text[:at] + draw(st.text(characters, max_size=5)) + text[until:]


def _places(container: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for name in container:
        yield container, name
        if isinstance(container[name], dict):
            yield from _places(container[name])


def conversations(
    begins: list[Message], messages: st.SearchStrategy[Message]
) -> st.SearchStrategy[list[Message]]:
    """Give what one peer sends: mostly a real beginning, then anything."""
    anything = st.one_of(messages, messages, changed(messages), RUBBISH)
    beginnings = st.sampled_from([begins, begins, begins, []])
    return st.builds(lambda begin, rest: [*begin, *rest], beginnings, st.lists(anything))
