"""Who has access: a business's keys, and the sessions of those who are signed in."""

from collections.abc import Callable
from typing import Any, Final

from fastapi.responses import Response

from app.admin.access_keys import has_expired
from app.admin.sessions import ListedSession
from app.administration import Administration
from app.administration.keys import DAY_MS
from app.errors import FieldsInvalid
from app.store.access import AccessKey
from app.web.admin.businesses import BUSINESSES, path_of, row_of
from app.web.admin.connections import business_tab
from app.web.admin.entry import SIGN_IN, Entry, Visit, see
from app.web.admin.views import KeyForm, KeyRow, SessionRow
from app.web.visitors import Visitors

SESSIONS: Final = "/admin/sessions"
# How long a new key is valid, in days; an empty text is for ever.
LIVES: Final = (
    ("1", "1 day"),
    ("7", "7 days"),
    ("30", "30 days"),
    ("90", "90 days"),
    ("365", "1 year"),
    ("", "Never"),
)
ROLES: Final = (
    ("viewer", "Viewer", "Sees calls and usage, and listens to calls and recordings."),
    ("agent", "Agent", "Also ends calls and speaks into them."),
    ("admin", "Admin", "Also changes settings and secrets, revokes keys and erases calls."),
)
_LABELS: Final = {"label": "The name", "role": "The role", "expires_at": "The expiry"}


def add_keys(entry: Entry, desk: Administration, wall_clock: Callable[[], float]) -> None:
    """Add a business's access keys. `wall_clock` returns Unix seconds."""

    def now_ms() -> int:
        return int(wall_clock() * 1000)

    @entry.get(f"{BUSINESSES}/{{id}}/keys")
    async def keys(visit: Visit) -> Response:
        return await _keys(visit, KeyForm())

    @entry.post(f"{BUSINESSES}/{{id}}/keys")
    async def issue(visit: Visit) -> Response:
        form = KeyForm(*(visit.sent.text(name) for name in ("label", "role", "days")))
        table: dict[str, Any] = {"label": form.label, "role": form.role, "expires_at": None}
        if form.days:
            # What is no number of the list is refused as an expiry.
            is_known = form.days in dict(LIVES)
            table["expires_at"] = now_ms() + int(form.days) * DAY_MS if is_known else form.days
        try:
            issued = await desk.keys.issue(visit.who, visit.part("id"), table)
        except FieldsInvalid as error:
            said = [f"{_LABELS.get(name, name)} {why}." for name, why in error.problems.items()]
            wrong = KeyForm(form.label, form.role, form.days, " ".join(said))
            return await _keys(visit, wrong, status=422)
        return await _keys(visit, KeyForm(), issued=issued.text)

    @entry.post(f"{BUSINESSES}/{{id}}/keys/{{key}}/revoke")
    async def revoke(visit: Visit) -> Response:
        await desk.keys.revoke(visit.who, visit.part("id"), visit.part("key"))
        return see(f"{path_of(visit.part('id'))}/keys", "revoked")

    async def _keys(visit: Visit, form: KeyForm, issued: str = "", status: int = 200) -> Response:
        stored = await desk.businesses.get(visit.who, visit.part("id"))
        found = await desk.keys.all(visit.who, stored.record.id)
        rows = [_key_row(one, visit, now_ms()) for one in found]
        shown = {"keys": rows, "issued": issued, "form": form, "roles": ROLES, "lives": LIVES}
        return business_tab(visit, "keys", row_of(stored.record), shown, status)


def add_sessions(entry: Entry, desk: Administration, visitors: Visitors) -> None:
    """Add the lists of sessions, and what ends them."""

    @entry.get(SESSIONS)
    async def own(visit: Visit) -> Response:
        found = await desk.sessions.visible(visit.who)
        rows = [_session_row(one, visit) for one in found]
        return visit.page("sessions.html", here="sessions", sessions=rows, business=None)

    @entry.post(f"{SESSIONS}/{{session}}/end")
    async def end(visit: Visit) -> Response:
        await desk.sessions.end(visit.who, visit.part("session"))
        return see(SESSIONS, "ended")

    @entry.post(f"{SESSIONS}/end-own")
    async def end_own(visit: Visit) -> Response:
        await desk.sessions.end_own(visit.who)
        answer = see(SIGN_IN, "signed-out-everywhere")
        visitors.forget_cookie(answer)
        return answer

    @entry.get(f"{BUSINESSES}/{{id}}/sessions")
    async def of_business(visit: Visit) -> Response:
        stored = await desk.businesses.get(visit.who, visit.part("id"))
        found = await desk.sessions.visible(visit.who, stored.record.id)
        shown = {"sessions": [_session_row(one, visit) for one in found]}
        return business_tab(visit, "sessions", row_of(stored.record), shown)

    @entry.post(f"{BUSINESSES}/{{id}}/sessions/{{session}}/end")
    async def end_of_business(visit: Visit) -> Response:
        await desk.sessions.end(visit.who, visit.part("session"), visit.part("id"))
        return see(f"{path_of(visit.part('id'))}/sessions", "ended")

    @entry.post(f"{BUSINESSES}/{{id}}/sessions/end-all")
    async def end_all(visit: Visit) -> Response:
        await desk.sessions.end_of_business(visit.who, visit.part("id"))
        return see(f"{path_of(visit.part('id'))}/sessions", "all-ended")


def _key_row(key: AccessKey, visit: Visit, now_ms: int) -> KeyRow:
    return KeyRow(
        key.id,
        key.label,
        key.role,
        key.created_at,
        key.last_used_at,
        key.expires_at,
        is_expired=has_expired(key, now_ms),
        is_own=visit.who.actor == f"key:{key.id}",
    )


def _session_row(one: ListedSession, visit: Visit) -> SessionRow:
    session = one.session
    return SessionRow(
        session.id,
        one.name,
        one.holder.role,
        session.began_at,
        session.last_used_at,
        one.ends_at,
        session.address,
        session.browser,
        is_current=session.id == visit.who.session_id,
    )
