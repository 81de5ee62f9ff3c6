"""Responses that go on for long: they end once whoever asked may have them no more.

A key can be revoked or expire, a session end, a business be deleted, while somebody watches,
listens or downloads. Every response that can take longer than a moment is a LastingResponse.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, aclosing, nullcontext, suppress
from typing import Final

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from app.admin.roles import Permission
from app.errors import AdminError, BridgeError, StoreUnavailable
from app.web.errors import error_response
from app.web.visitors import Visitors

log = logging.getLogger(__name__)

# A response ends within 5 s: after this pause, and a check that takes 2 s at most.
CHECK_SECONDS: Final = 2.0
LAST_WORD_SECONDS: Final = 0.5
CANCEL_AGAIN_SECONDS: Final = 0.2

Check = Callable[[], Awaitable[object]]


def still_permitted(request: Request, permission: Permission, business_id: str | None) -> Check:
    """Create a check that a request would be admitted now, with this permission.

    It authenticates the request anew, and raises an AdminError when that fails.
    """
    visitors: Visitors = request.app.state.visitors

    async def check() -> None:
        who = await visitors.principal(request)
        who.demand(permission, business_id)

    return check


class LastingResponse(StreamingResponse):
    """Stream parts until they end, the peer leaves, or `check` raises an AdminError.

    The check runs beside the parts: neither a silence nor a peer that reads slowly delays it.
    While the store is away nobody can tell, and what was known holds. The parts are closed as
    soon as the response is over. `counted` counts the peer meanwhile; where it raises a
    BridgeError, that is the answer. What `has_end`, such as a file, is cut off when the check
    fails, so that nobody takes a part of it for the whole.
    """

    def __init__(
        self,
        parts: AsyncGenerator[bytes, None],
        check: Check,
        counted: AbstractContextManager[None] | None = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str,
        has_end: bool = False,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        super().__init__(parts, status, headers, media_type)
        self._parts = parts
        self._check = check
        self._counted = counted or nullcontext()
        self._has_end = has_end
        self._check_seconds = check_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        async with aclosing(self._parts):
            with ExitStack() as counted:
                try:
                    counted.enter_context(self._counted)
                except BridgeError as error:
                    await error_response(error)(scope, receive, send)
                    return
                await self._send_until_refused(scope, receive, send)

    async def _send_until_refused(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_over = False

        async def send_until_over(message: Message) -> None:
            if is_over:
                raise asyncio.CancelledError
            await send(message)

        sending = asyncio.create_task(super().__call__(scope, receive, send_until_over))
        refusal = asyncio.create_task(self._refusal())
        try:
            await asyncio.wait({sending, refusal}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
                return
        finally:
            is_over = True
            await _cancelled(sending)
            await _cancelled(refusal)
        log.info("[admin] A response ended: %s: %s", scope["path"], refusal.result())
        await self._finish(send)

    async def _refusal(self) -> AdminError:
        """Wait until the check fails, and return why."""
        while True:
            await asyncio.sleep(self._check_seconds)
            try:
                await self._check()
            except StoreUnavailable:
                continue
            except AdminError as error:
                return error

    async def _finish(self, send: Send) -> None:
        """End the body of what has no end; the server cuts the connection of a file."""
        if self._has_end:
            return
        with suppress(TimeoutError, OSError, RuntimeError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _cancelled(task: "asyncio.Task[object]") -> None:
    """Cancel a task that may be running, and wait until it has ended.

    It is cancelled again and again: a client of Redis can lose a cancellation.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_SECONDS)
