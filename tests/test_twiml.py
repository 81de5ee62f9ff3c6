"""What Twilio is told, parsed as Twilio parses it."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import twiml
from app.twiml import StreamInstruction

STREAM = StreamInstruction(
    url="wss://bridge.example.com/twilio-media",
    name="media-bridge",
    both_tracks=False,
    status_callback="https://bridge.example.com/twilio-stream-status?businessId=b-1&x=y",
    parameters=(("businessId", "b-1"), ("callSid", "CA1"), ("from", "+12763659195")),
)
# What was sent, and what XML can carry of it.
HOSTILE = [
    ('"><Hangup/>', '"><Hangup/>'),
    ("a & b &amp; c", "a & b &amp; c"),
    ("👋 Grüß", "👋 Grüß"),
    ("nul\x00 bell\x07", "nul bell"),
    ("\ud800lone", "lone"),
    ("]]>", "]]>"),
    ("\ufffe", ""),
]

Verb = tuple[str, dict[str, str], str, list["Verb"]]


def parsed(document: str) -> list[Verb]:
    """Check a document's frame, and give its verbs as (name, attributes, text, children)."""
    assert document.startswith('<?xml version="1.0" encoding="UTF-8"?><Response')
    root = ElementTree.fromstring(document.encode("utf-8"))
    assert (root.tag, root.attrib) == ("Response", {})
    return _children(root)


def _children(element: ElementTree.Element) -> list[Verb]:
    return [(verb.tag, verb.attrib, verb.text or "", _children(verb)) for verb in element]


def say(text: str) -> Verb:
    return ("Say", {}, text, [])


HANGUP: Verb = ("Hangup", {}, "", [])


def stream(track: str = "") -> Verb:
    attributes = {
        "url": STREAM.url,
        "name": STREAM.name,
        "statusCallback": STREAM.status_callback,
    }
    if track:
        attributes["track"] = track
    parameters: list[Verb] = [
        ("Parameter", {"name": name, "value": value}, "", []) for name, value in STREAM.parameters
    ]
    return ("Stream", attributes, "", parameters)


# ---------------------------------------------------------------------- connect


def test_a_connected_stream_is_greeted_before_and_excused_after() -> None:
    assert parsed(twiml.connect_stream(STREAM, ["Hello.", "We record."], "Sorry.")) == [
        say("Hello."),
        say("We record."),
        ("Connect", {}, "", [stream()]),
        say("Sorry."),
        HANGUP,
    ]


def test_sentences_that_are_empty_are_not_said() -> None:
    assert parsed(twiml.connect_stream(STREAM, ["", " "], " ")) == [
        ("Connect", {}, "", [stream()]),
        HANGUP,
    ]


def test_a_connected_stream_never_asks_for_both_tracks() -> None:
    # Twilio answers anything but the inbound track with error 31941.
    document = twiml.connect_stream(replace(STREAM, both_tracks=True), [], "")
    assert parsed(document)[0] == ("Connect", {}, "", [stream()])


def test_without_a_status_callback_none_is_asked_for() -> None:
    document = twiml.connect_stream(replace(STREAM, status_callback=""), [], "")
    (_, _, _, [(_, attributes, _, _)]) = parsed(document)[0]
    assert attributes == {"url": STREAM.url, "name": STREAM.name}


# ---------------------------------------------------------------------- forward


def test_a_forwarded_call_is_streamed_beside() -> None:
    document = twiml.forward_with_stream(
        replace(STREAM, both_tracks=True),
        before_stream=["Hello.", "We record."],
        forward_to="+15005550006",
        action_url="https://bridge.example.com/twilio-dial?businessId=b-1",
        time_limit=3600,
    )
    assert parsed(document) == [
        say("Hello."),
        say("We record."),
        ("Start", {}, "", [stream("both_tracks")]),
        (
            "Dial",
            {
                "action": "https://bridge.example.com/twilio-dial?businessId=b-1",
                "timeLimit": "3600",
            },
            "",
            [("Number", {}, "+15005550006", [])],
        ),
    ]


def test_a_plan_of_one_track_streams_the_callers() -> None:
    document = twiml.forward_with_stream(STREAM, [], "+15005550006", "https://h/d", 60)
    assert parsed(document)[0] == ("Start", {}, "", [stream("inbound_track")])


