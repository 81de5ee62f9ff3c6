"""Two businesses that share one deployment, each with live calls, finished calls and keys.

`ours` is the business whose credentials a test holds, `theirs` the one it must not
reach. Calls are placed over real sockets, which stay open in a thread of their own.
"""

import asyncio
import base64
import re
import secrets
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import jwt
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.tools.embedded import EmbeddedRedis
from app.wire import exotel, twilio
from tests.businesses import business, plan
from tests.service import Service, running_service, signature
from tests.waiting import WAIT_SECONDS, wait_until
from tests.web.test_voice import parameters

_T = TypeVar("_T")

OPERATOR_TOKEN = "a-token-for-operators-with-enough-letters"
JWT_SECRET = "j" * 32
SHARED_PAIR = "shared-exotel-key:shared-exotel-token"
SERVICE_TOKEN = "12345"
FRAME = b"\x80\x00" * 80
API = "/api/v1"
CALLER = "+12763659195"
ROLES = ("viewer", "agent", "admin")
# Nothing that one business is answered may contain this text of the other's.
CANARY = "canary"
# The other's id begins as ours does: a prefix must not be taken for a name.
OURS, THEIRS = "shop", f"shop.{CANARY}"
BUSINESSES = frozenset({OURS, THEIRS})

SETTINGS = {
    "ADMIN_TOKEN": OPERATOR_TOKEN,
    "ADMIN_MAY_SPEAK": "true",
    "TRUSTED_PROXIES": "127.0.0.0/8",
    "SUPPORT_EXOTEL": "true",
    "EXOTEL_API_KEY": SHARED_PAIR.partition(":")[0],
    "EXOTEL_API_TOKEN": SHARED_PAIR.partition(":")[2],
    "EXOTEL_ALLOWED_IPS": "192.0.2.0/24",
    "JWT_SECRET": JWT_SECRET,
    "MEDIA_IDLE_SECONDS": "3600",
    "INGEST_IDLE_SECONDS": "3600",
    "METRICS_TOKEN": "a-token-for-metrics-with-enough-letters",
}


