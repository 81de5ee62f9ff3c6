"""uvicorn's HTTP protocol with an end to every wait."""

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from app.server.config import GuardedConfig
from app.server.rules import (
    LINGER_SECONDS,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED,
    Fault,
)

# As much as is parsed before the limits are looked at again.
PART_BYTES = 16 * 1024

# RFC 3986, 3.2.2 and 3.2.3, without user information, which no Host header carries.
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_ANSWERS = {
    400: b"this is no HTTP request\n",
    408: b"the request did not come whole in time\n",
    431: b"the request's headers are too large or too many\n",
}


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which waits for no peer without an end.

    uvicorn 0.54 has no deadline but that between requests, and no limit of a
    request's headers. Here one deadline watches the connection: for the first
    byte, then for a whole request, then for the answer to be made and read. An
    answer that goes on, as one of events does, may as long as it is read.
    """

    def __init__(
        self,
        config: GuardedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door = config.door
        self._deadline: asyncio.TimerHandle | None = None
        self._awaited: Fault | None = None
        self._in_request = False
        self._in_headers = False
        self._header_bytes = 0
        self._refusal = 400
        self._was_read = False

    # ------------------------------------------------------------ the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there is room."""
        super().connection_made(transport)
        if not self._door.connections.add(self):
            self._door.note(Fault.TOO_MANY, self.client)
            transport.abort()
            return
        self._await(Fault.NO_REQUEST, self._door.rules.first_byte_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._leave()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the WebSocket protocol, which has deadlines of its own."""
        self._leave()
        super().handle_websocket_upgrade()

    def resume_writing(self) -> None:
        """Note that the peer reads a long answer."""
        self._was_read = True
        super().resume_writing()

    def give_way(self) -> None:
        """Close, for a newer one."""
        self._door.note(Fault.GAVE_WAY, self.client)
        self._close()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket, and look at the limits in between."""
        if self._awaited in (None, Fault.NO_REQUEST):
            self._await(Fault.SLOW_REQUEST, self._door.rules.request_seconds)
        for start in range(0, len(data), PART_BYTES):
            part = data[start : start + PART_BYTES]
            if self._in_headers or not self._in_request:
                self._header_bytes += len(part)
            super().data_received(part)
            if self.transport.get_protocol() is not self or self.transport.is_closing():
                return
            if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
                self._refusal = 431
                self.send_400_response("")
                return
            if len(self.pipeline) > MAX_PIPELINED:
                self._door.note(Fault.PIPELINING, self.client)
                self._close()
                return

    # ---------------------------------------------------------------- the request

    def on_message_begin(self) -> None:
        """Begin to read a request."""
        super().on_message_begin()
        self._in_request = self._in_headers = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if len(self.headers) >= MAX_HEADERS:
            self._refusal = 431
            raise ValueError("too many headers")  # ends the parsing
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Serve the request, unless its headers are too long."""
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refusal = 431
            raise ValueError("too long headers")  # ends the parsing
        self._check_host()
        self._in_headers = False
        self._header_bytes = 0
        super().on_headers_complete()

    def _check_host(self) -> None:
        """Refuse a request that names its host twice, not at all, or in two ways.

        RFC 9112, 3.2: "A server MUST respond with a 400 status code to any HTTP/1.1
        request message that lacks a Host header field and to any request message that
        contains more than one Host header field line or a Host header field with an
        invalid field value." What came before HTTP/1.0 has no headers, and opens no
        WebSocket; neither does 1.0 (RFC 6455, 4.1).
        """
        version = self.parser.get_http_version()
        hosts = [value for name, value in self.headers if name == b"host"]
        opens_socket = self.parser.should_upgrade() and self._should_upgrade()
        if version != "1.1" and (version != "1.0" or opens_socket):
            raise ValueError("not HTTP/1.1 or HTTP/1.0")  # ends the parsing, as below
        if len(hosts) > 1 or (version == "1.1" and not hosts):
            raise ValueError("not one Host header")
        if not all(_HOST.fullmatch(host) for host in hosts):
            raise ValueError("a Host header that is no host")
        if self.url[:1] not in (b"/", b"*"):
            target = _ABSOLUTE_FORM.match(self.url)
            if target is None or (hosts and target[1].lower() != hosts[0].lower()):
                raise ValueError("a target of another host than the Host header's")

    def on_message_complete(self) -> None:
        """Note that the request has come whole."""
        self._in_request = False
        super().on_message_complete()
        self._door.connections.serve(self)
        self._await(Fault.SLOW_RESPONSE, self._door.rules.response_seconds)

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the answer to one that waits already."""
        super().on_response_complete()
        if not self.transport.is_closing():  # else the deadline still watches that it is read
            self._settle()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, or is too large."""
        if self._refusal == 431:
            self._door.note(Fault.TOO_LARGE, self.client)
        self._answer_and_close(self._refusal)

    # ------------------------------------------------------------------- its end

    def _await(self, awaited: Fault | None, seconds: float) -> None:
        """Set the one deadline: what it would be missed by, or None for none."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._awaited = awaited
        if awaited is not None:
            self._deadline = self.loop.call_later(seconds, self._too_late, awaited)

    def _settle(self) -> None:
        """Wait for what is next, now that an answer is made."""
        if not self.cycle.response_complete:
            self._await(Fault.SLOW_RESPONSE, self._door.rules.response_seconds)
            return
        self._door.connections.wait(self)
        if self._in_request:
            if self._awaited is not Fault.SLOW_REQUEST:
                self._await(Fault.SLOW_REQUEST, self._door.rules.request_seconds)
        elif self.transport.get_write_buffer_size():
            self._await(Fault.SLOW_RESPONSE, self._door.rules.response_seconds)
        else:
            self._await(None, 0)  # uvicorn watches a connection between requests

    def _too_late(self, fault: Fault) -> None:
        is_made = self.cycle is not None and self.cycle.response_complete
        if fault is Fault.SLOW_RESPONSE and is_made and not self.transport.get_write_buffer_size():
            self._settle()  # it was read in the meantime
            return
        if fault is Fault.SLOW_RESPONSE and self._goes_on():
            self._await(fault, self._door.rules.response_seconds)
            return
        self._door.note(fault, self.client)
        is_answered = self.cycle is not None and self.cycle.response_started and not is_made
        if fault is Fault.SLOW_REQUEST and not is_answered:
            self._answer_and_close(408)
        else:
            self._close()

    def _goes_on(self) -> bool:
        """Tell whether an answer has begun, has not ended, and what there is of it is read."""
        was_read, self._was_read = self._was_read, False
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            return False
        return was_read or not self.flow.write_paused

    def _answer_and_close(self, status: int) -> None:
        body = _ANSWERS[status]
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: text/plain; charset=utf-8\r\n"
            + b"".join(b"%s: %s\r\n" % header for header in self._door.rules.own_headers)
            + b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self._close()

    def _close(self) -> None:
        """Close; cut what the peer does not read."""
        self.transport.close()
        self._await(None, 0)
        self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _leave(self) -> None:
        self._await(None, 0)
        self._door.connections.remove(self)
