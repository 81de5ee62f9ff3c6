"""A call's audio: as a file in which a player may seek, and live."""

import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.admin.roles import Permission
from app.archive.recording import Recording
from app.errors import AmbiguousCall, ArchiveBusy, BridgeError, NotThere
from app.web.api.calls import CallDesk, CallSid, OfBusiness, OfStream
from app.web.api.lasting import Check, LastingResponse, still_permitted
from app.web.api.ranges import Unsatisfiable, asked_span
from app.web.api.route import Asking, answers, api_router, secured
from app.web.documented import Answers

log = logging.getLogger(__name__)

WAV = "audio/wav"
PCM = "application/octet-stream"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_WHOLE_NUMBER = {"schema": {"type": "integer"}}
_BEGINS = {
    "X-Audio-Begins-At-Ms": {
        "description": "The media time of the first sample.",
        **_WHOLE_NUMBER,
    },
    "X-Audio-Trimmed": {
        "description": "`true` where what was before it is not kept any more.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
}
_FILE: Answers = {
    200: {
        "description": "The whole file. A live call's ends with what there is now, and its "
        "header leaves its length open.",
        "content": {WAV: _BINARY},
        "headers": _BEGINS,
    },
    206: {
        "description": "The part that Range asks for.",
        "content": {WAV: _BINARY},
        "headers": {
            **_BEGINS,
            "Content-Range": {"description": "Which part.", "schema": {"type": "string"}},
        },
    },
    416: {"description": "No byte of the file is asked for."},
}
_LIVE: Answers = {
    200: {
        "description": "PCM16, little-endian, until the stream ends; with two channels, "
        "interleaved: inbound, outbound.",
        "content": {PCM: _BINARY},
        "headers": {
            "X-Sample-Rate": {"description": "Samples a second.", **_WHOLE_NUMBER},
            "X-Channels": {"description": "1 or 2.", **_WHOLE_NUMBER},
        },
    }
}


# What a caller said is nobody's to keep on the way.
_KEPT_BY_NOBODY = {"Cache-Control": "private, no-store"}


def call_audio_router(desk: CallDesk) -> APIRouter:
    """Make the routes under `/calls` that answer audio."""
    router = api_router("calls")
    library = desk.library

    @router.get(
        "/calls/{call_sid}/audio.wav",
        operation_id="call_audio",
        response_class=Response,
        responses={**answers(NotThere, AmbiguousCall, ArchiveBusy), **_FILE},
        openapi_extra=secured(),
    )
    async def audio(
        who: Asking,
        request: Request,
        call_sid: CallSid,
        business: OfBusiness = None,
        stream: OfStream = "",
    ) -> Response:
        """Give a call's audio as WAV, PCM16: left the caller, right the called, where both are.

        Silence stands where audio is missing. Range is obeyed once the call is over.
        """
        owner = await desk.owner(who, Permission.READ_CALLS, business, call_sid)
        asker = who.business_id or None
        recording = await library.recording(owner, call_sid, stream_sid=stream, asker=asker)
        data = {"stream": recording.stream_sid}
        await desk.audit.note_read(who, "call.audio_read", call_sid, owner, data)
        check = still_permitted(request, Permission.READ_CALLS, owner)
        return _file(recording, call_sid, request, check, library.downloading(asker))

    @router.get(
        "/calls/{call_sid}/live.pcm",
        operation_id="listen",
        response_class=Response,
        responses={**answers(NotThere, AmbiguousCall, ArchiveBusy), **_LIVE},
        openapi_extra=secured(),
    )
    async def live(
        who: Asking,
        request: Request,
        call_sid: CallSid,
        business: OfBusiness = None,
        stream: OfStream = "",
    ) -> Response:
        """Listen to a live call, a moment behind, until its stream ends.

        It ends as well when the service stops, and within 5 s when the key or session it was
        asked with has ended.
        """
        owner = await desk.owner(who, Permission.READ_CALLS, business, call_sid)
        asker = who.business_id or None
        heard = await library.live_audio(owner, call_sid, stream_sid=stream, asker=asker)
        about = {"X-Sample-Rate": str(heard.sample_rate), "X-Channels": str(heard.channels)}
        data = {"stream": heard.stream_sid}
        # Each listening is an entry: nothing asks for it again by itself.
        await desk.audit.note(who, "call.listened", call_sid, owner, data)
        return LastingResponse(
            _while_kept(library.listen(heard)),
            still_permitted(request, Permission.READ_CALLS, owner),
            library.listening(asker),
            headers=_KEPT_BY_NOBODY | about,
            media_type=PCM,
        )

    return router


def _file(
    recording: Recording,
    call_sid: str,
    request: Request,
    check: Check,
    counted: AbstractContextManager[None],
) -> Response:
    """Answer with a recording, or the part of it that is asked for; `counted` bounds readers."""
    about = {
        **_KEPT_BY_NOBODY,
        "X-Audio-Begins-At-Ms": str(recording.begins_at_ms),
        "X-Audio-Trimmed": str(recording.is_trimmed).lower(),
        "Content-Disposition": f'inline; filename="{call_sid}.wav"',
    }
    size = recording.size
    if size is None or recording.survey is None:
        about |= {"Accept-Ranges": "none"}
        return LastingResponse(
            *(recording.read(), check, counted), headers=about, media_type=WAV, has_end=True
        )
    about |= {"Accept-Ranges": "bytes", "ETag": f'"{recording.stream_sid}-{recording.version}"'}
    condition = request.headers.get("if-range")
    asked = request.headers.get("range") if condition in (None, about["ETag"]) else None
    try:
        span = asked_span(asked, size)
    except Unsatisfiable:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    if span is None:
        about |= {"Content-Length": str(size)}
        return LastingResponse(
            *(recording.read(), check, counted), headers=about, media_type=WAV, has_end=True
        )
    about |= {
        "Content-Range": f"bytes {span.first}-{span.last}/{size}",
        "Content-Length": str(span.size),
    }
    part = recording.read(span.first, span.last)
    return LastingResponse(
        *(part, check, counted), status=206, headers=about, media_type=WAV, has_end=True
    )


async def _while_kept(audio: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield audio until what keeps it is gone: no status can be said then."""
    async with aclosing(audio):
        try:
            async for block in audio:
                yield block
        except BridgeError as error:
            log.warning("[admin] Listening to a call ended: %s", error)
