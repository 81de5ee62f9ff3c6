"""Where TwiML of a worker leads: every destination in it, checked by a plan's rules.

Pure. What is not known to lead nowhere is refused: verbs that reach other calls of the
same account (`<Conference>`, `<Client>`, `<Queue>`), and URLs that return further TwiML.
Source: twilio.com/docs/voice/twiml, "TwiML Voice".
"""

import re
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from app.businesses.destinations import DialRules, problem_of_number, problem_of_sip
from app.plans.checks import host_of_https_url

# Verbs and nouns that call nobody. What they name by URL is audio, or a WebSocket.
_HARMLESS: Final = frozenset(
    {
        "Response",
        "Say",
        "Play",
        "Pause",
        "Hangup",
        "Reject",
        "Leave",
        "Gather",
        "Record",
        "Connect",
        "Start",
        "Stop",
        "Stream",
        "ConversationRelay",
        "Language",
        "Transcription",
        "Recording",
        "Parameter",
        "Refer",
    }
)
# Nouns whose `url` is a WebSocket.
_WEBSOCKETS: Final = frozenset({"Stream", "ConversationRelay"})
# Attributes that name a URL from which Twilio takes what the call does next.
_TWIML_URLS: Final = frozenset({"action", "url", "waiturl", "referurl", "fallbackurl"})
_DECLARED_ENCODING: Final = re.compile(r"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([^"']*)["']""")


def problem_of_twiml(document: str, rules: DialRules) -> str:
    """Return why a `<Response>` may not take over a call; empty where it may.

    `document` is well-formed and has no document type.
    """
    # Twilio may read a document by the encoding that it declares; here it is UTF-8.
    declared = _DECLARED_ENCODING.match(document)
    if declared and declared[1].lower() != "utf-8":
        return "twiml declares another encoding than UTF-8"
    return next(filter(None, _problems(ElementTree.fromstring(document), rules)), "")


def _problems(element: Element, rules: DialRules) -> list[str]:
    """Return a problem, or an empty text, for each element and URL."""
    found = [_problem_of(element, rules), *_problems_of_urls(element, rules)]
    for child in element:
        # SSML, which is part of what is said, has no verbs in it: its names are in lower case.
        if not (element.tag == "Say" and _is_ssml(child)):
            found += _problems(child, rules)
    return found


def _problem_of(element: Element, rules: DialRules) -> str:
    text = (element.text or "").strip()
    match element.tag:
        case "Dial":
            whole = "".join([text, *((child.tail or "").strip() for child in element)])
            return _said("<Dial>", problem_of_number(whole, rules)) if whole else ""
        case "Number":
            return _said("<Number>", problem_of_number(text, rules))
        case "Sip":
            return _said("<Sip>", problem_of_sip(text, rules))
        case "Sms" | "Message" if rules.is_anywhere:
            to = element.get("to", "")
            return _said(f"<{element.tag}>", problem_of_number(to, rules)) if to else ""
        case "Redirect":
            return _said("<Redirect>", _problem_of_url(text, rules))
        case tag if tag in _HARMLESS or rules.is_anywhere:
            return ""
        case tag:
            name = f"<{tag}>" if re.fullmatch(r"[A-Za-z]{1,32}", tag) else "an element"
            return f"twiml: {name} leads where this service cannot see; the plan does not allow it"


def _problems_of_urls(element: Element, rules: DialRules) -> list[str]:
    return [
        _said(f"{name.lower()} of <{element.tag}>", _problem_of_url(value, rules))
        for name, value in element.attrib.items()
        if name.lower() in _TWIML_URLS
        and not (name.lower() == "url" and element.tag in _WEBSOCKETS)
    ]


def _problem_of_url(url: str, rules: DialRules) -> str:
    if rules.is_anywhere:
        return ""
    host = host_of_https_url(url.strip())
    if host and host in rules.url_hosts:
        return ""
    return "leads to further TwiML; the plan must allow its host, as https://HOST"


def _is_ssml(element: Element) -> bool:
    has_name = element.tag[:1].islower() or element.tag.startswith("{")
    return has_name and all(map(_is_ssml, element))


def _said(where: str, problem: str) -> str:
    return f"twiml: {where} {problem}" if problem else ""
