"""The store that all replicas share: Redis, 6.2 or newer, or Valkey.

Keys; all braces are literal, and are Redis Cluster's hash tags:

    plan:{NAME}  business:{ID}     hash      `as_fields` of the record
    number:{E164}                  string    the id of the business that owns it
    plans  businesses              set       every NAME, every ID
    live:{BUSINESS}                zset      CallSid → when its slot's lease ends, Unix ms
    live:{BUSINESS}:stream:CALLSID string    the call's live stream; expires with its lease
    ticket:{NONCE}  seen:{CALLSID} string    there while spent, while seen
    store:{check}                  string    written by `check`
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from itertools import batched
from time import monotonic
from typing import Any, Self, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.errors import StoreUnavailable
from app.plans import E164, IDENTIFIER, Business, Directory, Plan
