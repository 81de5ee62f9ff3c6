"""A process of its own beside the load, on the load's cores."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from app.errors import LocalError

END_SECONDS = 15.0


@contextmanager
def beside(run: Callable[..., None], *given: object) -> Iterator["Connection[Any, Any]"]:
    """Start a process that runs `run(*given, pipe)`; give our end of the pipe.

    At the end the pipe is closed, and the process has some seconds to see that.

    Raises:
        LocalError: it ended while the block waited for it.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(*given, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    except (EOFError, BrokenPipeError) as error:
        raise LocalError("a process beside the load has ended") from error
    finally:
        ours.close()
        process.join(END_SECONDS)
        process.kill()
