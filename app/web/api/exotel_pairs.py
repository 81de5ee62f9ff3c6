"""`/businesses/{business_id}/exotel-pairs`: credentials that Exotel shows for one business."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from app.administration.exotel_pairs import ExotelPairs
from app.businesses.exotel_pairs import PairInfo
from app.errors import EditedMeanwhile, NotThere
from app.web.api.models import body_of
from app.web.api.route import Asking, JsonObject, answers, api_router, secured


class Pair(BaseModel):
    """An Exotel pair, without the pair. `created_at` is Unix ms; null where it was typed."""

    id: str
    label: str
    created_at: int | None

    @classmethod
    def of(cls, info: PairInfo) -> "Pair":
        """Return a pair as it is answered."""
        return cls(id=info.id, label=info.label, created_at=info.created_at or None)


class PairList(BaseModel):
    """A business's pairs."""

    items: list[Pair]
    next: None = None


class IssuedPairModel(Pair):
    """A new pair. `key`, `token` and `url`, which has both, are shown now and never again."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "0f3a5c7e9b1d",
                "label": "Support line",
                "created_at": 1790000000000,
                "key": "ex_0123456789abcdef",
                "token": "…",
                "url": "wss://ex_0123456789abcdef:…@bridge.example.com/v1/ingest",
            }
        }
    )
    key: str
    token: str
    url: str | None


class NewPairModel(BaseModel):
    """A pair to be: `label`, at most 80 characters, tells it from others."""

    model_config = ConfigDict(json_schema_extra={"example": {"label": "Support line"}})
    label: str = ""


def exotel_pairs_router(pairs: ExotelPairs, ws_base: str) -> APIRouter:
    """Create the routes of Exotel pairs; `ws_base` is PUBLIC_URL's, or empty."""
    router = api_router("access")

    @router.get(
        "/businesses/{business_id}/exotel-pairs",
        operation_id="list-exotel-pairs",
        response_description="The oldest first.",
        responses=answers(NotThere),
        openapi_extra=secured(),
    )
    async def list_pairs(who: Asking, business_id: str) -> PairList:
        """List a business's Exotel pairs; never the pairs themselves."""
        return PairList(items=[Pair.of(info) for info in await pairs.all(who, business_id)])

    @router.post(
        "/businesses/{business_id}/exotel-pairs",
        operation_id="generate-exotel-pair",
        status_code=201,
        response_model=IssuedPairModel,
        response_description="The only time that the pair is shown.",
        responses=answers(NotThere, EditedMeanwhile),
        openapi_extra=secured(requestBody=body_of(NewPairModel)),
    )
    async def generate_pair(who: Asking, business_id: str, body: JsonObject) -> Response:
        """Generate an Exotel pair: calls that show it are this business's."""
        issued = await pairs.generate(who, business_id, body)
        shown = IssuedPairModel(
            **Pair.of(issued.info).model_dump(),
            key=issued.key,
            token=issued.token,
            url=url_with(issued.key, issued.token, ws_base) or None,
        )
        return JSONResponse(shown.model_dump(mode="json"), 201)

    @router.delete(
        "/businesses/{business_id}/exotel-pairs/{pair_id}",
        operation_id="revoke-exotel-pair",
        status_code=204,
        response_description="It admits nobody from now on; live calls go on.",
        responses=answers(NotThere, EditedMeanwhile),
        openapi_extra=secured(),
    )
    async def revoke_pair(who: Asking, business_id: str, pair_id: str) -> None:
        """Revoke an Exotel pair. A pair is never edited: no If-Match is asked for."""
        await pairs.revoke(who, business_id, pair_id)

    return router


def url_with(key: str, token: str, ws_base: str) -> str:
    """Return the URL that Exotel is given, with the pair in it; empty without PUBLIC_URL."""
    scheme, separator, host = ws_base.partition("://")
    return f"{scheme}://{key}:{token}@{host}/v1/ingest" if separator else ""
