"""Downloads: a business's data, and the audit log."""

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.admin.audit_log import MOST_ON_A_PAGE, AuditLog
from app.admin.principal import Principal
from app.admin.roles import Permission
from app.errors import ArchiveBusy, NotThere
from app.records.business_export import BusinessExport
from app.web.api.access import Entry
from app.web.api.calls import OfBusiness
from app.web.api.lasting import Check, LastingResponse, still_permitted
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
            **answers(NotThere, ArchiveBusy),
            **_described(NDJSON, "One JSON object a line; the last has the kind `end`."),
        },
        openapi_extra=secured(),
    )
    async def lines(who: Asking, request: Request, business_id: str) -> Response:
        """Export a business's settings, usage, keys, calls with events, and audit log."""
        await export.begin(who, business_id, "records")
        check = still_permitted(request, Permission.EXPORT, business_id)
        name = f"{business_id}.jsonl"
        return _download(export.lines(who, business_id), check, name, NDJSON, export.counted(who))

    @router.get(
        "/businesses/{business_id}/export.zip",
        operation_id="export-business-with-audio",
        response_class=Response,
        responses={
            **answers(NotThere, ArchiveBusy),
            **_described(ZIP, "`records.jsonl`, and `audio/CALLSID/STREAM.wav` of each recording."),
        },
        openapi_extra=secured(),
    )
    async def zipped(who: Asking, request: Request, business_id: str) -> Response:
        """Export a business's data with its recordings.

        A recording that is not in the file has a line of the kind `missing` in `records.jsonl`,
        with its `reason`; the last line, `end`, counts both.
        """
        await export.begin(who, business_id, "records and audio")
        check = still_permitted(request, Permission.EXPORT, business_id)
        name = f"{business_id}.zip"
        return _download(export.zipped(who, business_id), check, name, ZIP, export.counted(who))

    @router.get(
        "/audit/export.jsonl",
        operation_id="export-audit",
        response_class=Response,
        responses={
            **answers(NotThere, ArchiveBusy),
            **_described(NDJSON, "One entry a line, the latest first."),
        },
        openapi_extra=secured(),
    )
    async def entries(who: Asking, request: Request, business: OfBusiness = None) -> Response:
        """Export the audit log, or that of one business; an admin's, their own."""
        scope = who.scope(Permission.READ_AUDIT, business)
        await audit.note(who, "audit.exported", scope or "audit", scope or "")
        name = f"audit-{scope}.jsonl" if scope else "audit.jsonl"
        check = still_permitted(request, Permission.READ_AUDIT, scope)
        return _download(_entries(who, scope), check, name, NDJSON, export.counted(who))

    async def _entries(who: Principal, scope: str | None) -> AsyncGenerator[bytes, None]:
        before = ""
        while found := await audit.page(who, scope, before, MOST_ON_A_PAGE):
            for entry in found:
                yield msgspec.json.encode(Entry.of(entry).model_dump(mode="json")) + b"\n"
            before = found[-1].id

    return router


def _download(
    content: AsyncGenerator[bytes, None],
    check: Check,
    name: str,
    kind: str,
    counted: AbstractContextManager[None] | None = None,
) -> Response:
    """Answer with a file, and stop creating it as soon as the peer is gone or refused."""
    headers = {
        "Cache-Control": "private, no-store",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return LastingResponse(content, check, counted, headers=headers, media_type=kind, has_end=True)
