"""Who sees which sessions, and may end them."""

from dataclasses import dataclass, field

import pytest

from app.admin.access_keys import digest_of, new_key
from app.admin.audit_log import AuditLog
from app.admin.audit_store import MemoryAuditStore
from app.admin.operators import Operators
from app.admin.principal import THE_OPERATOR, Principal
from app.admin.roles import KEY_ROLES, Role
from app.admin.sessions import IDLE_SECONDS, Sessions
from app.errors import Forbidden, NotThere
from app.store.access import AccessKey
from app.store.memory_access import MemoryAccess

ALICE = Principal("operator:alice", Role.OPERATOR)


@dataclass
class House:
    """Sessions of operators and of keys of every role, in two businesses."""

    now: float = 1_000_000.0
    holders: dict[str, Principal] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.access = MemoryAccess(lambda: self.now)
        self.audit = AuditLog(MemoryAuditStore(), lambda: self.now, lambda: self.now)
        self.operators = Operators({digest_of("one"): "", digest_of("two"): "alice"})
        self.sessions = Sessions(self.access, self.operators, self.audit, lambda: self.now)

    async def begin(self, name: str, holder: Principal, key_id: str) -> None:
        self.now += 1
        _, self.secrets[name] = await self.sessions.begin(holder, key_id, "Firefox on Linux")
        self.holders[name] = holder

    def who(self, name: str) -> Principal:
        return self.holders[name]

    async def seen(self, name: str, business_id: str | None = None) -> set[str]:
        found = await self.sessions.visible(self.who(name), business_id)
        digests = {digest_of(secret): other for other, secret in self.secrets.items()}
        return {digests[one.session.digest] for one in found}

    async def live(self) -> set[str]:
        return {
            name
            for name, secret in self.secrets.items()
            if await self.sessions.find(secret, "") is not None
        }

    async def id_of(self, name: str) -> str:
        session = await self.sessions.find(self.secrets[name], "")
        assert session is not None
        return session.id


@pytest.fixture
async def house() -> House:
    house = House()
    for holder in (THE_OPERATOR, ALICE):
        [token_id] = house.operators.token_ids(holder.actor)
        await house.begin(holder.actor, holder, token_id)
    for business_id in ("shop", "bank"):
        for role in KEY_ROLES:
            made = new_key()
            key = AccessKey(made.id, business_id, "x", digest_of(made.text), 1, role=role)
            await house.access.add_key(key)
            holder = Principal(f"key:{made.id}", role, business_id)
            await house.begin(f"{business_id} {role}", holder, made.id)
    return house


OF_SHOP = {"shop viewer", "shop agent", "shop admin"}
OPERATORS = {"operator", "operator:alice"}


@pytest.mark.parametrize(
    ("name", "business_id", "seen"),
    [
        ("operator", None, OPERATORS),
        ("operator:alice", None, OPERATORS),
        ("operator:alice", "shop", OF_SHOP),
        ("shop admin", None, OF_SHOP),
        ("shop admin", "shop", OF_SHOP),
        ("shop agent", None, {"shop agent"}),
        ("shop viewer", None, {"shop viewer"}),
        ("shop viewer", "shop", {"shop viewer"}),
    ],
)
async def test_sees_sessions_within_reach(
    house: House, name: str, business_id: str | None, seen: set[str]
) -> None:
    assert await house.seen(name, business_id) == seen
    for other in seen:
        await house.sessions.end(house.who(name), await house.id_of(other), business_id)
    assert await house.live() == house.secrets.keys() - seen


@pytest.mark.parametrize("name", ["shop viewer", "shop agent", "shop admin"])
async def test_neither_sees_nor_ends_sessions_of_others(house: House, name: str) -> None:
    who, before = house.who(name), await house.live()
    for other in before - await house.seen(name):
        for business_id in (None, "shop"):
            with pytest.raises(NotThere):
                await house.sessions.end(who, await house.id_of(other), business_id)
        with pytest.raises(NotThere):
            await house.sessions.end(who, await house.id_of(other), "bank")
    for ask in (house.sessions.visible, house.sessions.end_of_business):
        with pytest.raises(NotThere):
            await ask(who, "bank")
    assert await house.live() == before


async def test_lists_who_began_a_session_where_and_when_it_ends(house: House) -> None:
    who = Principal("operator:alice", Role.OPERATOR, address="192.0.2.7")
    [token_id] = house.operators.token_ids(who.actor)
    await house.begin("another", who, token_id)
    newest = (await house.sessions.visible(ALICE))[0]
    assert newest.holder == ALICE
    assert newest.session.address == "192.0.2.7"
    assert newest.session.browser == "Firefox on Linux"
    assert newest.session.began_at == newest.session.last_used_at == house.now * 1000
    assert newest.ends_at == (house.now + IDLE_SECONDS) * 1000
    house.now += 3600
    await house.sessions.find(house.secrets["another"], "192.0.2.8")
    used = (await house.sessions.visible(ALICE))[0]
    assert used.session.address == "192.0.2.8"
    assert used.ends_at == (house.now + IDLE_SECONDS) * 1000


async def test_signing_out_everywhere_ends_all_that_one_token_or_key_began(house: House) -> None:
    admin = house.who("shop admin")
    await house.begin("shop admin, elsewhere", admin, admin.actor.removeprefix("key:"))
    before = await house.live()
    assert await house.sessions.end_own(admin) == 2
    assert await house.live() == before - {"shop admin", "shop admin, elsewhere"}
    assert await house.sessions.end_own(ALICE) == 1
    assert "operator" in await house.live()
    assert "operator:alice" not in await house.live()


@pytest.mark.parametrize("name", ["operator", "shop admin"])
async def test_all_sessions_of_a_business_are_ended_at_once(house: House, name: str) -> None:
    before = await house.live()
    assert await house.sessions.end_of_business(house.who(name), "shop") == 3
    assert await house.live() == before - OF_SHOP


@pytest.mark.parametrize("name", ["shop viewer", "shop agent"])
async def test_only_admins_end_all_sessions_of_a_business(house: House, name: str) -> None:
    before = await house.live()
    with pytest.raises(Forbidden):
        await house.sessions.end_of_business(house.who(name), "shop")
    assert await house.live() == before


async def test_audit_log_says_who_ended_which_session(house: House) -> None:
    session_id = await house.id_of("shop agent")
    await house.sessions.end(ALICE, session_id, "shop")
    await house.sessions.sign_out(ALICE, house.secrets["operator:alice"])
    signed_out, ended = await house.audit.store.page(None, limit=2)
    assert (ended.actor, ended.action, ended.business_id) == (
        "operator:alice",
        "session.ended",
        "shop",
    )
    assert (ended.target, ended.data["session"]) == (house.who("shop agent").actor, session_id)
    assert (signed_out.action, signed_out.target) == ("session.ended", "operator:alice")
