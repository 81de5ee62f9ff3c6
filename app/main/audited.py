"""The audit log of the service, and of commands beside it."""

from typing import Final

from app.admin.audit_chain import ChainKeys
from app.admin.audit_redis import RedisAuditStore
from app.admin.audit_store import AuditStore, MemoryAuditStore
from app.settings import Settings

TIMEOUT_SECONDS: Final = 2.0


def make_audit_store(settings: Settings, *, is_chained: bool) -> AuditStore:
    """Create the store of the audit log; without `is_chained` no entry has a link."""
    if settings.redis_url is None:
        return MemoryAuditStore()
    keys = chain_keys_of(settings) if is_chained else None
    return RedisAuditStore.from_url(settings.redis_url.reveal(), TIMEOUT_SECONDS).sign_with(keys)


def chain_keys_of(settings: Settings) -> ChainKeys | None:
    """Return the keys of the chain; None without SECRET_KEY."""
    if not settings.secret_key:
        return None
    return ChainKeys([key.reveal() for key in settings.secret_key])
