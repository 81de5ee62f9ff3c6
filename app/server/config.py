"""uvicorn's configuration, and with it what our protocol classes need."""

from typing import Any

import uvicorn

from app.server.sockets import Doorkeeper


class GuardedConfig(uvicorn.Config):
    """A configuration that knows the doorkeeper; uvicorn hands it to each connection."""

    def __init__(self, app: Any, door: Doorkeeper, **options: Any) -> None:
        super().__init__(app, **options)
        self.door = door
