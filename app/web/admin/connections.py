"""What connects a business: its numbers and its secrets."""

from typing import Any

from fastapi.responses import Response

from app.administration import Administration
from app.administration.exotel_pairs import IssuedPair
from app.administration.secret_fields import PAIRS
from app.errors import EditedMeanwhile, FieldsInvalid, NumberTaken
from app.web.admin.businesses import BUSINESSES, path_of, row_of
from app.web.admin.entry import Entry, Visit, see
from app.web.admin.views import SecretRow
from app.web.api.exotel_pairs import url_with

# What is pasted where in Twilio's console: its labels, and our paths.
TWILIO_URLS = (
    ("A call comes in", "/twilio-voice"),
    ("Call status changes", "/twilio-status"),
)
SECRET_LABELS = {
    "twilio_auth_tokens": ("Twilio auth tokens", "Write two with a comma between them."),
    "exotel_pairs": (
        "Exotel pairs, typed",
        "This replaces all of them. Write several with commas between them.",
    ),
    "usage_webhook_secret": ("Usage webhook secret", ""),
}
_LISTS = frozenset({"twilio_auth_tokens", "exotel_pairs"})


def add_numbers(entry: Entry, desk: Administration, http_base: str) -> None:
    """Add a business's numbers; `http_base` is PUBLIC_URL, or empty."""
    urls = [(label, f"{http_base}{path}") for label, path in TWILIO_URLS if http_base]

    @entry.get(f"{BUSINESSES}/{{id}}/numbers")
    async def numbers(visit: Visit) -> Response:
        return await _numbers(visit)

    @entry.post(f"{BUSINESSES}/{{id}}/numbers")
    async def add(visit: Visit) -> Response:
        stored = await desk.businesses.get(visit.who, visit.part("id"))
        number = visit.sent.text("number").strip()
        return await _save(visit, [*stored.record.numbers, number], "added", number)

    @entry.post(f"{BUSINESSES}/{{id}}/numbers/remove")
    async def remove(visit: Visit) -> Response:
        stored = await desk.businesses.get(visit.who, visit.part("id"))
        gone = visit.sent.text("number")
        return await _save(visit, [one for one in stored.record.numbers if one != gone], "removed")

    async def _save(visit: Visit, numbers: list[str], said: str, number: str = "") -> Response:
        business_id, version = visit.part("id"), visit.sent.version() or 0
        try:
            await desk.businesses.edit(visit.who, business_id, {"numbers": numbers}, version)
        except FieldsInvalid as error:
            words = f"This {error.problems.get('numbers', error)}."
            return await _numbers(visit, words, number, error.http_status)
        except NumberTaken as error:
            words = f"It is another business's: {error}."
            return await _numbers(visit, words, number, error.http_status)
        except EditedMeanwhile as error:
            words = "Somebody else has just changed this business. Look it through and try again."
            return await _numbers(visit, words, number, error.http_status)
        return see(f"{path_of(business_id)}/numbers", said)

    async def _numbers(
        visit: Visit, problem: str = "", value: str = "", status: int = 200
    ) -> Response:
        stored = await desk.businesses.get(visit.who, visit.part("id"))
        shown = {"urls": urls, "version": stored.version, "problem": problem, "value": value}
        return business_tab(visit, "numbers", row_of(stored.record), shown, status)


def add_secrets(entry: Entry, desk: Administration, ws_base: str) -> None:
    """Add a business's secrets: set, replaced, removed, and never shown.

    A generated Exotel pair is shown once; `ws_base` is PUBLIC_URL's, or empty.
    """

    @entry.get(f"{BUSINESSES}/{{id}}/secrets")
    async def secrets(visit: Visit) -> Response:
        return await _secrets(visit, {})

    @entry.post(f"{BUSINESSES}/{{id}}/secrets")
    async def save(visit: Visit) -> Response:
        given: dict[str, Any] = {}
        for name in SECRET_LABELS:
            if text := visit.sent.text(name).strip():
                parts = [part.strip() for part in text.split(",")]
                given[name] = parts if name in _LISTS else text
            elif name in visit.sent.all("remove"):
                given[name] = None
        try:
            await desk.secrets.save(visit.who, visit.part("id"), given)
        except FieldsInvalid as error:
            return await _secrets(visit, error.problems, 422)
        except NumberTaken as error:
            problems = {"exotel_pairs": f"cannot be stored: {error}"}
            return await _secrets(visit, problems, error.http_status)
        return see(f"{path_of(visit.part('id'))}/secrets", "secrets")

    @entry.post(f"{BUSINESSES}/{{id}}/secrets/exotel-pairs")
    async def generate(visit: Visit) -> Response:
        label = visit.sent.text("label").strip()
        try:
            issued = await desk.exotel_pairs.generate(visit.who, visit.part("id"), {"label": label})
        except FieldsInvalid as error:
            return await _secrets(visit, {"label": error.problems.get("label", str(error))}, 422)
        return await _secrets(visit, {}, issued=issued)

    @entry.post(f"{BUSINESSES}/{{id}}/secrets/exotel-pairs/{{pair}}/revoke")
    async def revoke(visit: Visit) -> Response:
        await desk.exotel_pairs.revoke(visit.who, visit.part("id"), visit.part("pair"))
        return see(f"{path_of(visit.part('id'))}/secrets", "pair-revoked")

    async def _secrets(
        visit: Visit,
        problems: dict[str, str],
        status: int = 200,
        issued: IssuedPair | None = None,
    ) -> Response:
        stored = await desk.businesses.get(visit.who, visit.part("id"))
        states = {one.name: one for one in await desk.secrets.states(visit.who, stored.record.id)}
        rows = [
            SecretRow(
                name,
                label,
                f"{states[name].effect} {how}".strip(),
                states[name].set_at,
                states[name].count > 0,
                problems.get(name, ""),
            )
            for name, (label, how) in SECRET_LABELS.items()
            if name in states and (name != PAIRS or visit.who.is_operator)
        ]
        shown_elsewhere = {*SECRET_LABELS, "label"}
        other = "; ".join(words for name, words in problems.items() if name not in shown_elsewhere)
        shown = {
            "secrets": rows,
            "problem": other,
            "pairs": await desk.exotel_pairs.all(visit.who, stored.record.id),
            "issued": issued,
            "issued_url": url_with(issued.key, issued.token, ws_base) if issued else "",
            "label": visit.sent.text("label") if "label" in problems else "",
            "label_problem": problems.get("label", ""),
        }
        return business_tab(visit, "secrets", row_of(stored.record), shown, status)


def business_tab(
    visit: Visit, tab: str, business: object, shown: dict[str, Any], status: int = 200
) -> Response:
    """Show one of the pages of a business."""
    template = f"{tab}.html"
    return visit.page(
        template, status=status, here="businesses", tab=tab, business=business, **shown
    )
