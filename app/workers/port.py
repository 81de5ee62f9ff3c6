"""The port that all workers share."""

import socket
from contextlib import ExitStack

from app.errors import SettingsError

# As many connections may wait to be accepted; what uvicorn asks for.
BACKLOG = 2048


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen at every address of `host`; each worker accepts from all of them.

    Raises:
        SettingsError: the port cannot be listened on, in one line.
    """
    with ExitStack() as opened:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            sockets = [
                opened.enter_context(socket.create_server(address, family=family, backlog=BACKLOG))
                for family, _, _, _, address in dict.fromkeys(found)
            ]
        except OSError as error:
            raise SettingsError(
                "PORT", f"cannot be listened on: {error.strerror}", "8001"
            ) from error
        opened.pop_all()
    return sockets
