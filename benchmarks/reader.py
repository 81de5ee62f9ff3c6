"""A reader of some streams: a process of its own, which notes when each entry came."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from redis import Redis

from benchmarks.beside import END_SECONDS, beside

BLOCK_MS = 100
READ_COUNT = 500

Arrivals = dict[str, list[tuple[int | None, float]]]


class Reader:
    """The process, as its parent has it."""

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        self._pipe = pipe
        self._reads = False

    def begin(self) -> None:
        """Let it read, from each stream's beginning."""
        self._reads = True
        self._pipe.send(True)

    def end(self) -> Arrivals:
        """Stop it; give each stream's entries, their number and monotonic time of arrival."""
        if not self._reads:
            return {}
        self._pipe.send(False)
        arrivals: Arrivals = self._pipe.recv() if self._pipe.poll(END_SECONDS) else {}
        return arrivals


@contextmanager
def reader(redis_url: str, keys: Sequence[str]) -> Iterator[Reader]:
    """Start a reader; it waits until it is told to begin."""
    with beside(_run, redis_url, list(keys)) as pipe:
        # It has imported all it needs.
        pipe.recv()
        yield Reader(pipe)


def _run(redis_url: str, keys: list[str], pipe: "Connection[Any, Any]") -> None:
    try:
        # A blocking read needs a longer time-out than its block.
        with Redis.from_url(redis_url, protocol=2, socket_timeout=5) as client:
            client.ping()
            pipe.send(True)
            if pipe.recv():
                pipe.send(_follow(client, keys, pipe))
    except (EOFError, BrokenPipeError):
        # The parent has given up.
        return


def _follow(client: "Redis", keys: list[str], pipe: "Connection[Any, Any]") -> Arrivals:
    newest: dict[Any, Any] = {key.encode(): "0" for key in keys}
    arrivals: Arrivals = defaultdict(list)
    while not pipe.poll():
        answer: Any = client.xread(newest, READ_COUNT, BLOCK_MS)
        now = time.monotonic()
        for key, entries in answer or ():
            newest[key] = entries[-1][0]
            came = arrivals[key.decode()]
            for _, fields in entries:
                if b"event" not in fields:
                    seq = fields.get(b"seq")
                    came.append((None if seq is None else int(seq), now))
    return dict(arrivals)
