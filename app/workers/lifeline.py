"""A worker's end of the socket that joins it to its supervisor."""

import os
import signal
import socket
import threading
from contextlib import suppress

LISTENING = "listening"
UNUSABLE = "unusable"


class Lifeline:
    """Tell the supervisor how the start went, and notice when it is gone.

    The supervisor never writes: what ends the reading is its end, by SIGKILL
    too. Calls are live then, so that the worker drains as it does on SIGTERM.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self.is_cut = False

    def watch(self) -> None:
        """Send this process SIGTERM when the supervisor ends; from now on."""
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def report_listening(self) -> None:
        """Say that connections are accepted."""
        self._report(LISTENING)

    def report_unusable(self, why: str) -> None:
        """Say that there is no use in another try with these settings."""
        self._report(f"{UNUSABLE} {' '.join(why.split())}")

    def _report(self, line: str) -> None:
        with suppress(OSError):  # nobody is there to hear it
            self._socket.sendall(f"{line}\n".encode())

    def _watch(self) -> None:
        with suppress(ConnectionResetError):
            while self._socket.recv(64):
                pass
        self.is_cut = True
        os.kill(os.getpid(), signal.SIGTERM)
