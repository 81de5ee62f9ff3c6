"""Connections and clients for each way that Redis can stand.

None of them retries by itself: redis-py's own retries repeat an XADD whose
reply was lost, and so write an entry twice; ours read first what stands.

None has a time-out for replies either: redis-py 8.1 sends under
`asyncio.wait_for`, which on Python 3.11 loses a cancellation that comes as it
ends. Who uses one puts `asyncio.timeout` around each use.
"""

from app.topology.clients import (
    AnyRedis,
    Sentinels,
    close,
    connect,
    connection,
    forget_connections,
    listening_client,
    primaries_of,
)
from app.topology.cluster import (
    CONNECTION_ERRORS,
    Address,
    ClusterClient,
    SlotMap,
    redirection,
    slot_of,
)
from app.topology.pipe import Pipe

__all__ = [
    "CONNECTION_ERRORS",
    "Address",
    "AnyRedis",
    "ClusterClient",
    "Pipe",
    "Sentinels",
    "SlotMap",
    "close",
    "connect",
    "connection",
    "forget_connections",
    "listening_client",
    "primaries_of",
    "redirection",
    "slot_of",
]
