"""Speech into a live call, piece by piece."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict

from app.administration.speech import LiveSpeech
from app.errors import AmbiguousCall, NotThere, TooMuchSpeech
from app.web.api.calls import CallSid, OfBusiness
from app.web.api.route import Asking, answers, api_router, secured

_PCM16 = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}
_WHEN_WRITTEN = "The service was told; an event of the call says what came of it."


class Told(BaseModel):
    """A command that was written: the event that says what came of it has its `id` in `data`.

    It is empty for speech that is to be continued.
    """

    model_config = ConfigDict(json_schema_extra={"example": {"id": "5b0c9d6f8e7a1c24"}})
    id: str


def speech_router(speech: LiveSpeech) -> APIRouter:
    """Make the routes by which a call is spoken into."""
    router = api_router("calls")

    @router.post(
        "/calls/{call_sid}/play",
        operation_id="play",
        status_code=202,
        response_description=_WHEN_WRITTEN,
        responses=answers(NotThere, AmbiguousCall, TooMuchSpeech),
        openapi_extra=secured(requestBody=_PCM16),
    )
    async def play(
        who: Asking,
        request: Request,
        call_sid: CallSid,
        business: OfBusiness = None,
        sample_rate: Literal["8000", "16000", "24000", "48000"] = "16000",
        more: Annotated[
            bool, Query(description="The next piece joins this one without a seam.")
        ] = False,
    ) -> Told:
        """Speak into a live call: PCM16, little-endian, mono; at most 64 KiB a piece.

        Pieces are heard one after the other. Operators and `agent` and `admin` keys may, where
        ADMIN_MAY_SPEAK is set, and only where the call's plan has `return_audio`. The audit log
        has when somebody began, and each minute in which they went on.
        """
        audio, rate = await request.body(), int(sample_rate)
        return Told(id=await speech.play(who, call_sid, business, audio, rate, more=more))

    @router.post(
        "/calls/{call_sid}/clear",
        operation_id="clear",
        status_code=202,
        response_description=_WHEN_WRITTEN,
        responses=answers(NotThere, AmbiguousCall),
        openapi_extra=secured(),
    )
    async def clear(who: Asking, call_sid: CallSid, business: OfBusiness = None) -> Told:
        """Silence a live call at once: end all that is being said into it, whoever says it."""
        return Told(id=await speech.clear(who, call_sid, business))

    return router
