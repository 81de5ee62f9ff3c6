"""Our uvicorn server: it finishes live calls before it stops."""

import asyncio
import gc
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import uvicorn

from app.metrics import Metrics
from app.server.config import GuardedConfig
from app.server.http import HttpProtocol
from app.server.rules import DEFAULT_RULES, SocketRules
from app.server.sockets import Doorkeeper, raise_file_limit
from app.server.websocket import MediaSocketProtocol
from app.wire.base import MAX_MESSAGE_BYTES

# Longer than the 60-90 s that platforms' routers keep an idle connection, so that
# it is never ours that closes under a request.
KEEP_ALIVE_SECONDS = 95


class DrainingServer(uvicorn.Server):
    """Stop taking calls at the first signal, and stop serving when the last has ended.

    uvicorn closes every WebSocket with 1012 before the application hears of a
    shutdown; so the wait must come before its own. Repeated SIGTERMs change
    nothing; Ctrl-C twice stops at once.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        refuse_new_calls: Callable[[], None],
        drain: Callable[[], Awaitable[None]],
        on_listening: Callable[[int], None],
    ) -> None:
        super().__init__(config)
        self._on_listening = on_listening
        self._refuse_new_calls = refuse_new_calls
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: refuse new calls from this moment on."""
        if not self.should_exit:
            self._refuse_new_calls()
        if sig == signal.SIGINT and self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say on which port."""
        raise_file_limit()
        await super().startup(sockets)
        # What stands now stays to the end: to look through it again and again for
        # garbage would stop all calls for tens of ms each time.
        gc.collect()
        gc.freeze()
        if self.started:
            self._on_listening(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the drain, or for a second Ctrl-C; then shut down as uvicorn does."""
        async with asyncio.TaskGroup() as tasks:
            drain = tasks.create_task(self._wait_for_calls())
            while not drain.done() and not self.force_exit:
                await asyncio.wait({drain}, timeout=0.1)
            drain.cancel()
        await super().shutdown(sockets)

    async def _wait_for_calls(self) -> None:
        await self._drain()


def server_config(
    app: Any,
    host: str,
    port: int,
    *,
    rules: SocketRules = DEFAULT_RULES,
    metrics: Metrics | None = None,
) -> GuardedConfig:
    """Configure uvicorn: bounded messages and peers, no compression, no log of its own.

    permessage-deflate is off: audio does not shrink, and a connection costs a
    third of the memory without it. So are pings of uvicorn's own: a session asks
    a peer that has fallen silent, and knows then what its silence means. What the
    rules close is counted in `metrics`.
    """
    return GuardedConfig(
        app,
        Doorkeeper(rules, metrics or Metrics()),
        host=host,
        port=port,
        loop="uvloop",
        http=HttpProtocol,
        ws=MediaSocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        ws_ping_timeout=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=5,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
    )
