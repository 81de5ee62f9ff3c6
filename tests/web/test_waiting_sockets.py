"""Sockets that wait for their stream: one business's leave room for another's."""

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.businesses import BUSINESSES, business, plan
from tests.service import Service, running_service, service_alone
from tests.web.test_credential_binding import A, B, basic
from tests.web.test_failed_credentials import JWT_SECRET, PAIR, token

PAIR_OF_A = "a-key-of-the-tests:a-token-of-the-tests"
PAIR_OF_B = "b-key-of-the-tests:b-token-of-the-tests"
MOST = 10


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Start a service with room for ten sockets without a stream, on a Redis of its own."""
    directory = tmp_path_factory.mktemp("waiting")
    more = directory / "more.toml"
    text = plan("roomy", max_concurrent_calls=500)
    text += business(A, "roomy", "+15005552001", exotel_pairs=[PAIR_OF_A])
    text += business(B, "roomy", "+15005552002", exotel_pairs=[PAIR_OF_B])
    more.write_text(BUSINESSES + text, encoding="utf-8")
    with service_alone(
        directory,
        BUSINESSES_FILE=str(more),
        SUPPORT_EXOTEL="true",
        EXOTEL_API_KEY=PAIR[0],
        EXOTEL_API_TOKEN=PAIR[1],
        JWT_SECRET=JWT_SECRET,
        MAX_UNADMITTED_SOCKETS=str(MOST),
    ) as running:
        yield running


async def opened(
    service: Service, stack: AsyncExitStack, headers: dict[str, str]
) -> ClientConnection | int:
    """Open a socket that sends nothing; return it, or the status that it was refused with."""
    try:
        return await stack.enter_async_context(
            connect(f"{service.ws_url}/v1/ingest", additional_headers=headers, compression=None)
        )
    except InvalidStatus as error:
        is_told = (
            b"too_many_sockets" in error.response.body and error.response.headers["Retry-After"]
        )
        return error.response.status_code if is_told else 0


async def test_waiting_sockets_of_a_business_leave_room_for_others(service: Service) -> None:
    async with AsyncExitStack() as stack:
        of_a = [await opened(service, stack, basic(PAIR_OF_A)) for _ in range(2 * MOST)]
        sockets = [socket for socket in of_a if isinstance(socket, ClientConnection)]
        assert len(sockets) == MOST // 2
        assert set(of_a[MOST // 2 :]) == {503}
        for shown in (basic(PAIR_OF_B), basic(":".join(PAIR)), {"Authorization": token()}):
            assert isinstance(await opened(service, stack, shown), ClientConnection)
        await sockets[0].close()
        await sockets[1].close()
        await sockets[2].close()
        assert isinstance(await opened(service, stack, basic(PAIR_OF_A)), ClientConnection)


async def test_waiting_sockets_of_exotels_addresses_leave_room_for_others(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> None:
    with running_service(
        tmp_path_factory.mktemp("addresses"),
        redis_url,
        SUPPORT_EXOTEL="true",
        EXOTEL_ALLOWED_IPS="127.0.0.0/8",
        JWT_SECRET=JWT_SECRET,
        MAX_UNADMITTED_SOCKETS=str(MOST),
    ) as service:
        async with AsyncExitStack() as stack:
            shown = [await opened(service, stack, {}) for _ in range(2 * MOST)]
            assert shown[MOST // 2 :] == [503] * (2 * MOST - MOST // 2)
            token_of_a_client = {"Authorization": token()}
            assert isinstance(await opened(service, stack, token_of_a_client), ClientConnection)
