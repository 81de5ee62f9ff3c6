"""Twilio's error codes, and what is likely behind each.

Source: twilio.com/docs/api/errors.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from app.diagnosis.causes import CAUSES
from app.diagnosis.findings import Finding

PAGE = "https://www.twilio.com/docs/api/errors"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code says; `kind` is the cause it is reported as, `likely` are ids of causes."""

    said: str
    kind: str
    likely: tuple[str, ...]


_TLS = (
    "certificate_expired",
    "certificate_wrong_name",
    "certificate_self_signed",
    "certificate_chain_incomplete",
)
_HOOK, _TWIML, _STREAM = "alert_webhook", "alert_twiml", "alert_stream"
MEANINGS = {
    11200: Meaning(
        "a webhook was not answered with success",
        _HOOK,
        ("service_down", "public_url_differs", "auth_token_differs", "other_site"),
    ),
    11205: Meaning(
        "a webhook could not be reached in time", _HOOK, ("tcp_no_answer", "tcp_refused")
    ),
    11210: Meaning("the webhook's host has no address", _HOOK, ("dns_no_such_host",)),
    11215: Meaning("the webhook redirects too often", _HOOK, ("redirects", "redirects_path")),
    11220: Meaning("no TLS with the webhook's host", _HOOK, ("tls_not_spoken", "tls_failed")),
    11235: Meaning("the webhook's certificate is not good", _HOOK, _TLS),
    11236: Meaning("the webhook's certificate is not good", _HOOK, _TLS),
    11237: Meaning("the webhook's certificate is not good", _HOOK, _TLS),
    12100: Meaning("the answer is no XML", _TWIML, ("twiml_unreadable", "other_site")),
    12101: Meaning("the answer is no TwiML", _TWIML, ("twiml_unreadable", "other_site")),
    12102: Meaning("the answer's root is not Response", _TWIML, ("twiml_unreadable", "other_site")),
    12200: Meaning("the answer is not as TwiML's schema has it", _TWIML, ("twiml_unreadable",)),
    12300: Meaning(
        "the answer has a Content-Type that is not TwiML's",
        _TWIML,
        ("twiml_content_type", "other_site", "service_down"),
    ),
    31901: Meaning(
        "a stream's socket was not answered in time", _STREAM, ("tcp_no_answer", "no_http_answer")
    ),
    31902: Meaning("a stream's socket was refused", _STREAM, ("tcp_refused", "service_down")),
    31903: Meaning(
        "a stream's socket broke", _STREAM, ("call_cut", "drain_window_railway", "service_down")
    ),
    31910: Meaning("no TLS with a stream's host", _STREAM, ("tls_not_spoken", *_TLS)),
    31920: Meaning(
        "a stream's handshake was not answered with 101",
        _STREAM,
        ("upgrade_stripped", "socket_wrong_path", "socket_redirects", "public_url_differs"),
    ),
    31921: Meaning("this service closed a stream's socket", _STREAM, ("call_cut",)),
    31922: Meaning("a stream's URL is not wss://", _STREAM, ("twiml_not_wss", "public_url_http")),
    31923: Meaning("a stream's URL is malformed", _STREAM, ("public_url_path", "twiml_query")),
    31924: Meaning(
        "a stream broke the rules of WebSockets", _STREAM, ("socket_garbled", "call_cut")
    ),
    31930: Meaning(
        "a stream's audio was read too slowly, and Twilio threw some away",
        _STREAM,
        ("frames_missing", "socket_holds_messages"),
    ),
    31931: Meaning(
        "more than ten minutes of audio for the caller were waiting", _STREAM, ("frames_missing",)
    ),
    31941: Meaning(
        "a stream asked for a track that it cannot have", _STREAM, ("twiml_unreadable",)
    ),
    31950: Meaning("a stream got a binary message", _STREAM, ("socket_garbled",)),
    31951: Meaning("a stream got a message that is not Twilio's", _STREAM, ("socket_garbled",)),
}


def alert_findings(codes: Iterable[str], most: int = 10) -> list[Finding]:
    """Explain codes, the most frequent first; at most so many."""
    found = []
    for code, count in Counter(codes).most_common(most):
        number = int(code) if code.isdecimal() and len(code) < 7 else 0
        meaning = MEANINGS.get(number)
        page = f"{PAGE}/{number}" if number else PAGE
        times = "once" if count == 1 else f"{count} times"
        if meaning is None:
            said = f"Twilio noted error {number or 'without a number'} {times}."
            found.append(CAUSES["alert_other"].finding(said, page=page))
            continue
        said = f"Twilio noted error {number} {times}: {meaning.said}."
        likely = ", ".join(meaning.likely)
        found.append(CAUSES[meaning.kind].finding(said, likely=likely, page=page))
    return found
