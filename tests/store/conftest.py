"""A database of its own for the store's tests."""

from redis.asyncio import Redis

DATABASE = 9


async def emptied(redis_url: str) -> str:
    """Give the URL of an empty database on the server."""
    url = redis_url.rsplit("/", 1)[0] + f"/{DATABASE}"
    async with Redis.from_url(url) as client:
        await client.flushdb()
    return url
