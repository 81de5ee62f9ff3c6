"""How a page is made: the templates, and the headers that keep strangers' code out of it."""

from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.admin.roles import Permission
from app.web.admin import words
from app.web.admin.views import CallRow, Viewer

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
STATIC_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "media-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# What a page says after what was done by a form; the URL names it, and says nothing itself.
SAID = {
    "saved": "Saved. The next call obeys it within a second.",
    "created": "Created.",
    "deleted": "Deleted.",
    "added": "Added. Now paste the URL below into Twilio.",
    "removed": "Removed.",
    "secrets": "Saved.",
    "revoked": "Revoked. Nobody can use it any more; its live pages close within 5 seconds.",
    "ended": "Ended. That browser is signed out within 5 seconds.",
    "all-ended": "Ended. Those browsers are signed out within 5 seconds.",
    "signed-out-everywhere": "You are signed out everywhere.",
    "pair-revoked": "Revoked. New calls that show it are refused.",
    "ending": "The call is being ended.",
    "erased": "Erased. The audit log says what was removed.",
    "signed-out": "You are signed out.",
}
_NAVIGATION = (
    ("overview", "/admin", "Overview"),
    ("live", "/admin/live", "Live calls"),
    ("calls", "/admin/calls", "Calls"),
)


def page(
    template: str,
    viewer: Viewer | None,
    *,
    status: int = 200,
    here: str = "",
    said: str = "",
    **shown: Any,
) -> HTMLResponse:
    """Make a page of a template; `said` is a key of SAID, or anything, which says nothing."""
    text = (
        _templates()
        .get_template(template)
        .render(viewer=viewer, here=here, said=SAID.get(said, ""), **shown)
    )
    return HTMLResponse(text, status, HEADERS)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        name: getattr(words, name) for name in ("clock", "moment", "day", "count", "plural", "size")
    }
    made.globals |= {
        "static": _static,
        "navigation": _navigation,
        "tabs": _tabs,
        "may": Permission,
        "guide": _guide,
        "call_hint": _call_hint,
        "call_path": _call_path,
        "audio_path": _audio_path,
        "api_query": _api_query,
    }
    return made


@cache
def _static(name: str) -> str:
    """Name a file of ours so that a browser may keep it until it changes."""
    return f"/admin/static/{name}?{sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


def _navigation(viewer: Viewer) -> Iterator[tuple[str, str, str]]:
    yield from _NAVIGATION
    if viewer.is_operator:
        yield "businesses", "/admin/businesses", "Businesses"
    elif viewer.may(Permission.READ_BUSINESS):
        yield "businesses", f"/admin/businesses/{quote(viewer.business_id, safe='')}", "Business"
    else:
        yield "businesses", _my(viewer, "usage"), "Usage"
    if viewer.may(Permission.READ_PLANS):
        yield "plans", "/admin/plans", "Plans" if viewer.is_operator else "Plan"
    if viewer.may(Permission.READ_SERVICE):
        yield "health", "/admin/health", "Health"
    if viewer.may(Permission.FIND_PERSONS):
        yield "persons", "/admin/persons", "Persons"
    if viewer.may(Permission.READ_AUDIT):
        yield "audit", "/admin/audit", "Audit log"


# The pages of a business, and what it takes to see each.
_TABS = (
    ("", "Settings", Permission.READ_BUSINESS),
    ("numbers", "Numbers", Permission.READ_BUSINESS),
    ("secrets", "Secrets", Permission.EDIT_SECRETS),
    ("keys", "Access keys", Permission.READ_KEYS),
    ("sessions", "Sessions", Permission.MANAGE_SESSIONS),
    ("usage", "Usage", Permission.READ_USAGE),
)


def _tabs(viewer: Viewer) -> list[tuple[str, str]]:
    return [(where, words) for where, words, permission in _TABS if viewer.may(permission)]


def _guide(viewer: Viewer) -> tuple[tuple[str, Markup], ...]:
    call = Markup("Place a call. ") + _call_hint(viewer)
    if not viewer.is_operator:
        return (("call", call),)
    return (
        ("plan", Markup('<a href="/admin/new-plan">Create a plan</a>: what a business may use.')),
        (
            "business",
            Markup('<a href="/admin/new-business">Create a business</a> that has this plan, '
                   "and add its numbers."),
        ),
        ("call", call),
    )  # fmt: skip


def _call_hint(viewer: Viewer) -> Markup:
    """Say how to place a test call: by Twilio, and where no signature is asked for by hand."""
    if not viewer.may(Permission.READ_BUSINESS):
        return Markup("Calls to your business appear here.")
    path = "/admin/businesses" if viewer.is_operator else _my(viewer, "numbers")
    hint = Markup(
        'Paste the webhook URL of a number (<a href="{}">Numbers</a>) into Twilio, and ring it.'
    ).format(path)
    if viewer.by_hand:
        business = viewer.business_id or "BUSINESS_ID"
        hint += Markup(
            " Without a phone: <code>make call BUSINESS={}</code>, beside <code>make run</code>, "
            "speaks for half a minute."
        ).format(business)
    return hint


def _my(viewer: Viewer, what: str) -> str:
    return f"/admin/businesses/{quote(viewer.business_id, safe='')}/{what}"


def _api_query(row: CallRow, viewer: Viewer) -> str:
    """Name whose call it is, which only an operator must."""
    return f"?business={quote(row.business_id, safe='')}" if viewer.is_operator else ""


def _call_path(row: CallRow, viewer: Viewer, what: str = "") -> str:
    return f"/admin/calls/{quote(row.call_sid, safe='')}{what}{_api_query(row, viewer)}"


def _audio_path(row: CallRow, viewer: Viewer) -> str:
    return f"/api/v1/calls/{quote(row.call_sid, safe='')}/audio.wav{_api_query(row, viewer)}"