class Sockets:
    """Run coroutines in a thread of their own, so that sockets live beside a test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open: list[ClientConnection] = []
        self._readers: set[asyncio.Future[None]] = set()

    async def open(self, url: str, headers: Mapping[str, str]) -> ClientConnection:
        """Open a socket that stays open until the thread stops, or its peer closes it."""
        socket = await connect(url, additional_headers=dict(headers), compression=None)
        self._open.append(socket)
        # What is not read would fill up, and hold back the answers to pings.
        self._readers.add(asyncio.ensure_future(_read(socket)))
        return socket

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what `work` returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * WAIT_SECONDS)

    def close(self) -> None:
        """Cut every connection, and stop the thread."""

        async def cut() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for socket in self._open:
                socket.transport.abort()
                await socket.wait_closed()
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.run(cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _read(socket: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        async for _ in socket:
            pass


@dataclass(frozen=True)
class Call:
    """A call as its business knows it."""

    call_sid: str
    # What the peer called its stream, and what the service calls it.
    peer_name: str
    stream: str
    socket: ClientConnection | None = field(default=None, compare=False, repr=False)


@dataclass
class Tenant:
    """A business of the world, and everything that a request could name of it."""

    id: str
    number: str
    pair: str
    twilio_token: str
    account_sid: str
    plan: str
    # The text of a key, and its id, by role.
    keys: dict[str, str] = field(default_factory=dict)
    key_ids: dict[str, str] = field(default_factory=dict)
    session_id: str = ""
    pair_id: str = ""
    live: Call = field(default_factory=lambda: Call("", "", ""))
    ended: Call = field(default_factory=lambda: Call("", "", ""))
    exotel: Call = field(default_factory=lambda: Call("", "", ""))
    client: Call = field(default_factory=lambda: Call("", "", ""))
    tickets: list[str] = field(default_factory=list)

    @property
    def calls(self) -> tuple[Call, ...]:
        """Return every call that was placed for it."""
        return self.live, self.ended, self.exotel, self.client

    def token(self, **claims: Any) -> str:
        """Return a Bearer value for an own client of this business."""
        given = {"tenant_id": self.id, "exp": int(time.time()) + 600, **claims}
        return "Bearer " + jwt.encode(given, JWT_SECRET, algorithm="HS256")

    def basic(self) -> str:
        """Return the Authorization value of its own Exotel pair."""
        return "Basic " + base64.b64encode(self.pair.encode()).decode()


def _tenant(name: str, number: str) -> Tenant:
    return Tenant(
        id=name,
        number=number,
        pair=f"exotel-key-of-{name}:exotel-token-of-{name}-0123456789",
        twilio_token=secrets.token_hex(16),
        account_sid="AC" + secrets.token_hex(16),
        plan=f"plan-of-{name}",
    )


class World:
    """A deployment of one or two replicas, and its two businesses."""

    def __init__(
        self, replicas: list[Service], sockets: Sockets, ours: Tenant, theirs: Tenant
    ) -> None:
        # Requests are sent to the first replica; the last one holds the other's calls.
        self.near, self.far = replicas[0], replicas[-1]
        self.sockets = sockets
        self.ours, self.theirs = ours, theirs
        self.redis = Redis.from_url(self.near.redis_url)
        self.http = httpx.Client(base_url=self.near.url, timeout=WAIT_SECONDS)
        self._sessions: dict[str, tuple[str, str]] = {}

    def session(self, role: str) -> tuple[str, str]:
        """Return the cookie and the form token of a session of ours with this role."""
        if role not in self._sessions:
            # One key signs in only so often a minute.
            self._sessions[role] = self.sign_in(self.new_key(self.ours, role)[0])
        return self._sessions[role]

    def operator(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request of the operator's that must succeed."""
        headers = {"Authorization": f"Bearer {OPERATOR_TOKEN}", **more.pop("headers", {})}
        answer = self.http.request(method, API + path, headers=headers, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def new_key(self, tenant: Tenant, role: str) -> tuple[str, str]:
        """Issue an access key; return its text and its id."""
        body = {"label": f"{role} of {tenant.id}", "role": role}
        issued = self.operator("POST", f"/businesses/{tenant.id}/keys", json=body).json()
        return issued["key"], issued["id"]

    def new_session(self, tenant: Tenant, role: str = "admin") -> str:
        """Sign somebody in; return the id of the session."""
        query = {"business": tenant.id}
        before = self.operator("GET", "/sessions", params=query).json()["items"]
        self.sign_in(self.new_key(tenant, role)[0])
        after = self.operator("GET", "/sessions", params=query).json()["items"]
        [made] = {one["id"] for one in after} - {one["id"] for one in before}
        return str(made)

    def new_pair(self, tenant: Tenant) -> str:
        """Generate an Exotel pair; return its id. A business has room for a few: others go."""
        path = f"/businesses/{tenant.id}/exotel-pairs"
        for pair in self.operator("GET", path).json()["items"][2:]:
            self.operator("DELETE", f"{path}/{pair['id']}")
        return str(self.operator("POST", path, json={"label": "generated"}).json()["id"])

    def new_number(self, tenant: Tenant) -> str:
        """Give a business one more number; return it."""
        number = "+15005550303"
        path = f"/businesses/{tenant.id}/numbers"
        if number not in self.operator("GET", path).text:
            body = {"numbers": [tenant.number, number]}
            self.operator("PUT", path, json=body, headers={"If-Match": "*"})
        return number

    def forget_sessions(self) -> None:
        """Sign in anew for the next request of each role."""
        self._sessions.clear()

    def operator_session(self) -> tuple[str, str]:
        """Return the cookie and the form token of a session of the operator's."""
        if "operator" not in self._sessions:
            self._sessions["operator"] = self.sign_in(OPERATOR_TOKEN)
        return self._sessions["operator"]

    def sign_in(self, key: str) -> tuple[str, str]:
        """Sign in on the page; return the cookie and the form token of the session."""
        answer = self.http.post("/admin/sign-in", data={"key": key})
        assert answer.status_code == 303, answer.text
        cookie = answer.headers["set-cookie"].partition(";")[0]
        self.http.cookies.clear()
        page = self.http.get("/admin", headers={"Cookie": cookie})
        token = re.search(r'name="csrf" value="([^"]+)"', page.text)
        assert token is not None, page.text
        return cookie, token[1]

    def ring(
        self, tenant: Tenant, service: Service | None = None, caller: str = CALLER
    ) -> dict[str, str]:
        """Ring a business at its number; return the stream's parameters.

        A process that has just started may not have reached Redis in time for a call.
        """
        found: dict[str, str] = {}

        def is_answered() -> bool:
            found.update(parameters(self._voice(tenant, service or self.near, caller)))
            return "ticket" in found

        wait_until(is_answered)
        self.announced(found["callSid"])
        return found

    def _voice(self, tenant: Tenant, service: Service, caller: str) -> str:
        form = {
            "CallSid": "CA" + secrets.token_hex(16),
            "AccountSid": "AC" + "0" * 32,
            "From": caller,
            "To": tenant.number,
            "CallStatus": "ringing",
        }
        url = f"{service.url}/twilio-voice"
        headers = {"X-Twilio-Signature": signature(url, form)}
        answer = httpx.post(url, data=form, headers=headers, timeout=WAIT_SECONDS)
        assert answer.status_code == 200, answer.text
        return answer.text

    def announced(self, call_sid: str) -> None:
        """Wait until the event of a call's arrival is written."""

        wait_until(lambda: self._streams_of("call.incoming", call_sid))

    def twilio_call(
        self,
        tenant: Tenant,
        service: Service | None = None,
        frames: int = 0,
        caller: str = CALLER,
    ) -> Call:
        """Begin a Twilio call and publish `frames` frames; its socket stays open."""
        service = service or self.near
        said = self.ring(tenant, service, caller)
        call_sid, stream_sid = said["callSid"], "MZ" + secrets.token_hex(16)

        async def begin() -> ClientConnection:
            url = f"{service.ws_url}/twilio-media"
            headers = {"X-Twilio-Signature": signature(url)}
            socket = await self.sockets.open(url, headers)
            await socket.send(twilio.connected_message())
            await socket.send(twilio.start_message(stream_sid, call_sid, params=said))
            for number in range(frames):
                await socket.send(
                    twilio.media_message(
                        stream_sid, FRAME, seq=number + 2, chunk=number + 1, timestamp=20 * number
                    )
                )
            return socket

        socket = self.sockets.run(begin())
        call = Call(call_sid, stream_sid, self.stream_of(call_sid), socket)
        wait_until(lambda: self.redis.xlen(f"audio:{{{call.stream}}}") >= frames)
        return call

    def end(self, call: Call) -> Call:
        """End a Twilio call as Twilio does; return it when its receipt is there."""

        async def stop() -> None:
            assert call.socket is not None
            await call.socket.send(twilio.stop_message(call.peer_name, call.call_sid, seq=1000))
            await call.socket.wait_closed()

        self.sockets.run(stop())
        wait_until(lambda: self.redis.hexists(f"stream:{{{call.stream}}}", "receipt"))
        wait_until(
            lambda: self.operator("GET", f"/calls/{call.call_sid}").json()["ended_at"] is not None
        )
        return call

    def exotel_call(self, tenant: Tenant, service: Service) -> Call:
        """Begin an Exotel call by the business's own pair; its socket stays open."""
        peer_name, call_sid = "exotel-" + secrets.token_hex(8), secrets.token_hex(16)

        async def begin() -> ClientConnection:
            headers = {"Authorization": tenant.basic()}
            socket = await self.sockets.open(f"{service.ws_url}/v1/ingest", headers)
            await socket.send(exotel.connected_message())
            await socket.send(exotel.start_message(peer_name, call_sid, to_number=tenant.number))
            return socket

        socket = self.sockets.run(begin())
        return Call(call_sid, peer_name, self.stream_of(call_sid), socket)

    def client_call(self, tenant: Tenant, service: Service) -> Call:
        """Begin a stream of an own client by token; its socket stays open."""
        interaction = "interaction-" + secrets.token_hex(8)

        async def begin() -> ClientConnection:
            headers = {"Authorization": tenant.token()}
            socket = await self.sockets.open(f"{service.ws_url}/v1/ingest", headers)
            await socket.send(f'{{"event":"start","interaction_id":"{interaction}"}}')
            return socket

        socket = self.sockets.run(begin())
        return Call(interaction, interaction, self.stream_of(interaction), socket)

    def stream_of(self, call_sid: str) -> str:
        """Wait until a call's stream has begun; return the stream's id."""
        wait_until(lambda: self._streams_of("stream.started", call_sid))
        return self._streams_of("stream.started", call_sid)[-1]

    def _streams_of(self, event: str, call_sid: str) -> list[str]:
        """Return the stream that each event of this name and call is about."""
        entries: Any = self.redis.xrevrange("calls", count=200)
        return [
            fields[b"streamSid"].decode()
            for _, fields in reversed(entries)
            if (fields[b"event"], fields[b"callSid"]) == (event.encode(), call_sid.encode())
        ]

    def _is_held(self, stream: str) -> bool:
        held: Any = self.redis.zrange("held:{streams}", 0, -1)
        return any(name.startswith(f"{stream}@".encode()) for name in held)

    def settle(self) -> None:
        """Give each business its keys, secrets and calls."""
        for tenant, service in ((self.ours, self.near), (self.theirs, self.far)):
            for role in ROLES:
                tenant.keys[role], tenant.key_ids[role] = self.new_key(tenant, role)
            self.operator(
                "PATCH",
                f"/businesses/{tenant.id}/secrets",
                json={"twilio_auth_tokens": [tenant.twilio_token]},
            )
            tenant.pair_id = self.new_pair(tenant)
            tenant.session_id = self.new_session(tenant)
            tenant.ended = self.end(self.twilio_call(tenant, service, frames=50))
            tenant.live = self.twilio_call(tenant, service, frames=5)
            tenant.exotel = self.exotel_call(tenant, service)
            tenant.client = self.client_call(tenant, service)
        # A lease is given up some seconds after its stream's end.
        wait_until(
            lambda: not any(self._is_held(one.ended.stream) for one in (self.ours, self.theirs))
        )


def businesses_of(*tenants: Tenant) -> str:
    """Return the businesses file of these businesses."""
    lines = []
    for one in tenants:
        lines.append(plan(one.plan, max_concurrent_calls=60, return_audio=True))
        lines.append(
            business(
                *(one.id, one.plan, one.number),
                greeting=f"Hello from {one.id}",
                twilio_account_sid=one.account_sid,
                exotel_pairs=[one.pair],
                capture_calls=True,
            )
        )
    return "".join(lines)


@contextmanager
def a_world(directory: Path, *, replicas: int, workers: int = 1) -> Iterator[World]:
    """Run a deployment with both businesses in it, their calls under way."""
    arguments = ("--workers", str(workers)) if workers > 1 else ()
    ours, theirs = _tenant(OURS, "+15005550101"), _tenant(THEIRS, "+15005550202")
    file = directory / "two-businesses.toml"
    file.write_text(businesses_of(ours, theirs), encoding="utf-8")
    with ExitStack() as stack:
        redis = stack.enter_context(EmbeddedRedis(directory / "redis", persistent=False))
        running = []
        for number in range(replicas):
            place = directory / f"replica-{number}"
            place.mkdir()
            variables: Mapping[str, str] = {**SETTINGS, "BUSINESSES_FILE": str(file)}
            running.append(
                stack.enter_context(running_service(place, redis.url, *arguments, **variables))
            )
        sockets = Sockets()
        stack.callback(sockets.close)
        world = World(running, sockets, ours, theirs)
        stack.callback(world.http.close)
        stack.callback(world.redis.close)
        world.settle()
        yield world
