"""Downloads: a business's data, and the audit log."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.admin.audit_log import MOST_ON_A_PAGE, AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.errors import NotThere
from app.records.business_export import BusinessExport
from app.web.api.access import Entry
from app.web.api.calls import OfBusiness
from app.web.api.route import Asking, answers, api_router, secured
from app.web.documented import Answers

NDJSON = "application/x-ndjson"
ZIP = "application/zip"


def _described(kind: str, words: str) -> Answers:
    schema = {"type": "string", **({"format": "binary"} if kind == ZIP else {})}
    return {200: {"description": words, "content": {kind: {"schema": schema}}}}


def exports_router(export: BusinessExport, audit: AuditLog) -> APIRouter:
    """Create the routes of downloads."""
    router = api_router("exports")

    @router.get(
        "/businesses/{business_id}/export.jsonl",
        operation_id="export-business",
        response_class=Response,
        responses={
            **answers(NotThere),
            **_described(NDJSON, "One JSON object a line; the last has the kind `end`."),
        },
        openapi_extra=secured(),
    )
    async def lines(who: Asking, business_id: str) -> Response:
        """Export a business's settings, usage, keys, calls with events, and audit log."""
        await export.begin(who, business_id, "records")
        return Download(export.lines(who, business_id), f"{business_id}.jsonl", NDJSON)

    @router.get(
        "/businesses/{business_id}/export.zip",
        operation_id="export-business-with-audio",
        response_class=Response,
        responses={
            **answers(NotThere),
            **_described(ZIP, "`records.jsonl`, and `audio/CALLSID/STREAM.wav` of each recording."),
        },
        openapi_extra=secured(),
    )
    async def zipped(who: Asking, business_id: str) -> Response:
        """Export a business's data with its recordings."""
        await export.begin(who, business_id, "records and audio")
        return Download(export.zipped(who, business_id), f"{business_id}.zip", ZIP)

    @router.get(
        "/audit/export.jsonl",
        operation_id="export-audit",
        response_class=Response,
        responses={
            **answers(NotThere),
            **_described(NDJSON, "One entry a line, the latest first."),
        },
        openapi_extra=secured(),
    )
    async def entries(who: Asking, business: OfBusiness = None) -> Response:
        """Export the audit log, or that of one business; an admin's, their own."""
        scope = who.scope(Permission.READ_AUDIT, business)
        await audit.note(who, "audit.exported", scope or "audit", scope or "")
        name = f"audit-{scope}.jsonl" if scope else "audit.jsonl"
        return Download(_entries(who, scope), name, NDJSON)

    async def _entries(who: Principal, scope: str | None) -> AsyncGenerator[bytes, None]:
        before = ""
        while found := await audit.page(who, scope, before, MOST_ON_A_PAGE):
            for entry in found:
                yield msgspec.json.encode(Entry.of(entry).model_dump(mode="json")) + b"\n"
            before = found[-1].id

    return router


class Download(StreamingResponse):
    """Stream a file, and stop making it as soon as the peer is gone."""

    def __init__(self, content: AsyncGenerator[bytes, None], name: str, kind: str) -> None:
        headers = {
            "Cache-Control": "private, no-store",
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        super().__init__(content, 200, headers, kind)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with aclosing(self._content):
            await super().__call__(scope, receive, send)
