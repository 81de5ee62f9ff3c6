"""`/businesses/{business_id}/keys` and `/secrets`: who and what is let in."""

from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from app.admin.access_keys import has_expired
from app.administration import Administration
from app.administration.secret_fields import SecretState
from app.errors import EditedMeanwhile, NotThere, NumberTaken
from app.store.access import AccessKey
from app.web.api.models import body_of
from app.web.api.route import Asking, JsonObject, answers, api_router, secured


class Key(BaseModel):
    """An access key, without what admits anybody.

    Times are Unix ms; null: it was never used, it does not expire.
    """

    id: str
    label: str
    role: str
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    is_expired: bool

    @classmethod
    def of(cls, key: AccessKey, now_ms: int) -> "Key":
        """Return a key as it is answered."""
        return cls(
            id=key.id,
            label=key.label,
            role=key.role,
            created_at=key.created_at,
            last_used_at=key.last_used_at or None,
            expires_at=key.expires_at or None,
            is_expired=has_expired(key, now_ms),
        )


class KeyList(BaseModel):
    """A business's keys."""

    items: list[Key]
    next: None = None


class IssuedKey(Key):
    """A new key. `key` is shown now, and never again."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "0f3a5c7e9b1d",
                "label": "The dashboard",
                "role": "viewer",
                "created_at": 1790000000000,
                "last_used_at": None,
                "expires_at": 1821536000000,
                "is_expired": False,
                "key": "mbk_0f3a5c7e9b1d_…",
            }
        }
    )
    key: str


class NewKey(BaseModel):
    """A key to issue.

    `label`, at most 80 characters, tells it from others. `role` is what it may do: `viewer`
    reads calls, audio and usage; `agent` also ends calls and speaks into them; `admin` also
    has settings, secrets, keys, erasing and the audit log. `expires_at` (Unix ms) is when
    the key and its sessions end; null: never.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"label": "The dashboard", "role": "viewer", "expires_at": 1821536000000}
        }
    )
    label: str
    role: Literal["viewer", "agent", "admin"] = "admin"
    expires_at: int | None = None


class Secret(BaseModel):
    """A secret, which is never shown: how many are set, and since when (Unix ms)."""

    name: str
    effect: str
    is_set: bool
    count: int
    set_at: int | None

    @classmethod
    def of(cls, state: SecretState) -> "Secret":
        """Give a secret's state as it is answered."""
        return cls(
            name=state.name,
            effect=state.effect,
            is_set=state.count > 0,
            count=state.count,
            set_at=state.set_at or None,
        )


class SecretList(BaseModel):
    """Every secret there can be, set or not."""

    items: list[Secret]
    next: None = None


class NewSecrets(BaseModel):
    """Secrets to be set; null, or an empty list, removes one."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"twilio_auth_tokens": ["0123456789abcdef0123456789abcdef"]}}
    )
    twilio_auth_tokens: list[str] | None = None
    usage_webhook_secret: str | None = None
    # Operators alone may type pairs; everybody else generates them.
    exotel_pairs: list[str] | None = None


def keys_router(desk: Administration, wall_clock: Callable[[], float]) -> APIRouter:
    """Create the routes of keys and of secrets. `wall_clock` returns Unix seconds."""
    router = api_router("access")

    @router.get(
        "/businesses/{business_id}/keys",
        operation_id="list-keys",
        response_description="The oldest first.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def list_keys(who: Asking, business_id: str) -> KeyList:
        """List a business's access keys."""
        found, now_ms = await desk.keys.all(who, business_id), int(wall_clock() * 1000)
        return KeyList(items=[Key.of(key, now_ms) for key in found])

    @router.post(
        "/businesses/{business_id}/keys",
        operation_id="issue-key",
        status_code=201,
        response_model=IssuedKey,
        response_description="The only time that the key is shown.",
        responses=answers(NotThere),
        openapi_extra=secured(requestBody=body_of(NewKey)),
    )
    async def issue_key(who: Asking, business_id: str, body: JsonObject) -> Response:
        """Issue an access key of a business (operators)."""
        issued = await desk.keys.issue(who, business_id, body)
        shown = IssuedKey(**Key.of(issued.key, issued.key.created_at).model_dump(), key=issued.text)
        return JSONResponse(shown.model_dump(mode="json"), 201)

    @router.delete(
        "/businesses/{business_id}/keys/{key_id}",
        operation_id="revoke-key",
        status_code=204,
        response_description="It admits nobody from now on; its sessions and live pages end.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def revoke_key(who: Asking, business_id: str, key_id: str) -> None:
        """Revoke an access key (operators, and admins of the business).

        A key is never edited, so no If-Match is asked for: to change a role, issue another key
        and revoke this one.
        """
        await desk.keys.revoke(who, business_id, key_id)

    @router.get(
        "/businesses/{business_id}/secrets",
        operation_id="list-secrets",
        response_description="Which are set; never what they are.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def list_secrets(who: Asking, business_id: str) -> SecretList:
        """Tell which of a business's secrets are set."""
        states = await desk.secrets.states(who, business_id)
        return SecretList(items=[Secret.of(state) for state in states])

    @router.patch(
        "/businesses/{business_id}/secrets",
        operation_id="set-secrets",
        response_description="Which are set now.",
        responses=answers(NotThere, NumberTaken, EditedMeanwhile),
        openapi_extra=secured(requestBody=body_of(NewSecrets)),
    )
    async def set_secrets(who: Asking, business_id: str, body: JsonObject) -> SecretList:
        """Replace secrets; those that are not named stay. Nobody can have read what is replaced,
        so no If-Match is asked for.
        """
        states = await desk.secrets.save(who, business_id, body)
        return SecretList(items=[Secret.of(state) for state in states])

    return router
