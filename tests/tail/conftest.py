"""What the consumer's tests write calls by."""

from tests.consumer.conftest import bridge, redis

__all__ = ["bridge", "redis"]