@pytest.mark.parametrize("address", ["sip:desk@example.com;a=b&c=d", "sips:desk@example.com"])
def test_a_sip_address_is_dialled_as_one(address: str) -> None:
    document = twiml.forward_with_stream(None, [], address, "https://h/d", 60, "+12763659195")
    assert parsed(document) == [
        (
            "Dial",
            {"action": "https://h/d", "timeLimit": "60", "callerId": "+12763659195"},
            "",
            [("Sip", {}, address, [])],
        )
    ]


# ---------------------------------------------------------------------- refusals


def test_a_busy_business_rejects_the_call() -> None:
    assert parsed(twiml.reject_busy()) == [("Reject", {"reason": "busy"}, "", [])]


def test_a_busy_business_may_say_so_itself() -> None:
    assert parsed(twiml.reject_busy("We are at lunch.")) == [say("We are at lunch."), HANGUP]


def test_an_unknown_number_and_a_service_that_is_away_are_said_politely() -> None:
    assert parsed(twiml.unknown_number()) == [say(twiml.UNKNOWN_NUMBER), HANGUP]
    assert parsed(twiml.unavailable()) == [say(twiml.UNAVAILABLE), HANGUP]


@pytest.mark.parametrize("status", ["completed", "answered", "canceled"])
def test_after_a_conversation_nothing_is_said(status: str) -> None:
    assert parsed(twiml.dial_outcome(status, "Nobody is here.")) == [HANGUP]


@pytest.mark.parametrize("status", ["busy", "no-answer", "failed", "", "<odd>"])
def test_a_call_that_nobody_took_is_excused(status: str) -> None:
    assert parsed(twiml.dial_outcome(status, "Nobody is here.")) == [
        say("Nobody is here."),
        HANGUP,
    ]
    assert parsed(twiml.dial_outcome(status, "")) == [HANGUP]


# ---------------------------------------------------------------- hostile text


@pytest.mark.parametrize(("text", "heard"), HOSTILE)
def test_hostile_text_stays_text(text: str, heard: str) -> None:
    words = [say(heard)] if heard else []
    kept: list[Verb] = [("Parameter", {"name": "from", "value": heard}, "", [])] if heard else []
    document = twiml.connect_stream(replace(STREAM, parameters=(("from", text),)), [text], text)
    *greeting, (_, _, _, [(_, _, _, parameters)]) = parsed(document)[: len(words) + 1]
    assert greeting == words
    assert parameters == kept
    assert parsed(document)[len(words) + 1 :] == [*words, HANGUP]
    assert parsed(twiml.reject_busy(text)) == [*words, HANGUP]


@given(st.text(st.characters()), st.text(st.characters()))
def test_no_text_breaks_a_document(name: str, text: str) -> None:
    instruction = replace(STREAM, name=text, parameters=((name, text), ("ticket", "t")))
    verbs = [verb[0] for verb in parsed(twiml.connect_stream(instruction, [text], "Sorry."))]
    assert verbs[-3:] == ["Connect", "Say", "Hangup"]
    forwarded = parsed(twiml.forward_with_stream(instruction, [text], text, "https://h/d", 9, text))
    assert [verb[0] for verb in forwarded][-2:] == ["Start", "Dial"]
    parsed(twiml.dial_outcome(text, text))
    parsed(twiml.reject_busy(text))


@pytest.mark.parametrize(("length", "kept"), [(489, True), (490, False), (100_000, False)])
def test_a_parameter_that_is_too_long_is_left_out(length: int, kept: bool) -> None:
    # 10 characters of name: "under 500" together.
    long = ("callerName", "x" * length)
    document = twiml.connect_stream(replace(STREAM, parameters=(long, ("plan", "p"))), [], "")
    (_, _, _, [(_, _, _, parameters)]) = parsed(document)[0]
    names = [attributes["name"] for _, attributes, _, _ in parameters]
    assert names == (["callerName", "plan"] if kept else ["plan"])


def test_an_empty_parameter_is_left_out() -> None:
    instruction = replace(STREAM, parameters=(("from", ""), ("to", "\x00")))
    (_, _, _, [(_, _, _, parameters)]) = parsed(twiml.connect_stream(instruction, [], ""))[0]
    assert parameters == []
