"""A service with canaries everywhere, driven as carriers, clients and strangers do."""

import asyncio
import base64
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx
from redis import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.wire import twilio
from tests.canaries.watch import REDIS_USER, SETTINGS, Watch, canary, everything_in
from tests.service import FRAME, NUMBER, WAIT_SECONDS, Service, http_client, signature
from tests.web.test_voice import parameters

CALLER, CALLED = "+14155550137", "+14155550188"
TOKENS = SETTINGS["TWILIO_AUTH_TOKEN"].split(",")
DIGITS = "73169428"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Drive:
    """A service with canaries everywhere, its Redis, and what it has answered."""

    service: Service
    redis: Redis
    watch: Watch

    def client(self) -> httpx.AsyncClient:
        """Make a client whose answers are all looked into."""

        async def read(response: httpx.Response) -> None:
            await response.aread()
            told = f"{response.headers} {response.text}"
            # TwiML and stream URLs give a ticket to the one who is to have it.
            if "<Parameter" not in told and "ticket=" not in told:
                self.watch.search(f"the answer of {response.url.path}", told)

        return http_client(base_url=self.service.url, event_hooks={"response": [read]})

    def signed(self, path: str, form: dict[str, str], token: str = TOKENS[0]) -> dict[str, str]:
        made = self.watch.keep(signature(self.service.url + path, form, token))
        return {"X-Twilio-Signature": made, "Content-Type": FORM}

    async def call(self, number: int, token: str = TOKENS[0]) -> dict[str, str]:
        """Announce a call as Twilio does; give the parameters of its stream."""
        form = {
            "CallSid": f"CA{number:032x}",
            "From": CALLER,
            "To": NUMBER,
            "CallerName": "Ann",
            "CallToken": self.watch.keep(canary("call-token")),
            "Digits": self.watch.keep(DIGITS),
        }
        async with self.client() as client:
            path = "/twilio-voice"
            answer = await client.post(
                path, content=urlencode(form), headers=self.signed(path, form, token)
            )
        assert answer.status_code == 200
        given = parameters(answer.text)
        for part in [given["ticket"], *given["ticket"].split(".")[1:]]:
            self.watch.keep(part)
        return given

    async def stream(self, messages: list[str | bytes], query: str = "", **headers: str) -> str:
        """Send messages over a media socket; give the close's reason, or the refusal's body."""
        path = "/twilio-media" + query
        made = self.watch.keep(signature(self.service.ws_url + path, token=TOKENS[0]))
        return await self._socket(path, messages, {"X-Twilio-Signature": made, **headers})

    async def ingest(self, messages: list[str | bytes], query: str = "", **headers: str) -> str:
        return await self._socket("/v1/ingest" + query, messages, headers)

    async def _socket(self, path: str, messages: list[str | bytes], headers: dict[str, str]) -> str:
        try:
            async with (
                asyncio.timeout(WAIT_SECONDS),
                connect(
                    self.service.ws_url + path, additional_headers=headers, compression=None
                ) as socket,
            ):
                for message in messages:
                    await socket.send(message)
                while True:
                    self.watch.search(f"an answer on {path}", await socket.recv())
        except ConnectionClosed as closed:
            told = closed.rcvd.reason if closed.rcvd else ""
        except InvalidStatus as refused:
            told = (refused.response.body or b"").decode()
        self.watch.search(f"the end of {path}", told)
        return told

    async def metrics(self) -> str:
        headers = {"Authorization": f"Bearer {SETTINGS['METRICS_TOKEN']}"}
        async with self.client() as client:
            return (await client.get("/metrics", headers=headers)).text

    async def fails(self, kind: str) -> None:
        """Wait until writes fail in this way."""
        async with asyncio.timeout(WAIT_SECONDS):
            while f'bridge_broker_errors_total{{kind="{kind}"}}' not in await self.metrics():
                await asyncio.sleep(0.02)

    def verify(self) -> None:
        """Look into the log, and say whether anything was found anywhere until now."""
        numbers = Watch([CALLER, CALLED])
        for watch in (self.watch, numbers):
            watch.search("the log", self.service.logged())
        assert self.watch.found + numbers.found == []

    async def verify_metrics(self) -> None:
        metrics = await self.metrics()
        assert "bridge_calls_total" in metrics
        numbers = Watch([CALLER, CALLED])
        numbers.search("metrics", metrics)
        assert numbers.found == []

    def verify_redis(self) -> None:
        places = set()
        for place, value in everything_in(self.redis):
            self.watch.search(f"Redis, {place}", value)
            places.add(place.partition(":")[0])
        assert {"a key", "calls", "stream", "audio", "business", "exotel", "ticket"} <= places
        assert self.watch.found == []

    def login(self, password: str, rights: str = "+@all") -> None:
        """Let the service's user in by this password only, and end its connections."""
        allow_service(self.redis, password, rights)
        self.redis.execute_command("CLIENT KILL USER", REDIS_USER)  # type: ignore[no-untyped-call]


def allow_service(redis: Redis, password: str, rights: str = "+@all") -> None:
    redis.acl_setuser(
        REDIS_USER,
        enabled=True,
        reset=True,
        passwords=[f"+{password}"],
        keys=["*"],
        channels=["*"],
        commands=rights.split(),
    )


def messages(given: dict[str, str], stream: str, frames: int = 3) -> list[str | bytes]:
    """Say what Twilio says in a call with keys pressed in it."""
    call = given["callSid"]
    said: list[str | bytes] = [twilio.start_message(stream, call, params=given)]
    for number, digit in enumerate(DIGITS, start=2):
        said.append(twilio.dtmf_message(stream, digit, seq=number))
    first = 2 + len(DIGITS)
    for seq in range(first, first + frames):
        said.append(twilio.media_message(stream, FRAME, seq=seq, chunk=seq, timestamp=0))
    return [*said, twilio.stop_message(stream, call, seq=first + frames)]


def basic(pair: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
