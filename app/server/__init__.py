"""Our uvicorn: it finishes live calls before it stops, and no peer can starve another."""

from app.server.config import GuardedConfig
from app.server.draining import DrainingServer, server_config
from app.server.rules import DEFAULT_RULES, NO_BUDGETS, SocketRules
from app.server.websocket import MediaSocketProtocol

__all__ = [
    "DEFAULT_RULES",
    "NO_BUDGETS",
    "DrainingServer",
    "GuardedConfig",
    "MediaSocketProtocol",
    "SocketRules",
    "server_config",
]
